"""What Label Studio's API says, as values: projects, tasks, annotations' stamps, backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from maskloop.errors import StudioError

__all__ = [
    "AnnotationStamp",
    "Json",
    "StampedTask",
    "StudioBackend",
    "StudioProject",
    "StudioTask",
    "StudioUser",
    "TaskPage",
    "to_backend",
    "to_page",
    "to_project",
    "to_task",
]

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StudioProject:
    """What the loop needs to know of a project."""

    id: int
    title: str
    label_config: str
    model_version: str  # whose predictions are shown; empty when none were chosen
    sampling: str
    task_count: int
    annotation_count: int  # submitted ones, counted when asked
    skipped_count: int
    raw: Mapping[str, Any] = field(repr=False)  # the whole answer


@dataclass(frozen=True, kw_only=True)
class StudioTask:
    """A task without its annotations and predictions."""

    id: int
    project_id: int
    data: Mapping[str, Any]
    is_labeled: bool
    total_predictions: int
    updated_at: str  # ISO 8601


@dataclass(frozen=True, kw_only=True)
class AnnotationStamp:
    """Which annotation, and which state of it."""

    id: int
    updated_at: datetime
    skipped: bool


@dataclass(frozen=True, kw_only=True)
class StampedTask:
    """A task as the reconciler sees it."""

    id: int
    updated_at: datetime  # moves when an annotation is made, edited, skipped or deleted
    annotations: tuple[AnnotationStamp, ...]


@dataclass(frozen=True, kw_only=True)
class TaskPage:
    """Some of the tasks that were asked for."""

    tasks: tuple[StampedTask, ...]
    total: int  # how many the question has, this page's among them
    at: datetime | None  # Label Studio's own clock, whole seconds

    @property
    def is_last(self) -> bool:
        """Whether nothing follows. Label Studio may cap a page's size, so that says nothing."""
        return self.total <= len(self.tasks)


@dataclass(frozen=True, kw_only=True)
class StudioBackend:
    """A labeling backend as Label Studio knows it."""

    id: int
    url: str
    title: str
    model_version: str
    state: str  # CO connected, DI disconnected, ER error, TR training, PR predicting
    auth_method: str  # NONE or BASIC_AUTH


@dataclass(frozen=True, kw_only=True)
class StudioUser:
    """Whose token is used."""

    id: int
    email: str


def to_project(raw: Json) -> StudioProject:
    """Return a project from the API's answer."""
    return StudioProject(
        id=int(raw["id"]),
        title=raw.get("title") or "",
        label_config=raw.get("label_config") or "",
        model_version=raw.get("model_version") or "",
        sampling=raw.get("sampling") or "",
        task_count=int(raw.get("task_number") or 0),
        annotation_count=int(raw.get("total_annotations_number") or 0),
        skipped_count=int(raw.get("skipped_annotations_number") or 0),
        raw=raw,
    )


def to_task(raw: Json) -> StudioTask:
    """Return a task from the API's answer."""
    return StudioTask(
        id=int(raw["id"]),
        project_id=int(raw["project"]),
        data=raw["data"],
        is_labeled=bool(raw["is_labeled"]),
        total_predictions=int(raw.get("total_predictions") or 0),
        updated_at=str(raw["updated_at"]),
    )


def to_backend(raw: Json) -> StudioBackend:
    """Return a labeling backend from the API's answer."""
    return StudioBackend(
        id=int(raw["id"]),
        url=raw["url"],
        title=raw.get("title") or "",
        model_version=raw.get("model_version") or "",
        state=raw.get("state") or "",
        auth_method=raw.get("auth_method") or "NONE",
    )


def to_page(raw: Json, at: datetime | None) -> TaskPage:
    """Return a page of tasks with their annotations' stamps.

    Raises:
        StudioError: this Label Studio does not list annotations with their times.
    """
    try:
        tasks = tuple(_stamped(task) for task in raw["tasks"])
    except (KeyError, TypeError) as exc:
        raise StudioError(
            "Label Studio's list of tasks",
            expected="annotations with id, updated_at and was_cancelled",
            got=f"none, or without {exc}",
            remedy="update Label Studio to 1.23 or newer",
        ) from exc
    return TaskPage(tasks=tasks, total=int(raw["total"]), at=at)


def _stamped(raw: Json) -> StampedTask:
    return StampedTask(
        id=int(raw["id"]),
        updated_at=_time(raw["updated_at"]),
        annotations=tuple(
            AnnotationStamp(
                id=int(one["id"]), updated_at=_time(one["updated_at"]), skipped=bool(one["was_cancelled"])
            )
            for one in raw["annotations"]
        ),
    )


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
