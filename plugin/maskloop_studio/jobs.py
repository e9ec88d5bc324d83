"""What the queues run: each job loads, calls and saves; the work itself lies elsewhere."""

from __future__ import annotations

import logging

from maskloop.log import configure_logging, log_action
from maskloop_studio.intake import process_event as work_on_event
from maskloop_studio.job_specs import event_job, training_job
from maskloop_studio.services import process_services

__all__ = ["process_event", "renew_predictions", "sweep", "train"]

logger = logging.getLogger(__name__)


def process_event(event_id: int) -> None:
    """Work on one event (queue: intake)."""
    services = process_services()
    event = services.store.events.get(event_id)
    if event is not None:
        work_on_event(event, services)


def train(training_id: int) -> None:
    """Train once (queue: train; in a process of its own)."""
    from maskloop_studio.training import run_training_job

    configure_logging()
    run_training_job(training_id, process_services())


def renew_predictions(project_id: int) -> None:
    """Predict a project's unlabelled tasks with its champion and push what it says (queue: predict)."""
    from maskloop_studio.prelabel import renew_project

    renew_project(project_id, process_services())


def sweep() -> int:
    """Queue again whatever waits in the database without a job; return how many jobs that made.

    A job is lost when the queue was down, or when its worker was killed between two steps.
    """
    services = process_services()
    made = 0
    for event in services.store.events.due():
        made += services.queue.enqueue(event_job(event.event_id))
    for status in ("queued", "running"):
        for training in services.store.trainings.of(status=status):
            made += services.queue.enqueue(training_job(training.training_id))
    if made:
        log_action(logger, "swept", jobs=made)
    return made
