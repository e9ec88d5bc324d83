"""Predictions in Label Studio, and which of many tasks have predictions, labels or drafts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskloop_studio.labelstudio.data_manager import stand_params
from maskloop_studio.labelstudio.models import Json
from maskloop_studio.labelstudio.transport import StudioTransport

__all__ = ["PredictionCalls", "TaskStand"]

CUT_CHARS = 500  # Label Studio cuts what it lists in one column


@dataclass(frozen=True, kw_only=True)
class TaskStand:
    """The state of a task, as far as a prediction for it depends on it."""

    id: int
    data: Mapping[str, Any]  # empty where it was not requested
    annotated: bool  # an annotation was submitted or skipped
    has_draft: bool  # an annotation was begun, and is not submitted yet
    prediction_count: int
    versions: frozenset[str] | None  # of its predictions; None: too many to be listed

    def has(self, model_version: str) -> bool | None:
        """Return whether the task has a prediction of a version; None where that is not known."""
        return None if self.versions is None else model_version in self.versions


class PredictionCalls(StudioTransport):
    """The calls about predictions; see StudioClient."""

    def create_prediction(
        self,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        *,
        score: float | None = None,
        cluster: int | None = None,
        model_version: str,
    ) -> int:
        """Store a prediction and return its id."""
        body = {
            "task": task_id,
            "result": list(result),
            "score": score,
            "cluster": cluster,
            "model_version": model_version,
        }
        return self._json("POST", "api/predictions/", body, read=lambda raw: int(raw["id"]))

    def prediction(self, prediction_id: int) -> Json | None:
        """Return a prediction as Label Studio gives it, or None where there is none."""
        return self._find(f"api/predictions/{prediction_id}/", read=dict)

    def predictions_of(self, task_id: int) -> list[Json]:
        """Return a task's stored predictions as Label Studio gives them."""
        return self._json("GET", "api/predictions/", params={"task": task_id}, read=list)

    def prediction_ids(self, task_id: int, model_version: str) -> list[int]:
        """Return the ids of a task's predictions of one version, oldest first."""
        found = self.predictions_of(task_id)
        return sorted(int(raw["id"]) for raw in found if raw.get("model_version") == model_version)

    def update_prediction(self, prediction_id: int, **fields: Any) -> bool:
        """Change a prediction's fields, e.g. `score` or `cluster`; False where it is gone."""
        return self._request(
            "PATCH",
            f"api/predictions/{prediction_id}/",
            body=fields,
            missing_ok=True,
            read=lambda response: response.status_code != 404,
        )

    def delete_prediction(self, prediction_id: int) -> None:
        """Remove a prediction; one that is gone already is no error.

        An annotation made from it keeps its regions and loses its `parent_prediction`. One that is not
        submitted yet cannot be submitted any more: Label Studio refuses a `parent_prediction` that is gone.
        """
        self._request("DELETE", f"api/predictions/{prediction_id}/", missing_ok=True)

    def task_stands(
        self, project_id: int, task_ids: Sequence[int], *, with_data: bool = False
    ) -> dict[int, TaskStand]:
        """Return the states of tasks, up to 200 a request; tasks that are gone are left out."""
        if not task_ids:
            return {}
        found: dict[int, TaskStand] = {}
        left = sorted(task_ids)
        while left:
            params = stand_params(project_id, task_ids=left, with_data=with_data)
            stands, total = self._json("GET", "api/tasks", params=params, read=_to_stands)
            found.update((stand.id, stand) for stand in stands)
            if len(stands) >= total or not stands:
                break
            left = [task_id for task_id in left if task_id > stands[-1].id]  # it caps a page's size
        return found

    def unlabelled_stands(
        self, project_id: int, *, prediction_score: float | None = None
    ) -> Iterator[list[TaskStand]]:
        """Yield a project's tasks without annotations page by page, in the order of their ids.

        Args:
            project_id: Label Studio's number.
            prediction_score: only tasks whose predictions have this mean score.
        """
        last_id = 0
        while True:
            params = stand_params(project_id, after_id=last_id, prediction_score=prediction_score)
            stands, total = self._json("GET", "api/tasks", params=params, read=_to_stands)
            if stands:
                yield stands
            if len(stands) >= total or not stands:
                return
            last_id = stands[-1].id


def _to_stands(answer: Json) -> tuple[list[TaskStand], int]:
    return [_to_stand(raw) for raw in answer["tasks"]], int(answer["total"])


def _to_stand(raw: Json) -> TaskStand:
    listed = str(raw.get("predictions_model_versions") or "")
    versions = frozenset(name.strip() for name in listed.split(",") if name.strip())
    count = int(raw.get("total_predictions") or 0)
    annotations = sum(int(raw.get(name) or 0) for name in ("total_annotations", "cancelled_annotations"))
    # A Label Studio that lists none although it counts some leaves it unknown as well.
    known = len(listed) < CUT_CHARS and (bool(versions) or not count)
    return TaskStand(
        id=int(raw["id"]),
        data=raw.get("data") or {},
        annotated=bool(raw.get("is_labeled")) or annotations > 0,
        has_draft=bool(raw.get("draft_exists")),
        prediction_count=count,
        versions=versions if known else None,
    )
