"""Answers of Label Studio's API as values: projects, tasks, annotation stamps, backends, webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from maskloop.errors import StudioCause, StudioError

__all__ = [
    "AnnotationStamp",
    "Json",
    "Presence",
    "ProjectState",
    "StampedTask",
    "StudioBackend",
    "StudioProject",
    "StudioTask",
    "StudioUser",
    "StudioWebhook",
    "TaskPage",
    "to_backend",
    "to_page",
    "to_project",
    "to_task",
    "to_user",
    "to_webhook",
]

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StudioProject:
    """What the loop uses of a project."""

    id: int
    title: str
    label_config: str
    model_version: str  # whose predictions are shown; empty when none were chosen
    sampling: str
    task_count: int
    annotation_count: int  # submitted ones, counted at the request
    skipped_count: int
    raw: Mapping[str, Any] = field(repr=False)  # the whole answer


class Presence(StrEnum):
    """Whether Label Studio has a project."""

    PRESENT = "present"
    MISSING = "missing"  # Label Studio itself answers 404, and accepts the same token elsewhere
    UNKNOWN = "unknown"  # no answer, a refusal, or a 404 of something in front of Label Studio


@dataclass(frozen=True, kw_only=True)
class ProjectState:
    """What one look at a project found. One MISSING alone is no proof that the project is gone for good."""

    presence: Presence
    project: StudioProject | None = None  # where it is present
    error: StudioError | None = None  # why it is unknown


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
    """Some of the tasks that a query matches."""

    tasks: tuple[StampedTask, ...]
    total: int  # how many tasks the query matches, those of this page included
    at: datetime | None  # Label Studio's own clock, whole seconds

    @property
    def is_last(self) -> bool:
        """Whether no page follows. A short page is no sign of it: Label Studio may cap a page's size."""
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
    is_interactive: bool = False  # called while an annotator draws with a smart tool


@dataclass(frozen=True, kw_only=True)
class StudioWebhook:
    """A webhook, with what Label Studio counts of its failures."""

    id: int
    url: str
    project_id: int | None  # None: of the organization
    is_active: bool  # newer versions switch a webhook off after 50 failures in a row
    consecutive_failures: int | None  # None: this Label Studio does not count them
    headers: Mapping[str, str]
    actions: tuple[str, ...]  # used only where it is not for all
    send_payload: bool
    send_for_all_actions: bool


@dataclass(frozen=True, kw_only=True)
class StudioUser:
    """An account."""

    id: int
    email: str
    name: str = ""  # first and last, as the account's owner wrote them; may be empty


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
        is_interactive=bool(raw.get("is_interactive")),
    )


def to_user(raw: Json) -> StudioUser:
    """Return an account from the API's answer."""
    parts = (str(raw.get(part) or "").strip() for part in ("first_name", "last_name"))
    return StudioUser(
        id=int(raw["id"]), email=str(raw["email"]), name=" ".join(part for part in parts if part)
    )


def to_webhook(raw: Json) -> StudioWebhook:
    """Return a webhook from the API's answer; fields that older versions do not have are understood."""
    failures, project = raw.get("consecutive_failures"), raw.get("project")
    return StudioWebhook(
        id=int(raw["id"]),
        url=str(raw["url"]),
        project_id=None if project is None else int(project["id"] if isinstance(project, dict) else project),
        is_active=bool(raw.get("is_active", True)),
        consecutive_failures=None if failures is None else int(failures),
        headers={str(name): str(value) for name, value in (raw.get("headers") or {}).items()},
        actions=tuple(str(action) for action in raw.get("actions") or ()),
        send_payload=bool(raw.get("send_payload", True)),
        send_for_all_actions=bool(raw.get("send_for_all_actions", True)),
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
            cause=StudioCause.ANSWER,
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
