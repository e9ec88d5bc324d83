"""The Data Manager's tab of a review, and the proposals in it as predictions of one version."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.log import log_action
from maskloop.store.reviews import REVIEW_TAG
from maskloop_studio.labelstudio.tabs import number_column_tab

if TYPE_CHECKING:
    from maskloop.store.pushes import PushRepository
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["REVIEW_TITLE", "TaskProposal", "remove_review", "show_proposals"]

logger = logging.getLogger(__name__)
REVIEW_TITLE = "maskloop: review"
# The Data Manager orders by a column, and its score is that of the displayed version only. A task's data is
# the one column of our own; labels and images do not depend on it.
FIELD = "maskloop_review"


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskProposal:
    """One task's annotation with the proposals in it."""

    task_id: int
    regions: Sequence[Mapping[str, Any]]
    score: float  # 0..1: of its likeliest error
    data: Mapping[str, Any]  # of the task


def show_proposals(
    project_id: int, proposals: Sequence[TaskProposal], *, client: StudioClient, pushes: PushRepository
) -> None:
    """Store the proposals in place of an earlier review's, and make the tab.

    What is about to be sent is noted before, so that a review that was killed is removed whole.

    Raises:
        StudioError: Label Studio does not answer.
    """
    remove_review(project_id, client=client, pushes=pushes)
    pushes.begin_many(project_id, [one.task_id for one in proposals], REVIEW_TAG)
    arrived = {}
    for one in proposals:
        arrived[one.task_id] = client.create_prediction(
            one.task_id, one.regions, score=1.0 - one.score, model_version=REVIEW_TAG
        )
        client.update_task(one.task_id, data={**one.data, FIELD: round(one.score, 4)})
    pushes.finish_many(project_id, REVIEW_TAG, arrived)
    if proposals:
        client.create_view(project_id, number_column_tab(REVIEW_TITLE, FIELD, largest_first=True))
    log_action(logger, "review_shown", project_id=project_id, tasks=len(proposals))


def remove_review(project_id: int, *, client: StudioClient, pushes: PushRepository) -> int:
    """Remove tab, predictions and the tasks' column of a review; return how many tasks it was on.

    Raises:
        StudioError: Label Studio does not answer.
    """
    for view in client.views(project_id):
        if (view.get("data") or {}).get("title") == REVIEW_TITLE:
            client.delete_view(int(view["id"]))
    pushed = pushes.of(project_id, REVIEW_TAG)
    for task_id, prediction_id in pushed.items():
        numbers = [prediction_id] if prediction_id else client.prediction_ids(task_id, REVIEW_TAG)
        for number in numbers:
            client.delete_prediction(number)
        task = client.task(task_id, project_id=project_id)
        if task is not None and FIELD in task.data:
            data = {name: value for name, value in task.data.items() if name != FIELD}
            client.update_task(task_id, data=data)
    pushes.forget(project_id, list(pushed), model_version=REVIEW_TAG)
    return len(pushed)
