"""The wire protocol between Label Studio and a labeling backend, as typed models.

Only what is used is named; everything else that Label Studio sends is let through unread.
Source: label_studio/ml/api_connector.py and label_studio/ml/models.py of Label Studio 1.23.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict

__all__ = [
    "DeleteRequest",
    "DuplicateRequest",
    "HealthResponse",
    "JobStatusRequest",
    "JobStatusResponse",
    "PredictRequest",
    "PredictResponse",
    "PredictTask",
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

ProjectUid = Annotated[
    Annotated[str, Field(max_length=100)] | int, Field(description='"<id>.<created-timestamp>"')
]
# Strict: "7", 7.0 and true are no numbers of Label Studio's; beyond 64 bits no database could keep them.
Number = Annotated[int, Strict(), Field(ge=1, lt=2**63)]
# A text, since only whether it is the same matters; of a known form, so that nothing else gets in.
Timestamp = Annotated[
    str, Field(max_length=40, pattern=r"^\d{4}-\d\d-\d\d[T ][0-9:.]{5,20}(Z|[+-]\d\d:?\d\d)?$")
]
MAX_TASKS = 100_000
MAX_CONFIG_CHARS = 1_000_000


class _Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ServedHealth(BaseModel):
    """How the model of the settings stands, which answers for projects without one of their own."""

    state: Literal["loading", "ready", "failed"]
    version: str


class HealthResponse(BaseModel):
    """GET /health: Label Studio reads the status alone, and takes the backend for gone unless it is UP."""

    model_config = ConfigDict(protected_namespaces=())
    status: Literal["UP"] = "UP"
    model_class: str = "maskloop"
    model: ServedHealth


class SetupRequest(_Incoming):
    """POST /setup: Label Studio tells the project's label config and asks for the version."""

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
    """One task's regions; `score` is how sure the model is of the whole image."""

    model_config = ConfigDict(protected_namespaces=())
    result: list[dict[str, Any]]
    score: float
    model_version: str


class PredictResponse(BaseModel):
    """One entry a task, in order.

    An empty list in place of an entry makes Label Studio store nothing, so it asks again the next time.
    """

    model_config = ConfigDict(protected_namespaces=())
    results: list[TaskPrediction | list[TaskPrediction]]
    model_version: str


class _Numbered(_Incoming):
    id: Number
    updated_at: Timestamp | None = None


_ManyNumbered = Annotated[list[_Numbered], Field(max_length=MAX_TASKS)]


class WebhookEvent(_Incoming):
    """POST /webhook: what happened, to which annotations, tasks and project."""

    action: str = Field(max_length=100)
    project: _Numbered | None = None
    annotation: _Numbered | _ManyNumbered | None = None
    annotations: _ManyNumbered | None = None
    task: _Numbered | _ManyNumbered | None = None
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
    """POST /delete: the project no longer wants the backend."""

    project: ProjectUid | None = None


class DuplicateRequest(_Incoming):
    """POST /duplicate_model: a project was copied."""

    project_src: ProjectUid
    project_dst: ProjectUid


class JobStatusRequest(_Incoming):
    """POST /job_status: how far is the training that START_TRAINING began."""

    job: str = Field(max_length=100)


class JobStatusResponse(BaseModel):
    """`job_status` is queued, started, finished or failed."""

    job_status: str
    created_at: str | None = None
    error: str | None = None


def project_number(uid: ProjectUid | None) -> int | None:
    """Return the number in `"<id>.<created-timestamp>"`, or None where there is none."""
    head = str(uid).split(".", 1)[0] if uid is not None else ""
    return int(head) if head.isdecimal() and len(head) < 19 else None
