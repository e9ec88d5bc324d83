"""The functions that workers run: each gets a job's number and reads the job from the database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from maskloop.errors import MaskloopError
from maskloop.log import configure_logging, log_action
from maskloop.queue.lease import JobControl, run_job
from maskloop.store.jobs import Job, JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop.tracing import flush_spans, job_span
from maskloop_studio.dispatch import count_new_corrections, job_spec, queue_or_wait, request
from maskloop_studio.runtime.notify import note_end
from maskloop_studio.services import Services, process_services

if TYPE_CHECKING:
    from maskloop.queue.spec import JobQueue
    from maskloop.store.jobs import JobRepository
    from maskloop.store.projects import ProjectRepository

__all__ = ["run", "sweep", "want_prelabelling", "want_syncs", "want_training", "work_on"]

logger = logging.getLogger(__name__)
FULL_SYNC_EVERY = timedelta(days=1)
Worker: TypeAlias = Callable[[Job, JobControl, Services], dict[str, object] | None]


def run(job_id: int) -> None:
    """Do one job; RQ calls this, in each of the queues."""
    services = process_services()
    configure_logging(services.settings.log)
    try:
        status = work_on(job_id, services)
        if status is not None:
            _note_end(job_id, status, services)
            _queue_next(job_id, jobs=services.store.jobs, queue=services.queue)
    finally:
        flush_spans()  # RQ ends this process without a further word


def _note_end(job_id: int, status: JobStatus, services: Services) -> None:
    """Put a notice about a job's end in the outbox; trouble with it is logged and stops nothing."""
    if services.settings.notify_url is None:
        return
    store = services.store
    try:
        job = store.jobs.get(job_id)
        if job is not None:
            note_end(job, status, job.outcome, store.notices)
    except MaskloopError as exc:
        log_action(logger, "end_not_noted", level=logging.WARNING, job_id=job_id, error=exc)


def work_on(job_id: int, services: Services) -> JobStatus | None:
    """Claim a job and do it; return its status, None where another worker has it or it is done."""

    def work(job: Job, control: JobControl) -> dict[str, object] | None:
        scope = services.store.scope
        with job_span(job.name, scope, project=job.project_id, reason=job.action, attempt=job.attempts + 1):
            return WORK[job.kind](job, control, services)

    return run_job(job_id, work, jobs=services.store.jobs)


def sweep(*, jobs: JobRepository, queue: JobQueue) -> int:
    """Queue the jobs again that are due in the database and not in a queue; return how many.

    A queue loses jobs when it is down, or when a worker is killed.
    """
    made = 0
    for job in jobs.due():
        made += queue.enqueue(job_spec(job.kind, job.job_id))
    if made:
        log_action(logger, "lost_jobs_queued", jobs=made)
    return made


def want_syncs() -> None:
    """Request a comparison of every connected project with Label Studio (RQ's cron calls this)."""
    services = process_services()
    for project_id in services.store.projects.ids():
        request(JobKind.SYNC, project_id, "schedule", store=services.store, queue=services.queue)


def want_prelabelling(project_id: int) -> None:
    """Request predictions of a project's unlabelled tasks (RQ's cron calls this)."""
    services = process_services()
    request(JobKind.PRELABEL, project_id, "schedule", store=services.store, queue=services.queue)


def want_training(project_id: int) -> None:
    """Request a training of a project that has new corrections (RQ's cron calls this)."""
    services = process_services()
    store = services.store
    new = count_new_corrections(project_id, store)
    if new:
        reason = f"schedule, {new} new corrections"
        request(JobKind.TRAINING, project_id, reason, store=store, queue=services.queue)


def _queue_next(job_id: int, *, jobs: JobRepository, queue: JobQueue) -> None:
    """Queue the job that waited for this one: of each kind and project only one runs at a time."""
    ended = jobs.get(job_id)
    if ended is None or ended.kind in (JobKind.EVENT, JobKind.SHARD):
        return
    for job in jobs.find(statuses=[JobStatus.WAITING], kind=ended.kind, project_id=ended.project_id, limit=1):
        if job.job_id != job_id:
            queue_or_wait(queue, job_spec(job.kind, job.job_id))


def _take_event(job: Job, control: JobControl, services: Services) -> None:
    from maskloop_studio.intake.annotations import HANDLED_ACTIONS, take_event
    from maskloop_studio.intake.parts import IntakeParts

    if job.action in HANDLED_ACTIONS:
        take_event(job, control, IntakeParts.of(services))
        if services.store.trials.running(job.project_id) is not None:
            from maskloop_studio.projects.trial_watch import check_trial

            check_trial(job.project_id, services)


def _renew(job: Job, control: JobControl, services: Services) -> dict[str, object]:
    from maskloop_studio.prelabel.run import prelabel_project
    from maskloop_studio.projects.drift_watch import check_drift

    outcome = prelabel_project(job.project_id, services, on_progress=control.progress).as_json()
    check_drift(job.project_id, services)
    return outcome


def _score_shard(job: Job, control: JobControl, services: Services) -> dict[str, object]:
    from maskloop_studio.prelabel.score import score_shard

    return {"scored": score_shard(job, services, on_progress=control.progress)}


def _train(job: Job, control: JobControl, services: Services) -> dict[str, object]:
    from maskloop_studio.projects.audit_trail import record_verdict
    from maskloop_studio.projects.champion import prune_after_training
    from maskloop_studio.projects.training import train_project

    outcome = train_project(job, control, services)
    # Before the job ends: killed in between, the training runs again and records it then.
    record_verdict(job, outcome, registry=services.registry, store=services.store)
    prune_after_training(job.project_id, services)
    return outcome


def _sync(job: Job, control: JobControl, services: Services) -> dict[str, object]:
    from maskloop_studio.intake.reconcile import find_changes
    from maskloop_studio.projects.champion import follow_champion
    from maskloop_studio.projects.drift_watch import check_drift
    from maskloop_studio.projects.trial_watch import check_trial

    report = find_changes(
        job.project_id,
        store=services.store,
        client=services.client,
        settings=services.settings,
        full=_is_stale(job.project_id, services.store.projects),
        on_page=control.progress,
    )
    for event_id in report.event_ids:
        queue_or_wait(services.queue, job_spec(JobKind.EVENT, event_id))
    if not (report.project_away or report.project_gone):
        check_trial(job.project_id, services)
        follow_champion(job.project_id, services)
        check_drift(job.project_id, services)
    return report.as_json()


def _is_stale(project_id: int, projects: ProjectRepository) -> bool:
    """Return whether a full comparison is due: only that finds deletions without a webhook."""
    listed_at = projects.listed_at(project_id)
    return listed_at is None or now() - listed_at > FULL_SYNC_EVERY


WORK: dict[JobKind, Worker] = {
    JobKind.EVENT: _take_event,
    JobKind.PRELABEL: _renew,
    JobKind.SHARD: _score_shard,
    JobKind.TRAINING: _train,
    JobKind.SYNC: _sync,
}
