"""The wire protocol between Label Studio and a labeling backend, as typed models.

Only the fields in use are declared; all others are ignored. Newer versions of Label Studio send a project as
an object in some places, and events without their annotation: both are understood.
Source: label_studio/ml/api_connector.py, ml/models.py and webhooks/ of Label Studio.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

__all__ = [
    "DeleteRequest",
    "DuplicateRequest",
    "HealthResponse",
    "JobStatusRequest",
    "JobStatusResponse",
    "PredictRequest",
    "PredictResponse",
    "PredictTask",
    "RefusedPrediction",
    "ServedHealth",
    "SetupRequest",
    "SetupResponse",
    "TaskPrediction",
    "ValidateRequest",
    "VersionsResponse",
    "WebhookEvent",
    "WebhookResponse",
    "project_number",
]


def _id_of_object(value: object) -> object:
    return value["id"] if isinstance(value, dict) and "id" in value else value


def _object_of_id(value: object) -> object:
    if isinstance(value, str) and (number := project_number(value)) is not None:
        return {"id": number}
    return {"id": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _none_without_id(value: object) -> object:
    return None if isinstance(value, dict) and value.get("id") is None else value


ProjectUid = Annotated[
    Annotated[str, Field(max_length=100)] | int,
    Field(description='"<id>.<created-timestamp>", a number, or an object with `id`'),
    BeforeValidator(_id_of_object),
]
# Strict: Label Studio never sends "7", 7.0 or true for an id; no database keeps more than 64 bits.
Number = Annotated[int, Strict(), Field(ge=1, lt=2**63)]
# Compared as text only; the pattern keeps other content out.
Timestamp = Annotated[
    str, Field(max_length=40, pattern=r"^\d{4}-\d\d-\d\d[T ][0-9:.]{5,20}(Z|[+-]\d\d:?\d\d)?$")
]
MAX_TASKS = 10_000  # Label Studio sends a hundred or so at once
MAX_CONFIG_CHARS = 1_000_000


class _Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ServedHealth(BaseModel):
    """State of the model of the settings, which answers for projects without a model of their own."""

    state: Literal["loading", "ready", "failed"]
    version: str


class HealthResponse(BaseModel):
    """GET /health: Label Studio reads `status` alone, and takes other values than UP as disconnected."""

    model_config = ConfigDict(protected_namespaces=())
    status: Literal["UP"] = "UP"
    model_class: str = "maskloop"
    model: ServedHealth


class SetupRequest(_Incoming):
    """POST /setup: the project's label config; the answer is the version."""

    project: ProjectUid | None = None
    label_config: str = Field("", alias="schema", max_length=MAX_CONFIG_CHARS)
    extra_params: Any = None


class SetupResponse(BaseModel):
    """The version becomes the backend's version."""

    model_config = ConfigDict(protected_namespaces=())
    model_version: str


class PredictTask(_Incoming):
    """One task to be predicted."""

    id: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class PredictParams(_Incoming):
    """`context` holds the prompt of an interactive call."""

    context: dict[str, Any] | None = None


class PredictRequest(_Incoming):
    """POST /predict: all selected tasks at once."""

    tasks: list[PredictTask] = Field(max_length=MAX_TASKS)
    project: ProjectUid | None = None
    label_config: str = Field("", max_length=MAX_CONFIG_CHARS)
    params: PredictParams = Field(default_factory=PredictParams)


class TaskPrediction(BaseModel):
    """One task's regions; `score` is the model's confidence in the whole image, from 0 to 1."""

    model_config = ConfigDict(protected_namespaces=())
    result: list[dict[str, Any]]
    score: float
    model_version: str


class RefusedPrediction(TaskPrediction):
    """An interactive request that cannot be answered: no regions, and why; Label Studio stores none of it."""

    error: str


class PredictResponse(BaseModel):
    """One entry for each task, in order.

    For an empty list in place of an entry Label Studio stores nothing, and requests the task again later.
    """

    model_config = ConfigDict(protected_namespaces=())
    results: list[RefusedPrediction | TaskPrediction | list[TaskPrediction]]
    model_version: str
    note: str | None = None  # why predictions are empty; Label Studio ignores it


class _Numbered(_Incoming):
    id: Number
    updated_at: Timestamp | None = None


_ManyNumbered = Annotated[
    list[Annotated[_Numbered, BeforeValidator(_object_of_id)]], Field(max_length=MAX_TASKS)
]


class WebhookEvent(_Incoming):
    """POST /webhook: what happened, to which annotations, tasks and project."""

    action: str = Field(max_length=100)
    project: Annotated[_Numbered | None, BeforeValidator(_object_of_id)] = None
    annotation: Annotated[_Numbered | _ManyNumbered | None, BeforeValidator(_none_without_id)] = None
    annotations: _ManyNumbered | None = None
    task: Annotated[_Numbered | _ManyNumbered | None, BeforeValidator(_none_without_id)] = None
    tasks: _ManyNumbered | None = None


class WebhookResponse(BaseModel):
    """`job` is polled through /job_status when the event started a training."""

    status: str
    job: str | None = None


class VersionsResponse(BaseModel):
    """GET /versions: newest first."""

    versions: list[str]


class ValidateRequest(_Incoming):
    """POST /validate: a label config to be checked."""

    config: str = Field(max_length=MAX_CONFIG_CHARS)


class DeleteRequest(_Incoming):
    """POST /delete: the backend was removed from the project."""

    project: ProjectUid | None = None


class DuplicateRequest(_Incoming):
    """POST /duplicate_model: a project was copied."""

    project_src: ProjectUid
    project_dst: ProjectUid


class JobStatusRequest(_Incoming):
    """POST /job_status: the state of the training that START_TRAINING began."""

    job: str = Field(max_length=100)


class JobStatusResponse(BaseModel):
    """`job_status` is queued, started, finished or failed."""

    job_status: str
    created_at: str | None = None
    error: str | None = None


def project_number(uid: object) -> int | None:
    """Return the number of a project, or None where there is none.

    Args:
        uid: `"<id>.<created-timestamp>"`, a number, or an object with `id`.
    """
    uid = _id_of_object(uid)
    head = str(uid).split(".", 1)[0] if isinstance(uid, str | int) and not isinstance(uid, bool) else ""
    return int(head) if head.isascii() and head.isdecimal() and len(head) < 19 else None
