"""Which task a real Label Studio gives next: to one annotator, to three at once, to three members."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from scipy.stats import kendalltau
from tests.acceptance.conftest import studio_database

from maskloop.selection.arrangement import serve_order
from maskloop.selection.pool import Arrangement
from maskloop.settings import Settings
from maskloop.store.database import Store
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import run_checks
from maskloop_studio.doctor.findings import Level
from maskloop_studio.doctor.order import ORDER_CHECKS
from maskloop_studio.labelstudio.client import StudioClient, StudioProject
from maskloop_studio.projects.task_order import (
    SAMPLING,
    TITLE,
    keep_order_in_step,
    pushed_cluster,
    pushed_scores,
    set_up_order,
)

pytestmark = pytest.mark.studio

PASSWORD = "correct-horse-7"
CLUSTERS = 4


@dataclass(frozen=True, kw_only=True)
class Person:
    """An account of its own."""

    user_id: int
    client: StudioClient


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """A project with predictions, and the order in which its tasks ought to come."""

    id: int
    version: str
    wanted: list[int]


@pytest.fixture(scope="module")
def people(studio: RealStudio) -> Iterator[list[Person]]:
    made = [sign_up(studio, f"annotator{number}@example.com") for number in range(3)]
    yield made
    for person in made:
        person.client.close()


@pytest.fixture
def make_ordered(client: StudioClient, make_project: Callable[..., StudioProject]) -> Callable[..., Ordered]:
    def make(count: int = 32, *, seed: int = 0, stale: bool = False) -> Ordered:
        rng = np.random.default_rng(seed)
        arrangement = Arrangement(
            score_n=rng.random(count),
            cluster_n=rng.choice(CLUSTERS, size=count, p=[0.5, 0.25, 0.15, 0.1]),
            at_random_n=np.zeros(count, dtype=np.bool_),
        )
        project = make_project("order")
        tasks = [{"data": {"image": f"http://host/{number}.png"}} for number in range(count)]
        ids = client.import_tasks(project.id, tasks)
        score_n, version = pushed_scores(arrangement), f"maskloop-{project.id}-v2"
        for row, task_id in enumerate(ids):
            cluster = int(arrangement.cluster_n[row])
            if stale:
                other = pushed_cluster((cluster + 1) % CLUSTERS, 1)
                tag = f"maskloop-{project.id}-v1"
                client.create_prediction(
                    task_id, [], score=1 - score_n[row], cluster=other, model_version=tag
                )
            client.create_prediction(
                task_id, [], score=score_n[row], cluster=pushed_cluster(cluster, 2), model_version=version
            )
        client.update_project(project.id, model_version=version, sampling=SAMPLING)
        return Ordered(id=project.id, version=version, wanted=[ids[row] for row in serve_order(arrangement)])

    return make


@pytest.mark.parametrize("stale", [False, True], ids=["one version", "an earlier one is stored too"])
def test_next_task_one_annotator_follows_cluster_and_score(
    make_ordered: Callable[..., Ordered], people: list[Person], stale: bool
) -> None:
    project = make_ordered(stale=stale)
    assert list(take_turns(people[0], project, count=32)) == project.wanted


def test_next_task_three_at_once_stay_near_the_order(
    make_ordered: Callable[..., Ordered], people: list[Person], capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_ordered(36, seed=1)
    served = serve_at_once(people, lambda person: next_of(person.client.next_task(project.id)))
    tau = tell("three at once, no members", served, project, capsys)
    assert set(served) == set(project.wanted)
    assert tau > 0.8


def test_next_task_three_members_with_a_tab_each_stay_near_the_order(
    make_ordered: Callable[..., Ordered],
    people: list[Person],
    studio: RealStudio,
    client: StudioClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = make_ordered(36, seed=2)
    join(studio, project, people)
    set_up_order(project.id, client, tabs=len(people))
    ours = [tab for tab in client.views(project.id) if TITLE in tab["data"]["title"]]
    tabs = dict(zip([person.user_id for person in people], ours, strict=True))
    served = serve_at_once(people, lambda person: ask_tab(person, project, tabs[person.user_id]))
    tau = tell("three members, a tab each", served, project, capsys)
    assert sorted(served) == sorted(project.wanted)  # nobody was given what another one had
    assert tau > 0.4  # by chance alone: 0, give or take 0.12


@pytest.fixture
def services(client: StudioClient, settings: Settings) -> Iterator[SimpleNamespace]:
    registry = SimpleNamespace(alias=lambda _name, _alias: 2)
    with contextlib.closing(Store(settings.resolved_database_url)) as store:
        yield SimpleNamespace(client=client, settings=settings, store=store, registry=registry)


def test_doctor_notices_each_way_to_lose_the_order(
    make_ordered: Callable[..., Ordered],
    people: list[Person],
    studio: RealStudio,
    client: StudioClient,
    services: SimpleNamespace,
) -> None:
    project = make_ordered(48, seed=3)
    set_up_order(project.id, services.client, tabs=services.settings.order_tabs)
    list(take_turns(people[0], project, count=12))
    assert troubled(project, services) == set()

    client.update_project(project.id, sampling="Sequential sampling")
    assert troubled(project, services) == {"sampling"}
    set_up_order(project.id, services.client, tabs=services.settings.order_tabs)

    (tab,) = (tab for tab in client.views(project.id) if tab["data"]["title"] == TITLE)
    client.delete_view(int(tab["id"]))
    assert troubled(project, services) == {"tabs"}
    keep_order_in_step(project.id, services.client, tabs=services.settings.order_tabs)
    assert troubled(project, services) == set()

    join(studio, project, people)
    list(take_turns(people[0], project, count=14))
    assert troubled(project, services) == {"order followed"}

    other = f"maskloop-{project.id}-v1"
    client.create_prediction(project.wanted[-1], [], score=0.5, cluster=0, model_version=other)
    client.update_project(project.id, model_version=other)
    assert "shown version" in troubled(project, services)


def test_set_up_order_leaves_tabs_of_others_alone(
    make_ordered: Callable[..., Ordered], client: StudioClient, services: SimpleNamespace
) -> None:
    project = make_ordered(8)
    mine = {"title": "mine", "ordering": ["tasks:id"], "filters": {"conjunction": "and", "items": []}}
    mine_id = client.create_view(project.id, mine)
    for count in (3, 3, 1):
        services.settings = services.settings.model_copy(update={"order_tabs": count})
        set_up_order(project.id, services.client, tabs=services.settings.order_tabs)
        assert len(client.views(project.id)) == count + 1
    services.settings = services.settings.model_copy(update={"order_tabs": 0})
    keep_order_in_step(project.id, services.client, tabs=services.settings.order_tabs)
    (left,) = client.views(project.id)
    assert (left["id"], left["data"]["title"], left["data"]["ordering"]) == (mine_id, "mine", ["tasks:id"])


def sign_up(studio: RealStudio, email: str) -> Person:
    """Make an account as a person does: through the invitation, in a browser."""
    headers = {"Authorization": f"Token {studio.token}"}
    with httpx.Client(base_url=studio.url, trust_env=False, follow_redirects=True, timeout=60) as browser:
        invitation = urlsplit(browser.get("/api/invite", headers=headers).json()["invite_url"])
        page = f"{invitation.path}?{invitation.query}"
        browser.get(page)
        form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        browser.post(page, data=form, headers={"Referer": studio.url + page})
        token = browser.get("/api/current-user/token").json()["token"]
    person = StudioClient(studio.url, token)
    return Person(user_id=person.whoami().id, client=person)


def join(studio: RealStudio, project: Ordered, people: Sequence[Person]) -> None:
    """Make people members of a project; this Label Studio's API cannot."""
    row = "INSERT INTO projects_projectmember (project_id, user_id, enabled, created_at, updated_at)"
    with studio_database(studio) as database:
        for person in people:
            database.execute(
                f"{row} VALUES (?, ?, 1, datetime('now'), datetime('now'))", (project.id, person.user_id)
            )


def take_turns(person: Person, project: Ordered, *, count: int) -> Iterator[int]:
    """Ask for the next task and submit it, so often; yield which came."""
    for _ in range(count):
        task = person.client.next_task(project.id)
        assert task is not None
        yield task["id"]
        person.client.create_annotation(task["id"], {"result": []})


def next_of(task: dict[str, Any] | None) -> int | None:
    return None if task is None else int(task["id"])


def ask_tab(person: Person, project: Ordered, tab: dict[str, Any]) -> int | None:
    """Ask for the next task as the editor does after "Label Tasks As Displayed"."""
    body = {
        "project": project.id,
        "ordering": tab["data"]["ordering"],
        "filters": {
            "conjunction": tab["data"]["filters"]["conjunction"],
            "items": [
                {name: item[name] for name in ("filter", "operator", "type", "value")}
                for item in tab["data"]["filters"]["items"]
            ],
        },
    }
    answer = person.client._request(
        "POST",
        "api/dm/actions",
        body=body,
        params={"id": "next_task", "tabID": tab["id"], "project": project.id},
        missing_ok=True,
    )
    return None if answer.status_code == 404 else int(answer.json()["id"])


def serve_at_once(people: Sequence[Person], ask: Callable[[Person], int | None]) -> list[int]:
    """Let people work at the same time until nothing is left; return what came, in the order it came."""
    served: list[int] = []
    failed: list[BaseException] = []

    def work(number: int, person: Person) -> None:
        rng = random.Random(number)
        try:
            while (task_id := ask(person)) is not None:
                served.append(task_id)
                time.sleep(rng.uniform(0.02, 0.2))
                person.client.create_annotation(task_id, {"result": []})
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return served


def tell(what: str, served: Sequence[int], project: Ordered, capsys: pytest.CaptureFixture[str]) -> float:
    """Print how near the order was, and return Kendall's tau with the wanted one."""
    came = list(dict.fromkeys(served))
    turn = {task_id: number for number, task_id in enumerate(project.wanted)}
    moved = [abs(turn[task_id] - number) for number, task_id in enumerate(came)]
    tau = float(kendalltau([turn[task_id] for task_id in came], range(len(came))).statistic)
    with capsys.disabled():
        print(
            f"\n{what}: Kendall's tau {tau:.3f}, displaced by {np.mean(moved):.2f} places on average, "
            f"{max(moved)} at most, of {len(came)}; {len(served) - len(came)} given twice"
        )
    return tau


def troubled(project: Ordered, services: SimpleNamespace) -> set[str]:
    """Return the names of the checks that found something wrong with the order."""
    findings = run_checks(ORDER_CHECKS, CheckContext(services, project.id))
    assert not [finding for finding in findings if "made" in finding.expected], findings
    return {finding.check for finding in findings if finding.level is Level.TROUBLE}
