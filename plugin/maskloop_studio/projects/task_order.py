"""Keeps Label Studio's tasks in our order: by its sampling, by the scores that we push, and by our own tabs.

Label Studio's "Label All Tasks" follows cluster and score and gives no task to two annotators, until a
project has two members: then it draws by chance. A Data Manager tab, with "Label Tasks As Displayed", follows
its column however many members there are, but gives all its users the same task. So each annotator gets a tab
with a share of the tasks, ordered by a score that includes the turns of the clusters.

Source:
    label_studio/projects/functions/next_task.py and data_manager/managers.py of Label Studio 1.23.2.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.errors import StudioError
from maskloop.log import log_action
from maskloop_studio.labelstudio.tabs import BY_SCORE, HIDDEN_COLUMNS

if TYPE_CHECKING:
    from maskloop.selection.pool import Arrangement, Floats
    from maskloop_studio.labelstudio.client import StudioClient
    from maskloop_studio.labelstudio.models import Json

__all__ = [
    "SAMPLING",
    "TITLE",
    "Tab",
    "keep_order_in_step",
    "pushed_cluster",
    "pushed_scores",
    "remove_order",
    "reset_sampling",
    "set_up_order",
    "tab_titles",
    "tab_troubles",
]

logger = logging.getLogger(__name__)
SAMPLING = "Uncertainty sampling"
STUDIO_SAMPLING = "Sequential sampling"  # Label Studio's default
TITLE = "maskloop: most to teach first"
OURS = re.compile(r"(\d+/\d+ )?" + re.escape(TITLE))
# What the Data Manager makes by itself where there is no tab; with all columns it would be hard to read.
PLAIN = {
    "title": "Default",
    "hiddenColumns": {**HIDDEN_COLUMNS, "explore": [*HIDDEN_COLUMNS["explore"], BY_SCORE]},
}
ID_FILTER = "filter:tasks:id"
LARGEST_SHARE = 1.5  # of the mean: beyond it the borders are drawn anew
CLUSTERS = 1000  # the most there are of a version


@dataclass(frozen=True, kw_only=True)
class Tab:
    """One of our tabs as it ought to be."""

    title: str
    first_id: int | None = None  # its share of the tasks by their numbers; None: from the first on
    end_id: int | None = None  # where the next share begins; None: all that follow

    def filters(self) -> list[Json]:
        """Return Label Studio's filters for the share."""
        if self.first_id is not None and self.end_id is not None:
            return [_id_filter("in", {"min": self.first_id, "max": self.end_id - 1})]
        if self.end_id is not None:
            return [_id_filter("less", self.end_id)]
        return [] if self.first_id is None else [_id_filter("greater_or_equal", self.first_id)]


def pushed_scores(arrangement: Arrangement) -> Floats:
    """Return the score that is pushed for each task: its turn in the whole order, between 0 and 1.

    Inside a cluster the order is that of the arrangement's own scores, so that Label Studio's rule serves one
    annotator as before; a tab, which reads the score alone, also gets the turns of the clusters from it.
    Where there is one cluster only, the arrangement's scores do both, and mean more to a reader.
    """
    from maskloop.selection.arrangement import overall_rank

    if len(set(arrangement.cluster_n.tolist())) <= 1:
        return arrangement.score_n
    rank_n = overall_rank(arrangement)
    return (rank_n + 0.5) / max(1, len(rank_n))


def pushed_cluster(queue: int, version: int) -> int:
    """Return the cluster that is pushed for a task: another one for every version.

    Label Studio counts a solved task in the largest cluster of all its predictions, of any version: with
    numbers that two versions share it is counted where it is not.

    Args:
        queue: of the arrangement, 0..999.
        version: the model version's number.
    """
    return queue + CLUSTERS * version


def set_up_order(project_id: int, client: StudioClient, *, tabs: int) -> None:
    """Make a project serve its tasks in our order: sampling, and our tabs; doing it again changes nothing.

    Other tabs are not touched; ours are found by their titles.

    Args:
        project_id: Label Studio's number.
        client: Label Studio.
        tabs: how many annotators get a tab each.

    Raises:
        StudioError: Label Studio refused.
    """
    if client.project(project_id).sampling != SAMPLING:
        client.update_project(project_id, sampling=SAMPLING)
    _keep_tabs(project_id, client, tabs)


def keep_order_in_step(project_id: int, client: StudioClient, *, tabs: int) -> None:
    """Bring our tabs in step with the tasks that are left; where Label Studio refuses, the log has why.

    The sampling stays as it is: a person may have changed it on purpose, and `maskloop doctor` shows it.
    """
    try:
        _keep_tabs(project_id, client, tabs)
    except StudioError as exc:
        log_action(logger, "tabs_not_updated", level=logging.WARNING, project_id=project_id, error=exc)


def remove_order(project_id: int, client: StudioClient) -> int:
    """Remove our tabs; return how many there were.

    Raises:
        StudioError: Label Studio refused.
    """
    ours = [view for view in client.views(project_id) if _is_ours(view)]
    for view in ours:
        client.delete_view(int(view["id"]))
    return len(ours)


def reset_sampling(project_id: int, client: StudioClient) -> bool:
    """Set the task sampling to Label Studio's default where it is ours; return whether it was.

    Raises:
        StudioError: Label Studio refused.
    """
    if client.project(project_id).sampling != SAMPLING:
        return False
    client.update_project(project_id, sampling=STUDIO_SAMPLING)
    return True


def tab_titles(count: int) -> tuple[str, ...]:
    """Return what our tabs are called, for so many annotators."""
    # The number comes first, because the Data Manager cuts titles.
    return (TITLE,) * count if count < 2 else tuple(f"{n}/{count} {TITLE}" for n in range(1, count + 1))


def tab_troubles(views: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Return what is wrong with our tabs: missing, ordered otherwise, shares that overlap or leave a gap."""
    found = _by_title(views)
    troubles = [f"no tab {title!r}" for title in tab_titles(count) if title not in found]
    troubles += [
        f"tab {title!r} is ordered by {_ordering(view) or 'nothing'}"
        for title, view in found.items()
        if _ordering(view) != [BY_SCORE]
    ]
    if not troubles and count and _tabs_of(views, count) is None:
        troubles.append("the tabs' filters are not those that share out the tasks")
    return troubles


def _keep_tabs(project_id: int, client: StudioClient, count: int) -> None:
    views = client.views(project_id)
    titles = tab_titles(count)
    kept: dict[str, Json] = {}
    for view in filter(_is_ours, views):
        if view["data"]["title"] in titles and view["data"]["title"] not in kept:
            kept[view["data"]["title"]] = view
        else:
            client.delete_view(int(view["id"]))
    tabs = _tabs_of(views, count)
    if tabs is None or not _is_fair(project_id, tabs, client):
        tabs = _share_out(project_id, count, client)
    made = 0
    for tab in tabs:
        standing = kept.get(tab.title)
        wanted = {
            "title": tab.title,
            "ordering": [BY_SCORE],
            "filters": {"conjunction": "and", "items": tab.filters()},
        }
        if standing is None:
            if not views and not made:
                client.create_view(project_id, PLAIN)
            client.create_view(project_id, wanted | {"hiddenColumns": HIDDEN_COLUMNS})
            made += 1
        elif _ordering(standing) != [BY_SCORE] or _filters(standing) != tab.filters():
            columns = {name: value for name, value in standing["data"].items() if name != "selectedItems"}
            client.update_view(project_id, int(standing["id"]), {**columns, **wanted})
            made += 1
    if made:
        log_action(logger, "tabs_updated", project_id=project_id, tabs=count, changed=made)


def _share_out(project_id: int, count: int, client: StudioClient) -> list[Tab]:
    """Return tabs whose shares hold as many unlabelled tasks each.

    By the tasks' numbers, because they are the only thing Label Studio filters by that never changes; a share
    has about the same part of what comes first and of what comes last.
    """
    left = client.count_unlabelled(project_id) if count > 1 else 0
    places = [left * share // count for share in range(1, count)]
    if left < count:
        places = []
    borders = [client.unlabelled_id_at(project_id, place) for place in places] or [0] * max(0, count - 1)
    edges: list[int | None] = [None, *borders, None]
    return [
        Tab(title=title, first_id=first, end_id=end)
        for title, (first, end) in zip(tab_titles(count), itertools.pairwise(edges), strict=False)
    ]


def _is_fair(project_id: int, tabs: Sequence[Tab], client: StudioClient) -> bool:
    if len(tabs) < 2:
        return True
    # Borders that move while people work give two of them the same task, so they stay while they can.
    left = [client.count_unlabelled(project_id, *tab.filters()) for tab in tabs]
    return sum(left) < len(tabs) or (min(left) > 0 and max(left) * len(left) <= LARGEST_SHARE * sum(left))


def _tabs_of(views: Sequence[Mapping[str, Any]], count: int) -> list[Tab] | None:
    """Return our tabs as they stand, None where they do not share out all tasks."""
    found = _by_title(views)
    titles = tab_titles(count)
    if any(title not in found for title in titles):
        return None
    shares = [_share(_filters(found[title])) for title in titles]
    known = [share for share in shares if share is not None]
    borders = list(itertools.pairwise(known))
    is_whole = len(known) == count and (not known or (known[0][0] is None and known[-1][1] is None))
    if not is_whole or any(before[1] is None or before[1] != after[0] for before, after in borders):
        return None
    return [
        Tab(title=title, first_id=first, end_id=end)
        for title, (first, end) in zip(titles, known, strict=True)
    ]


def _share(filters: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None] | None:
    if not filters:
        return None, None
    only = filters[0]
    if len(filters) > 1 or only.get("filter") != ID_FILTER:
        return None
    operator, value = only.get("operator"), only.get("value")
    try:
        if operator == "in" and isinstance(value, dict):
            return int(value["min"]), int(value["max"]) + 1
        if operator == "less":
            return None, int(str(value))
        return (int(str(value)), None) if operator == "greater_or_equal" else None
    except (KeyError, TypeError, ValueError):
        return None


def _id_filter(operator: str, value: int | dict[str, int]) -> Json:
    return {"filter": ID_FILTER, "operator": operator, "type": "Number", "value": value}


def _by_title(views: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(view["data"]["title"]): view for view in views if _is_ours(view)}


def _is_ours(view: Mapping[str, Any]) -> bool:
    return OURS.fullmatch(str((view.get("data") or {}).get("title"))) is not None


def _ordering(view: Mapping[str, Any]) -> list[str]:
    return list((view.get("data") or {}).get("ordering") or [])


def _filters(view: Mapping[str, Any]) -> list[Json]:
    stored = (view.get("data") or {}).get("filters") or {}
    return [
        {name: item.get(name) for name in ("filter", "operator", "type", "value")}
        for item in stored.get("items") or []
    ]
