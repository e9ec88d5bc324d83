"""The Data Manager's tabs ("views"), and what tells whether its order is followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from maskloop_studio.labelstudio.data_manager import TIME_FORM, UNLABELLED, data_manager_query
from maskloop_studio.labelstudio.models import Json
from maskloop_studio.labelstudio.transport import StudioTransport

__all__ = ["BY_SCORE", "HIDDEN_COLUMNS", "ViewCalls", "score_filter"]

BY_SCORE = "tasks:predictions_score"  # the mean over the stored predictions of `project.model_version`
# As Label Studio hides them at first, but for the score; columns that are hidden in both are not worked out.
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
    """Return a filter on the score of the version that is shown: `less` than a value, `empty` or not."""
    return {"filter": f"filter:{BY_SCORE}", "operator": operator, "type": "Number", "value": value}


class ViewCalls(StudioTransport):
    """What Label Studio's API does with the Data Manager's tabs; see StudioClient."""

    def views(self, project_id: int) -> list[Json]:
        """Return the tabs of a project's Data Manager as Label Studio says them, the leftmost first."""
        return list(self._json("GET", "api/dm/views/", params={"project": project_id}))

    def create_view(self, project_id: int, data: Mapping[str, Any]) -> int:
        """Make a tab (`title`, `ordering`, `filters` ...) and return its id."""
        return int(self._json("POST", "api/dm/views/", {"project": project_id, "data": dict(data)})["id"])

    def update_view(self, project_id: int, view_id: int, data: Mapping[str, Any]) -> None:
        """Set all that a tab is made of."""
        self._json("PATCH", f"api/dm/views/{view_id}/", {"project": project_id, "data": dict(data)})

    def delete_view(self, view_id: int) -> None:
        """Remove a tab."""
        self._request("DELETE", f"api/dm/views/{view_id}/")

    def count_unlabelled(self, project_id: int, *filters: Json) -> int:
        """Return how many tasks without labels pass these filters."""
        return int(self._rows(project_id, [UNLABELLED, *filters], "tasks:id", "id", size=1)["total"])

    def unlabelled_id_at(self, project_id: int, position: int) -> int:
        """Return the number of the task without labels at this place, from 0, by their numbers."""
        answer = self._rows(project_id, [UNLABELLED], "tasks:id", "id", size=1, page=position + 1)
        return int(answer["tasks"][0]["id"])

    def latest_scores(self, project_id: int, count: int, *, since: datetime | None = None) -> list[float]:
        """Return the prediction scores of the tasks that got labels last, the last first.

        Args:
            project_id: Label Studio's number.
            count: how many tasks are looked at; those without a score are left out.
            since: only of tasks that got labels after this moment.
        """
        filters = [LABELLED]
        if since is not None:
            text = since.astimezone(UTC).strftime(TIME_FORM)
            filters.append(
                {"filter": LABELLED["filter"], "operator": "greater", "type": "Datetime", "value": text}
            )
        # "all": the column that orders would be left out of the others otherwise.
        answer = self._rows(
            project_id, filters, "-tasks:completed_at", "id,predictions_score", size=count, fields="all"
        )
        scores = (row.get("predictions_score") for row in answer["tasks"])
        return [float(score) for score in scores if score is not None]

    def prediction_counts(self, project_id: int) -> dict[str, int]:
        """Return model version -> how many predictions of it are stored."""
        answer = self._json("GET", f"api/projects/{project_id}/model-versions/")
        return {str(version): int(count) for version, count in answer.items()}

    def studio_version(self) -> str:
        """Return which Label Studio this is, e.g. 1.23.2."""
        return str(self._json("GET", "api/version").get("release") or "")

    def _rows(
        self,
        project_id: int,
        filters: Sequence[Json],
        ordering: str,
        include: str,
        *,
        size: int,
        page: int = 1,
        fields: str = "task_only",
    ) -> Json:
        params = {
            "project": project_id,
            "fields": fields,
            "include": include,
            "page": page,
            "page_size": size,
            "query": data_manager_query({"conjunction": "and", "items": list(filters)}, ordering),
        }
        return dict(self._json("GET", "api/tasks", params=params))
