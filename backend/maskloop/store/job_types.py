"""What a job is, free of any database: the command line reads it before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Heartbeat", "Job", "JobKind", "JobStatus", "NewEvent"]


class JobKind(StrEnum):
    """What a job does."""

    EVENT = "event"  # reads what annotators did
    RENEWAL = "renewal"  # predicts what is unlabelled
    SHARD = "shard"  # a part of a renewal's predicting, which any worker may take
    TRAINING = "training"
    SYNC = "sync"  # compares with Label Studio


class JobStatus(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"  # given up; `retry` tries it again
    CANCELLED = "cancelled"
    DROPPED = "dropped"  # by hand, or because another that waits does the same


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event to be kept."""

    key: str  # equal for the same event told twice
    action: str  # Label Studio's name of it
    project_id: int
    subject_ids: tuple[int, ...]  # the annotations or tasks it is about


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a job's row says."""

    job_id: int
    kind: JobKind
    project_id: int
    action: str  # of an event; the model version of a shard; else why it is wanted
    subject_ids: tuple[int, ...]
    status: JobStatus
    attempts: int
    error: str | None
    due_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    owner: str | None
    done: int
    total: int
    cancel_requested: bool
    outcome: dict[str, object] | None

    @property
    def name(self) -> str:
        """What queue and command line call it."""
        return f"{self.kind.value}-{self.job_id}"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What came of renewing a lease."""

    held: bool  # False: somebody else has the job, or it has ended
    cancel: bool  # somebody asked that it ends
