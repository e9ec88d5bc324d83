"""What is queued, and where: a seam with RQ behind it (`rq_queue.py`), and one in memory for tests.

The database is the truth and the queue only carries: a job holds numbers of rows, never what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

__all__ = ["JobQueue", "JobSpec", "QueueName"]


class QueueName(StrEnum):
    """The queues, each with workers of its own."""

    INTAKE = "intake"  # light: reads what annotators did
    PREDICT = "predict"  # a warm model in one process
    TRAIN = "train"  # a process for every job, killable


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One job to be done once."""

    queue: QueueName
    function: str  # dotted name of a module-level function
    job_id: str  # a job with this id that waits or runs is not queued again
    arguments: Mapping[str, int | str] = field(default_factory=dict)
    timeout_s: int = 600


class JobQueue(Protocol):
    """Where jobs are put."""

    def enqueue(self, spec: JobSpec) -> bool:
        """Queue a job; return False where it waits already or is just being taken."""
        ...

    def lengths(self) -> dict[str, int]:
        """Return how many jobs wait in each queue."""
        ...
