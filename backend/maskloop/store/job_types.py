"""The types of jobs, without a database: the command line imports them before anything heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

__all__ = ["Heartbeat", "Job", "JobKind", "JobStatus", "NewEvent"]


OLD_PRELABEL = "renewal"  # the name in older versions


class JobKind(StrEnum):
    """What a job does."""

    EVENT = "event"  # reads what annotators did
    PRELABEL = "prelabel"  # predicts the tasks without annotations
    SHARD = "shard"  # a part of a prelabelling, which any worker may take
    TRAINING = "training"
    SYNC = "sync"  # compares the project with Label Studio

    @classmethod
    def _missing_(cls, value: object) -> JobKind | None:
        return cls.PRELABEL if value == OLD_PRELABEL else None

    @property
    def stored(self) -> tuple[str, ...]:
        """Its values in the database: also what an older version wrote, or still writes beside this one."""
        return (self.value, OLD_PRELABEL) if self is JobKind.PRELABEL else (self.value,)


class JobStatus(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"  # it failed too often; `retry` tries it again
    CANCELLED = "cancelled"
    DROPPED = "dropped"  # by hand, or because another that waits does the same


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event to be stored."""

    key: str  # equal for the same event sent twice
    action: str  # Label Studio's name of it
    project_id: int
    subject_ids: tuple[int, ...]  # the annotations or tasks it is about


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job, as its row was when it was read."""

    job_id: int
    kind: JobKind
    project_id: int
    action: str  # of an event; the model version of a shard; else the reason
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
    lease_until: datetime | None = None  # of a running one: then others may take it
    details: Mapping[str, float] = field(default_factory=dict)  # how it goes: loss, images a second

    @property
    def name(self) -> str:
        """Its name in the queue and on the command line."""
        return f"{self.kind.value}-{self.job_id}"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The result of renewing a lease."""

    held: bool  # False: another worker has the job, or it has ended
    cancel: bool  # it was requested that the job ends
