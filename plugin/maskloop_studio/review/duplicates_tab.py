"""The Data Manager's tab of alike images: the tasks of a group stand side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop_studio.labelstudio.tabs import number_column_tab

if TYPE_CHECKING:
    from maskloop.curation.duplicates.alike import AlikePair
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["DUPLICATES_TITLE", "groups_of", "remove_duplicates_tab", "show_duplicates"]

logger = logging.getLogger(__name__)
DUPLICATES_TITLE = "maskloop: duplicates"
FIELD = "maskloop_duplicates"  # of a task's data: number of its group; the tab orders by it


def groups_of(pairs: Sequence[AlikePair]) -> list[list[int]]:
    """Return groups of tasks that a chain of pairs connects, the group of the first pair first."""
    group_of: dict[int, list[int]] = {}
    for pair in pairs:
        first = group_of.setdefault(pair.first, [pair.first])
        second = group_of.setdefault(pair.second, [pair.second])
        if first is not second:
            first += second
            for task in second:
                group_of[task] = first
    unlike = {id(group): group for group in group_of.values()}
    return [sorted(group) for group in unlike.values()]


def show_duplicates(project_id: int, pairs: Sequence[AlikePair], *, client: StudioClient) -> int:
    """Make the tab in place of an earlier one; return how many tasks are in it.

    Killed in between, it leaves tasks with the column; the next call or `remove_duplicates_tab` removes it.

    Raises:
        StudioError: Label Studio does not answer.
    """
    remove_duplicates_tab(project_id, client=client)
    shown = 0
    for number, group in enumerate(groups_of(pairs), start=1):
        for task_id in group:
            task = client.task(task_id, project_id=project_id)
            if task is not None:  # deleted since
                client.update_task(task_id, data={**task.data, FIELD: number})
                shown += 1
    if shown:
        client.create_view(project_id, number_column_tab(DUPLICATES_TITLE, FIELD, largest_first=False))
    log_action(logger, "duplicates_shown", project_id=project_id, tasks=shown)
    return shown


def remove_duplicates_tab(project_id: int, *, client: StudioClient) -> int:
    """Remove the tab and the tasks' column; return of how many tasks.

    Raises:
        StudioError: Label Studio does not answer.
    """
    for view in client.views(project_id):
        if (view.get("data") or {}).get("title") == DUPLICATES_TITLE:
            client.delete_view(int(view["id"]))
    removed: set[int] = set()
    # as long as a page has tasks that were not there before: one that cannot be changed is not asked for ever
    while left := set(client.ids_with_number(project_id, FIELD)) - removed:
        for task_id in sorted(left):
            task = client.task(task_id, project_id=project_id)
            if task is not None:
                data = {name: value for name, value in task.data.items() if name != FIELD}
                client.update_task(task_id, data=data)
        removed |= left
    return len(removed)
