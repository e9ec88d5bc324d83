"""`maskloop prelabel`: requests the job, shows its progress, and does it itself where no worker runs."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from maskloop.errors import QueueError
from maskloop.store.jobs import Job, JobKind, JobStatus
from maskloop_studio.cli.preflight import is_served
from maskloop_studio.dispatch import request
from maskloop_studio.runtime.follow import POLL_S
from maskloop_studio.runtime.progress_bar import progress_bar

if TYPE_CHECKING:
    from maskloop.store.jobs import JobRepository
    from maskloop_studio.services import Services

__all__ = ["prelabel_and_print"]

OPEN = (JobStatus.WAITING, JobStatus.RUNNING)


def prelabel_and_print(project_id: int, services: Services, *, wait: bool, as_json: bool) -> None:
    """Predict a project's unlabelled tasks, by the workers or else in this process, and print the outcome.

    Args:
        project_id: Label Studio's number.
        services: what to work with.
        wait: until it has ended; only then this process does it where no worker runs.
        as_json: print the outcome as JSON.

    Raises:
        QueueError: it failed for good, or was cancelled.
    """
    number = request(
        JobKind.PRELABEL, project_id, "maskloop prelabel", store=services.store, queue=services.queue
    )
    if not wait:
        print(json.dumps({"job": f"prelabel-{number}"}) if as_json else f"prelabel-{number} is queued")
        return
    job = _follow(number, project_id, services)
    if job.status is not JobStatus.DONE:
        raise QueueError(
            job.name,
            expected="success",
            got=f"{job.status.value}: {job.error or 'no error'}",
            remedy=f"remove the cause, then `maskloop jobs retry {job.name}`",
        )
    outcome = job.outcome or {}
    print(json.dumps({"job": job.name, **outcome}) if as_json else _summary(outcome))


def _follow(number: int, project_id: int, services: Services) -> Job:
    """Return the job when it has ended, showing its progress."""
    begun, first = time.monotonic(), None
    with progress_bar() as bar:
        shown = bar.add_task(f"prelabelling project {project_id}", total=None)
        while True:
            job = services.store.jobs.get(number)
            if job is None:
                raise QueueError(
                    f"prelabel-{number}", expected="its row", got="none", remedy="run the command again"
                )
            if job.status not in OPEN:
                return job
            running = (
                job if job.status is JobStatus.RUNNING else _running(project_id, services.store.jobs) or job
            )
            if running.total:
                first = running.done if first is None else first
                rate = (running.done - first) / 2 / max(time.monotonic() - begun, 1.0)
                bar.update(
                    shown,
                    completed=running.done,
                    total=running.total,
                    description=f"prelabelling project {project_id}, {rate:.1f} tasks/s",
                )
            _work_where_unserved(project_id, services)
            time.sleep(POLL_S)


def _running(project_id: int, job_rows: JobRepository) -> Job | None:
    jobs = job_rows.find(statuses=[JobStatus.RUNNING], kind=JobKind.PRELABEL, project_id=project_id, limit=1)
    return jobs[0] if jobs else None


def _work_where_unserved(project_id: int, services: Services) -> None:
    from maskloop.queue.spec import QueueName
    from maskloop_studio.runtime.tasks import work_on

    name = f"prelabel-{project_id}"
    if any(thread.name == name for thread in threading.enumerate()):
        return
    due = services.store.jobs.due(kind=JobKind.PRELABEL, project_id=project_id)
    if due and not is_served(QueueName.PREDICT, services.settings):
        # The progress is read from the database, the same way as a worker's.
        threading.Thread(target=work_on, args=(due[0].job_id, services), name=name, daemon=True).start()


def _summary(outcome: dict[str, object]) -> str:
    seconds = outcome.get("seconds")
    took_s = sum(seconds.values()) if isinstance(seconds, dict) else 0.0
    parts = [f"{outcome.get('model_version')}: pushed {outcome.get('pushed')} predictions in {took_s:.1f} s"]
    for name, what in (
        ("changed", "got a new place in the order"),
        ("in_hand", "tasks with a draft of an annotator were left alone"),
        ("failed", "tasks could not be predicted"),
        ("removed", "stale ones were removed"),
    ):
        if outcome.get(name):
            parts.append(f"{outcome[name]} {what}")
    reasons = outcome.get("reasons")
    lines = [f"  {reason}" for reason in reasons] if isinstance(reasons, list) else []
    return "\n".join(["; ".join(parts), *lines])
