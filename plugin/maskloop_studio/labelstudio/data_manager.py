"""Queries of Label Studio's Data Manager, and how their answers are read page by page.

Pages go by a value of their rows, never by number: rows that change meanwhile do not shift the rest. The Data
Manager orders by one column only, takes times with microseconds, and compares them in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from maskloop_studio.labelstudio.models import Json, TaskPage

__all__ = [
    "BY_ID",
    "PAGE_SIZE",
    "TASK_FIELDS",
    "PageReader",
    "data_manager_query",
    "one_task",
    "pages_by_change",
    "pages_by_id",
    "stamp_params",
    "stand_params",
    "task_params",
]

PAGE_SIZE = 200
TASK_FIELDS = "id,project,data,is_labeled,total_predictions,updated_at"
# With `expand` Label Studio sends the nested fields that are listed, and no regions.
STAMP_FIELDS = "id,updated_at,annotations.id,annotations.updated_at,annotations.was_cancelled"
STAND_FIELDS = (
    "id,is_labeled,total_annotations,cancelled_annotations,total_predictions,"
    "predictions_model_versions,draft_exists"
)
COSTLY_COLUMNS = [
    f"tasks:{name}"
    for name in (
        "annotations_results",
        "predictions_results",
        "predictions_score",
        "annotators",
        "annotations_ids",
        "avg_lead_time",
        "completed_at",
        "file_upload",
        "storage_filename",
        "updated_by",
        "state",
    )
]
UNLABELLED: Json = {
    "filter": "filter:tasks:completed_at",
    "operator": "empty",
    "type": "Datetime",
    "value": True,
}
TIME_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"
BY_ID, BY_CHANGE = "tasks:id", "tasks:updated_at"

PageReader: TypeAlias = Callable[[Json, str], TaskPage]  # filters, ordering -> page


def task_params(
    project_id: int,
    *,
    after_id: int = 0,
    task_id: int | None = None,
    only_unlabelled: bool = False,
    page_size: int | None = None,
) -> Json:
    """Return the parameters that list tasks without their annotations, in the order of their ids."""
    items = [_number("id", "greater", after_id) if task_id is None else _number("id", "equal", task_id)]
    if only_unlabelled:
        items.append(UNLABELLED)
    return {
        "project": project_id,
        "fields": "task_only",
        "include": TASK_FIELDS,
        "page_size": page_size or PAGE_SIZE,
        "query": data_manager_query({"conjunction": "and", "items": items}, BY_ID),
    }


def stamp_params(project_id: int, filters: Json, ordering: str) -> Json:
    """Return the parameters that list tasks with their annotations' stamps."""
    return {
        "project": project_id,
        "fields": "all",
        "include": STAMP_FIELDS,
        "expand": "annotations",
        "page_size": PAGE_SIZE,
        "query": data_manager_query(filters, ordering),
    }


def stand_params(
    project_id: int,
    *,
    after_id: int = 0,
    task_ids: Sequence[int] | None = None,
    with_data: bool = False,
    prediction_score: float | None = None,
) -> Json:
    """Return the parameters that read the states of tasks: of these, or of all without labels."""
    if task_ids is None:
        items = [_number("id", "greater", after_id), UNLABELLED]
        if prediction_score is not None:
            items.append(_number("predictions_score", "equal", prediction_score))
    else:
        ids = list(task_ids)
        items = [{"filter": "filter:tasks:id", "operator": "in_list", "type": "List", "value": ids}]
    return {
        "project": project_id,
        "fields": "task_only",
        "include": f"{STAND_FIELDS},data" if with_data else STAND_FIELDS,
        "page_size": PAGE_SIZE,
        "query": data_manager_query(
            {"conjunction": "and", "items": items},
            BY_ID,
            # Label Studio computes every column that is not hidden.
            hiddenColumns={"explore": COSTLY_COLUMNS, "labeling": COSTLY_COLUMNS},
        ),
    }


def one_task(task_id: int) -> Json:
    """Return the filter for one task."""
    return {"conjunction": "and", "items": [_number("id", "equal", task_id)]}


def pages_by_id(read: PageReader) -> Iterator[TaskPage]:
    """Yield all tasks, in the order of their ids."""
    yield from _pages_after(read, [])


def pages_by_change(read: PageReader, since: datetime | None) -> Iterator[TaskPage]:
    """Yield the tasks with annotations that changed at a moment or later, oldest change first.

    Tasks without annotations are left out: every stored prediction changes its task too. A task that changes
    meanwhile, or lies on the border of two pages, may come twice.
    """
    cursor = since
    while True:
        page = read(_annotated(cursor), BY_CHANGE)
        yield page
        if page.is_last or not page.tasks:
            return
        newest = page.tasks[-1].updated_at
        if newest == cursor:
            # More tasks of one moment than a page holds: a bulk action gives all its tasks the same time.
            yield from _pages_after(read, [_moment("equal", newest)])
            cursor = newest + timedelta(microseconds=1)
        else:
            cursor = newest


def _pages_after(read: PageReader, items: Sequence[Json]) -> Iterator[TaskPage]:
    last_id = 0
    while True:
        filters = {"conjunction": "and", "items": [*items, _number("id", "greater", last_id)]}
        page = read(filters, BY_ID)
        yield page
        if page.is_last or not page.tasks:
            return
        last_id = page.tasks[-1].id


def _annotated(since: datetime | None) -> Json:
    counters = [_number(name, "greater", 0) for name in ("total_annotations", "cancelled_annotations")]
    if since is None:
        return {"conjunction": "or", "items": counters}
    lines = [_moment("greater_or_equal", since) | {"child_filter": counter} for counter in counters]
    return {"conjunction": "or", "items": lines}


def _number(field: str, operator: str, value: float) -> Json:
    return {"filter": f"filter:tasks:{field}", "operator": operator, "type": "Number", "value": value}


def _moment(operator: str, at: datetime) -> Json:
    text = at.astimezone(UTC).strftime(TIME_FORM)
    return {"filter": "filter:tasks:updated_at", "operator": operator, "type": "Datetime", "value": text}


def data_manager_query(filters: Json, ordering: str, **more: Json) -> str:
    """Return the Data Manager's parameter `query`.

    Args:
        filters: a conjunction of items.
        ordering: the column, with a minus for the largest first.
        more: other settings of a tab.
    """
    return json.dumps({"filters": filters, "ordering": [ordering], **more}, separators=(",", ":"))
