"""Working on one job of the database: under a lease, with progress, cancelling and retries."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeAlias

from redis.exceptions import RedisError
from rq import get_current_job
from rq.job import Job as RqJob

from maskloop.errors import CodecError, MaskloopError, QueueError, StoreError, StudioError, TrainingError
from maskloop.log import log_action
from maskloop.store.jobs import (
    LEASE_S,
    MAX_ATTEMPTS,
    MAX_TRANSIENT_ATTEMPTS,
    Job,
    JobRepository,
    JobStatus,
)

__all__ = ["JobCancelled", "JobControl", "LeaseLost", "Work", "run_job"]

logger = logging.getLogger(__name__)
HEARTBEAT_S = LEASE_S / 5
# What did not answer may answer later; what cannot be read stays unreadable until it is changed.
# RQ writes to its queue while it handles SIGTERM: a queue that is away can raise in the middle of any job.
TRANSIENT = (StudioError, StoreError, QueueError, RedisError, OSError)
HOPELESS = (CodecError, TrainingError)


# Not of the tree of errors: nothing may take them for trouble with one image, and go on.
class JobCancelled(Exception):  # noqa: N818 - what happened, no error
    """The job was cancelled."""


class LeaseLost(Exception):  # noqa: N818
    """Another worker has the job now."""


class JobControl:
    """What a job in work says and hears."""

    def __init__(self, job: Job, owner: str) -> None:
        self.job = job
        self.owner = owner
        self.done = job.done
        self.total = job.total
        self.details: dict[str, float] = {}
        self.cancelled = threading.Event()
        self.lost = threading.Event()

    def progress(self, done: int, total: int, **details: float) -> None:
        """Note how far the job is; call it at each step, it costs nothing.

        Args:
            done: steps.
            total: steps in all.
            details: what else tells how it goes, such as a loss; kept in the job's row.

        Raises:
            JobCancelled: the job was cancelled.
            LeaseLost: another worker has the job now.
        """
        self.done, self.total, self.details = done, total, details
        self.check()

    def check(self) -> None:
        """Raise where the job must not go on; see `progress`."""
        if self.lost.is_set():
            raise LeaseLost(self.job.name)
        if self.cancelled.is_set():
            raise JobCancelled(self.job.name)


Work: TypeAlias = Callable[[Job, JobControl], dict[str, object] | None]


def run_job(
    job_id: int, work: Work, *, jobs: JobRepository, lease_s: float = LEASE_S, carried: bool = True
) -> JobStatus | None:
    """Claim a job and work on it; return what became of it, None where it was not to be had.

    An error ends in the job's row: it is tried again later, or stands in the dead-letter list in the end.

    Args:
        job_id: which.
        work: does it; what it returns is kept as the job's outcome.
        jobs: where the job is.
        lease_s: after this without a sign of life others may take it over.
        carried: the queue's job in hand is this one; False inside another job.

    Raises:
        StoreError: the database cannot tell or take anything; the lease lapses then.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    job = jobs.claim(job_id, owner, lease_s=lease_s)
    if job is None:
        return None
    control = JobControl(job, owner)
    started = time.monotonic()
    with _heartbeat(control, jobs, lease_s, get_current_job() if carried else None):
        status = _attempt(job, work, control, jobs)
    log_action(
        logger,
        "job_ended",
        job_id=job.name,
        job_action=job.action,
        project_id=job.project_id,
        status=status,
        duration_s=time.monotonic() - started,
    )
    return status


def _attempt(job: Job, work: Work, control: JobControl, jobs: JobRepository) -> JobStatus | None:
    try:
        outcome = work(job, control)
    except LeaseLost:
        return None
    except JobCancelled:
        jobs.end_cancelled(job.job_id, control.owner)
        return JobStatus.CANCELLED
    except Exception as exc:
        # Whatever it is, the job must not be lost: it is tried again, and in the end shown as dead.
        status = jobs.fail(
            job.job_id,
            control.owner,
            str(exc) or type(exc).__name__,
            retry=not isinstance(exc, HOPELESS),
            max_attempts=MAX_TRANSIENT_ATTEMPTS if isinstance(exc, TRANSIENT) else MAX_ATTEMPTS,
        )
        log_action(
            logger,
            "job_failed",
            level=logging.ERROR,
            exc_info=not isinstance(exc, MaskloopError),
            job_id=job.name,
            status=status,
            error=exc,
        )
        return status
    return JobStatus.DONE if jobs.finish(job.job_id, control.owner, outcome) else None


@contextlib.contextmanager
def _heartbeat(
    control: JobControl, jobs: JobRepository, lease_s: float, carrier: RqJob | None
) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(
        target=_keep_lease,
        args=(control, jobs, carrier, stop, lease_s),
        name=f"lease-{control.job.name}",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _keep_lease(
    control: JobControl, jobs: JobRepository, carrier: RqJob | None, stop: threading.Event, lease_s: float
) -> None:
    renewed = time.monotonic()
    while not stop.wait(min(HEARTBEAT_S, lease_s / 5)):
        sent = time.monotonic()
        try:
            beat = jobs.renew(
                control.job.job_id,
                control.owner,
                done=control.done,
                total=control.total,
                details=control.details,
                lease_s=lease_s,
            )
        except StoreError as exc:
            log_action(logger, "lease_not_renewed", level=logging.WARNING, job_id=control.job.name, error=exc)
            if time.monotonic() - renewed > lease_s:
                control.lost.set()
            continue
        renewed = sent
        if not beat.held:
            control.lost.set()
            return
        if beat.cancel:
            control.cancelled.set()
        if carrier is not None:
            carrier.meta.update(control.details, done=control.done, total=control.total)
            with contextlib.suppress(RedisError):  # it is sent again with the next heartbeat
                carrier.save_meta()  # type: ignore[no-untyped-call]
