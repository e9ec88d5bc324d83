"""Our tabs: made, shared out, kept in step, removed; those of others stay as they are."""

from types import SimpleNamespace

import numpy as np
import pytest

from maskloop.errors import StudioError
from maskloop.selection.arrangement import overall_rank, serve_order
from maskloop.selection.pool import Arrangement
from maskloop_studio.labelstudio.tabs import BY_SCORE
from maskloop_studio.projects.task_order import (
    SAMPLING,
    TITLE,
    keep_order_in_step,
    pushed_cluster,
    pushed_scores,
    remove_order,
    set_up_order,
    tab_titles,
    tab_troubles,
)

MINE = {"title": "mine", "ordering": ["tasks:id"]}
OPERATORS = {
    "less": lambda number, value: number < value,
    "greater_or_equal": lambda number, value: number >= value,
    "in": lambda number, value: value["min"] <= number <= value["max"],
}


class TabsInMemory:
    """Label Studio's tabs and unlabelled tasks of one project."""

    def __init__(self, *tabs, task_ids=(), sampling=SAMPLING, refuses=False):
        self.tabs = {number: {"id": number, "data": dict(data)} for number, data in enumerate(tabs, 1)}
        self.task_ids = sorted(task_ids)
        self.sampling = sampling
        self.refuses = refuses
        self.writes = 0

    def project(self, _project_id):
        return SimpleNamespace(sampling=self.sampling)

    def update_project(self, _project_id, *, sampling):
        self.writes += 1
        self.sampling = sampling

    def views(self, _project_id):
        if self.refuses:
            raise StudioError("tabs", expected="success", got="status 403", remedy="none")
        return list(self.tabs.values())

    def create_view(self, _project_id, data):
        self.writes += 1
        number = max(self.tabs, default=0) + 1
        self.tabs[number] = {"id": number, "data": dict(data)}
        return number

    def update_view(self, _project_id, view_id, data):
        self.writes += 1
        self.tabs[view_id]["data"] = dict(data)

    def delete_view(self, view_id):
        self.writes += 1
        del self.tabs[view_id]

    def share(self, *filters):
        return [
            number
            for number in self.task_ids
            if all(OPERATORS[line["operator"]](number, line["value"]) for line in filters)
        ]

    def count_unlabelled(self, _project_id, *filters):
        return len(self.share(*filters))

    def unlabelled_id_at(self, _project_id, position):
        return self.task_ids[position]

    def shares(self):
        ours = [view for view in self.tabs.values() if TITLE in view["data"]["title"]]
        return [self.share(*view["data"]["filters"]["items"]) for view in ours]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("tasks", [0, 1, 3, 100], ids=lambda tasks: f"{tasks} tasks")
def test_set_up_order_shares_out_every_task_once(count, tasks):
    client = TabsInMemory(task_ids=range(10, 10 + 3 * tasks, 3))
    set_up_order(7, client, tabs=count)
    shares = client.shares()
    assert len(shares) == count
    assert sorted(number for share in shares for number in share) == (client.task_ids if count else [])
    assert tab_troubles(client.views(7), count) == []
    if tasks == 100 and count:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_set_up_order_project_never_opened_has_a_plain_tab_too():
    client = TabsInMemory(task_ids=range(9))
    set_up_order(7, client, tabs=2)
    assert [view["data"]["title"] for view in client.views(7)] == ["Default", *tab_titles(2)]
    assert remove_order(7, client) == 2


def test_set_up_order_twice_writes_once():
    client = TabsInMemory(MINE, task_ids=range(30), sampling="Sequential sampling")
    set_up_order(7, client, tabs=3)
    writes = client.writes
    set_up_order(7, client, tabs=3)
    assert (client.sampling, client.writes) == (SAMPLING, writes)


@pytest.mark.parametrize(
    ("before", "after"), [pytest.param(1, 3, id="more"), pytest.param(3, 1, id="fewer"), (2, 0)]
)
def test_set_up_order_other_number_leaves_tabs_of_others(before, after):
    client = TabsInMemory(MINE, task_ids=range(30))
    set_up_order(7, client, tabs=before)
    set_up_order(7, client, tabs=after)
    titles = [view["data"]["title"] for view in client.views(7)]
    assert sorted(titles) == sorted(["mine", *tab_titles(after)])
    assert client.tabs[1]["data"] == MINE


@pytest.mark.parametrize(
    ("left", "moves"),
    [
        pytest.param(range(30), False, id="nothing done"),
        pytest.param([*range(5), *range(10, 30)], False, id="one a little ahead"),
        pytest.param(range(12, 30), True, id="one has done all of its share"),
        pytest.param(range(300), True, id="many new tasks in the last"),
        pytest.param([], False, id="all done"),
    ],
)
def test_keep_order_in_step_borders_move_only_where_shares_differ_much(left, moves):
    client = TabsInMemory(task_ids=range(30))
    set_up_order(7, client, tabs=3)
    writes = client.writes
    client.task_ids = sorted(left)
    keep_order_in_step(7, client, tabs=3)
    assert (client.writes > writes) is moves
    if moves:
        assert max(map(len, client.shares())) - min(map(len, client.shares())) <= 1


def test_keep_order_in_step_keeps_columns_and_mends_the_rest():
    client = TabsInMemory(MINE, task_ids=range(9))
    set_up_order(7, client, tabs=1)
    client.tabs[2]["data"] |= {"ordering": ["-tasks:id"], "hiddenColumns": {"explore": ["tasks:id"]}}
    keep_order_in_step(7, client, tabs=1)
    assert client.tabs[2]["data"]["ordering"] == [BY_SCORE]
    assert client.tabs[2]["data"]["hiddenColumns"] == {"explore": ["tasks:id"]}


def test_keep_order_in_step_leaves_the_sampling_and_survives_a_refusal():
    client = TabsInMemory(sampling="Sequential sampling", refuses=True)
    keep_order_in_step(7, client, tabs=1)
    assert (client.sampling, client.writes) == ("Sequential sampling", 0)


def test_remove_order_takes_ours_only():
    client = TabsInMemory(MINE, MINE | {"title": "maskloop: my own"}, task_ids=range(9))
    set_up_order(7, client, tabs=3)
    assert remove_order(7, client) == 3
    assert [view["data"]["title"] for view in client.views(7)] == ["mine", "maskloop: my own"]
    assert remove_order(7, client) == 0


def _edited(tabs):
    tabs[3]["data"]["filters"] = {"conjunction": "and", "items": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda tabs: tabs.pop(3), "no tab", id="deleted"),
        pytest.param(lambda tabs: tabs[2]["data"].pop("ordering"), "ordered by nothing", id="no order"),
        pytest.param(lambda tabs: tabs[2]["data"].update(ordering=["-" + BY_SCORE]), "-tasks", id="turned"),
        pytest.param(_edited, "filters", id="shares overlap"),
    ],
)
def test_tab_troubles_says_what_is_wrong(change, words):
    client = TabsInMemory(task_ids=range(9))
    set_up_order(7, client, tabs=3)
    change(client.tabs)
    (trouble,) = tab_troubles(client.views(7), 3)
    assert words in trouble


def test_pushed_scores_ascend_in_the_order_of_serving():
    rng = np.random.default_rng(0)
    arrangement = Arrangement(
        score_n=rng.random(50), cluster_n=rng.integers(0, 5, 50), at_random_n=np.zeros(50, dtype=np.bool_)
    )
    told_n = pushed_scores(arrangement)
    assert list(np.argsort(told_n)) == list(serve_order(arrangement))
    assert 0 < told_n.min() < told_n.max() < 1
    again = Arrangement(score_n=told_n, cluster_n=arrangement.cluster_n, at_random_n=arrangement.at_random_n)
    assert overall_rank(again).tolist() == overall_rank(arrangement).tolist()


def test_pushed_cluster_versions_share_none():
    assert {pushed_cluster(queue, 1) for queue in range(1000)}.isdisjoint(
        pushed_cluster(queue, 2) for queue in range(1000)
    )
