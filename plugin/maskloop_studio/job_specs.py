"""The jobs there are: what each is called, where it waits, how long it may take."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from maskloop.errors import QueueError
from maskloop.log import log_action
from maskloop.queue.jobs import JobQueue, JobSpec, QueueName

if TYPE_CHECKING:
    from maskloop.store.database import Store

__all__ = ["event_job", "queue_or_wait", "renewal_job", "request_training", "training_job"]

logger = logging.getLogger(__name__)


def queue_or_wait(queue: JobQueue, job: JobSpec) -> None:
    """Queue a job whose row is in the database already; without a queue it waits there for the scheduler."""
    try:
        queue.enqueue(job)
    except QueueError as exc:
        log_action(logger, "queue unreachable", level=logging.WARNING, job_id=job.job_id, error=exc)


def event_job(event_id: int) -> JobSpec:
    """Return the job that works on an event."""
    return JobSpec(
        queue=QueueName.INTAKE,
        function="maskloop_studio.jobs.process_event",
        job_id=f"event-{event_id}",
        arguments={"event_id": event_id},
        timeout_s=300,
    )


def training_job(training_id: int) -> JobSpec:
    """Return the job that trains."""
    return JobSpec(
        queue=QueueName.TRAIN,
        function="maskloop_studio.jobs.train",
        job_id=f"training-{training_id}",
        arguments={"training_id": training_id},
        timeout_s=24 * 3600,
    )


def renewal_job(project_id: int) -> JobSpec:
    """Return the job that predicts a project's unlabelled tasks and pushes what it says."""
    return JobSpec(
        queue=QueueName.PREDICT,
        function="maskloop_studio.jobs.renew_predictions",
        job_id=f"renewal-{project_id}",
        arguments={"project_id": project_id},
        timeout_s=24 * 3600,
    )


def request_training(project_id: int, reason: str, *, store: Store, queue: JobQueue) -> int:
    """Ask for a training of a project; one that waits already serves the new wish too."""
    training_id = store.trainings.request(project_id, reason)
    log_action(logger, "training requested", project_id=project_id, training_id=training_id, reason=reason)
    queue_or_wait(queue, training_job(training_id))
    return training_id
