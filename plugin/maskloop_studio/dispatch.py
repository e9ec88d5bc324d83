"""How jobs of the database travel through the queues: each kind's queue, its time limit, its function."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from maskloop.errors import QueueError
from maskloop.log import log_action
from maskloop.queue.spec import JobQueue, JobSpec, QueueName
from maskloop.store.jobs import JobKind

if TYPE_CHECKING:
    from maskloop.store.database import Store
    from maskloop.store.jobs import Job

__all__ = ["JOB_FUNCTIONS", "count_new_corrections", "job_spec", "queue_or_wait", "request", "try_again"]

logger = logging.getLogger(__name__)
TASKS = "maskloop_studio.runtime.tasks"
OLD_TASKS = "maskloop_studio.jobs"  # where the functions were: jobs of an older version may still wait
JOB_FUNCTIONS = {  # name in the queue -> the function that runs; workers run no others
    f"{module}.{name}": f"{TASKS}.{name}"
    for module in (TASKS, OLD_TASKS)
    for name in ("run", "want_syncs", "want_prelabelling", "want_training")
}
QUEUES = {
    JobKind.EVENT: QueueName.INTAKE,
    JobKind.SYNC: QueueName.INTAKE,
    JobKind.PRELABEL: QueueName.PREDICT,
    JobKind.SHARD: QueueName.PREDICT,
    JobKind.TRAINING: QueueName.TRAIN,
}
TIMEOUTS_S = {
    JobKind.EVENT: 3600,  # a bulk event names thousands of annotations
    JobKind.SYNC: 24 * 3600,
    JobKind.PRELABEL: 24 * 3600,
    JobKind.SHARD: 3600,
    JobKind.TRAINING: 24 * 3600,
}


def job_spec(kind: JobKind, job_id: int) -> JobSpec:
    """Return what carries a job to a worker."""
    return JobSpec(
        queue=QUEUES[kind],
        function=f"{TASKS}.run",
        job_id=f"{kind.value}-{job_id}",
        arguments={"job_id": job_id},
        timeout_s=TIMEOUTS_S[kind],
    )


def queue_or_wait(queue: JobQueue, job: JobSpec) -> bool:
    """Queue a job whose row is in the database already; without a queue it waits there for the scheduler."""
    try:
        return queue.enqueue(job)
    except QueueError as exc:
        log_action(logger, "queue_unreachable", level=logging.WARNING, job_id=job.job_id, error=exc)
        return False


def request(
    kind: JobKind, project_id: int, reason: str, *, store: Store, queue: JobQueue, quiet_s: float = 0
) -> int:
    """Ask for a job of a project; one that waits already serves the new wish too. Return its number.

    Args:
        kind: what is to be done.
        project_id: Label Studio's number.
        reason: why; shown in lists.
        store: keeps the wish.
        queue: carries it.
        quiet_s: begin when no such wish came for as long; the scheduler queues it then.
    """
    job_id = store.jobs.request(kind, project_id, reason, quiet_s=quiet_s)
    log_action(logger, "job_requested", job_id=f"{kind.value}-{job_id}", project_id=project_id, reason=reason)
    if not quiet_s:
        queue_or_wait(queue, job_spec(kind, job_id))
    return job_id


def try_again(job: Job, *, store: Store, queue: JobQueue) -> int | None:
    """Let a job that has ended without success, or waits for its next attempt, run now.

    Returns:
        Its number, or that of another one that waits and does the same; None where there is nothing to be
        tried again.
    """
    job_id = store.jobs.retry(job.job_id)
    if job_id is not None:
        queue_or_wait(queue, job_spec(job.kind, job_id))
    return job_id


def count_new_corrections(project_id: int, store: Store) -> int:
    """Return how many corrections to learn from no training has seen yet."""
    seen = store.trainings.trained_through(project_id)
    return store.corrections.count(project_id, split="train", after_version=seen)
