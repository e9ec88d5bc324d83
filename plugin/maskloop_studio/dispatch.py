"""How jobs of the database travel through the queues: each kind's queue, its time limit, its function."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from maskloop.errors import ConfigurationError, QueueError
from maskloop.log import log_action
from maskloop.queue.spec import JobQueue, JobSpec, QueueName
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.tracing import note_request

if TYPE_CHECKING:
    from maskloop.store.database import Store
    from maskloop.store.jobs import Job

__all__ = [
    "JOB_FUNCTIONS",
    "count_new_corrections",
    "find_same_training",
    "job_spec",
    "queue_or_wait",
    "request",
    "try_again",
]

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
    """Return the queue's entry for a job."""
    return JobSpec(
        queue=QUEUES[kind],
        function=f"{TASKS}.run",
        job_id=f"{kind.value}-{job_id}",
        arguments={"job_id": job_id},
        timeout_s=TIMEOUTS_S[kind],
    )


def queue_or_wait(queue: JobQueue, job: JobSpec) -> bool:
    """Queue a job that has a row in the database; without a queue it waits there for the scheduler."""
    try:
        return queue.enqueue(job)
    except QueueError as exc:
        log_action(logger, "queue_unreachable", level=logging.WARNING, job_id=job.job_id, error=exc)
        return False


def request(
    kind: JobKind, project_id: int, reason: str, *, store: Store, queue: JobQueue, quiet_s: float = 0
) -> int:
    """Add a job and queue it; return its number, or that of the same job where one waits already.

    Args:
        kind: what is to be done.
        project_id: Label Studio's number.
        reason: why; shown in lists.
        store: keeps the job.
        queue: carries it.
        quiet_s: start only when no such request came for this time; the scheduler queues it then.

    Raises:
        ConfigurationError: a training of a project that is not connected.
    """
    running = None
    if kind is JobKind.TRAINING:
        _check_connected(project_id, store)
        running = find_same_training(project_id, store)
    if running is not None:
        log_action(logger, "training_runs_already", training_id=running, project_id=project_id, reason=reason)
        note_request(f"{kind.value}-{running}", store.scope, reason)
        return running
    job_id = store.jobs.request(kind, project_id, reason, quiet_s=quiet_s)
    log_action(logger, "job_requested", job_id=f"{kind.value}-{job_id}", project_id=project_id, reason=reason)
    note_request(f"{kind.value}-{job_id}", store.scope, reason)
    if not quiet_s:
        queue_or_wait(queue, job_spec(kind, job_id))
    return job_id


def _check_connected(project_id: int, store: Store) -> None:
    if project_id not in store.projects.ids():
        raise ConfigurationError(
            f"project {project_id}",
            expected="a connected project",
            got="one that is not connected",
            remedy=f"run `maskloop connect {project_id}` first",
        )


def find_same_training(project_id: int, store: Store) -> int | None:
    """Return the running training that learns from all corrections that are stored now; None without one."""
    for job in store.jobs.find(statuses=[JobStatus.RUNNING], kind=JobKind.TRAINING, project_id=project_id):
        seen = store.trainings.newest_seen(job.job_id)
        if seen is None or seen >= store.corrections.last_version(project_id):
            return job.job_id
    return None


def try_again(job: Job, *, store: Store, queue: JobQueue) -> int | None:
    """Start a job now that has ended without success, or that waits for its next attempt.

    Returns:
        Its number, or that of the same job where one waits already; None where the job runs or is done.
    """
    job_id = store.jobs.retry(job.job_id)
    if job_id is not None:
        queue_or_wait(queue, job_spec(job.kind, job_id))
    return job_id


def count_new_corrections(project_id: int, store: Store) -> int:
    """Return how many corrections of the training split no training has seen yet."""
    seen = store.trainings.trained_through(project_id)
    return store.corrections.count(project_id, split="train", after_version=seen)
