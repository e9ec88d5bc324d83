"""The Data Manager's tabs ("views"), and figures that show whether annotators follow their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from maskloop_studio.labelstudio.data_manager import TIME_FORM, UNLABELLED, data_manager_query
from maskloop_studio.labelstudio.models import Json
from maskloop_studio.labelstudio.transport import StudioTransport

Answer = TypeVar("Answer")

__all__ = ["BY_SCORE", "HIDDEN_COLUMNS", "ViewCalls", "number_column_tab", "score_filter"]

BY_SCORE = "tasks:predictions_score"  # the mean over the stored predictions of `project.model_version`
# The columns that Label Studio hides at first, without the score; those hidden in both are not computed.
RARE_COLUMNS = (
    "inner_id",
    "annotations_results",
    "annotations_ids",
    "predictions_model_versions",
    "predictions_results",
    "file_upload",
    "storage_filename",
    "created_at",
    "updated_at",
    "updated_by",
    "avg_lead_time",
    "draft_exists",
)
OFTEN_COLUMNS = ("id", "completed_at", "cancelled_annotations", "total_predictions", "annotators")
HIDDEN_COLUMNS = {
    "explore": [f"tasks:{name}" for name in RARE_COLUMNS],
    "labeling": [f"tasks:{name}" for name in (*RARE_COLUMNS, *OFTEN_COLUMNS, "predictions_score")],
}
LABELLED: Json = {**UNLABELLED, "value": False}


def score_filter(operator: str, value: float | bool) -> Json:
    """Return a filter on the score of the version that is shown: `less` than a value, or `empty` (a bool)."""
    return {"filter": f"filter:{BY_SCORE}", "operator": operator, "type": "Number", "value": value}


def number_column_tab(title: str, field: str, *, largest_first: bool) -> Json:
    """Return the content of a tab of the tasks that have a number in their data, in its order.

    Args:
        title: of the tab.
        field: name in the tasks' data.
        largest_first: or the smallest.
    """
    column = f"tasks:data.{field}"
    return {
        "title": title,
        "ordering": [f"-{column}" if largest_first else column],
        "columnsDisplayType": {column: "Number"},
        "filters": {"conjunction": "and", "items": [_has_number(field)]},
    }


def _has_number(field: str) -> Json:
    return {
        "filter": f"filter:tasks:data.{field}",
        "operator": "greater_or_equal",
        "type": "Number",
        "value": 0,
    }


@dataclass(frozen=True, kw_only=True)
class RowQuery:
    """Which rows of the Data Manager are read, and what of them."""

    filters: tuple[Json, ...]  # all of them have to hold
    ordering: str  # a column, with a minus for the largest first
    columns: str  # separated by commas
    size: int  # rows a page
    page: int = 1
    fields: str = "task_only"  # or "all"


class ViewCalls(StudioTransport):
    """The calls about the Data Manager's tabs; see StudioClient."""

    def views(self, project_id: int) -> list[Json]:
        """Return the tabs of a project's Data Manager as Label Studio gives them, the leftmost first."""
        return self._json("GET", "api/dm/views/", params={"project": project_id}, read=list)

    def create_view(self, project_id: int, data: Mapping[str, Any]) -> int:
        """Make a tab (`title`, `ordering`, `filters` ...) and return its id."""
        body = {"project": project_id, "data": dict(data)}
        return self._json("POST", "api/dm/views/", body, read=lambda raw: int(raw["id"]))

    def update_view(self, project_id: int, view_id: int, data: Mapping[str, Any]) -> None:
        """Replace the whole content of a tab."""
        self._json("PATCH", f"api/dm/views/{view_id}/", {"project": project_id, "data": dict(data)})

    def delete_view(self, view_id: int) -> None:
        """Remove a tab."""
        self._request("DELETE", f"api/dm/views/{view_id}/")

    def count_unlabelled(self, project_id: int, *filters: Json) -> int:
        """Return how many tasks without labels pass these filters."""
        query = RowQuery(filters=(UNLABELLED, *filters), ordering="tasks:id", columns="id", size=1)
        return self._rows(project_id, query, read=lambda answer: int(answer["total"]))

    def ids_with_number(self, project_id: int, field: str, *, size: int = 500) -> list[int]:
        """Return the ids of at most `size` tasks that have a number from 0 on in their data."""
        query = RowQuery(filters=(_has_number(field),), ordering="tasks:id", columns="id", size=size)
        return self._rows(project_id, query, read=lambda answer: [int(row["id"]) for row in answer["tasks"]])

    def unlabelled_id_at(self, project_id: int, position: int) -> int:
        """Return the id of the task at this place, from 0, among those without labels, ordered by id."""
        query = RowQuery(filters=(UNLABELLED,), ordering="tasks:id", columns="id", size=1, page=position + 1)
        return self._rows(project_id, query, read=lambda answer: int(answer["tasks"][0]["id"]))

    def latest_scores(self, project_id: int, count: int, *, since: datetime | None = None) -> list[float]:
        """Return the prediction scores of the tasks that were labelled last, the latest first.

        Args:
            project_id: Label Studio's number.
            count: how many tasks are looked at; those without a score are left out.
            since: only tasks that were labelled after this moment.
        """
        filters = [LABELLED]
        if since is not None:
            text = since.astimezone(UTC).strftime(TIME_FORM)
            filters.append(
                {"filter": LABELLED["filter"], "operator": "greater", "type": "Datetime", "value": text}
            )
        query = RowQuery(
            filters=tuple(filters),
            ordering="-tasks:completed_at",
            columns="id,predictions_score",
            size=count,
            fields="all",  # Label Studio leaves the column that orders out of the others
        )
        return self._rows(project_id, query, read=_to_scores)

    def prediction_counts(self, project_id: int) -> dict[str, int]:
        """Return model version -> how many predictions of it are stored."""
        return self._json(
            "GET",
            f"api/projects/{project_id}/model-versions/",
            read=lambda answer: {str(version): int(count) for version, count in answer.items()},
        )

    def studio_version(self) -> str:
        """Return which Label Studio this is, e.g. 1.23.2."""
        return self._json("GET", "api/version", read=lambda answer: str(answer.get("release") or ""))

    def _rows(self, project_id: int, query: RowQuery, *, read: Callable[[Any], Answer]) -> Answer:
        filters = {"conjunction": "and", "items": list(query.filters)}
        params = {
            "project": project_id,
            "fields": query.fields,
            "include": query.columns,
            "page": query.page,
            "page_size": query.size,
            "query": data_manager_query(filters, query.ordering),
        }
        return self._json("GET", "api/tasks", params=params, read=read)


def _to_scores(answer: Json) -> list[float]:
    scores = (row.get("predictions_score") for row in answer["tasks"])
    return [float(score) for score in scores if score is not None]
