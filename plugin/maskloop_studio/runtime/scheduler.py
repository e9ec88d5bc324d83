"""`maskloop scheduler`: queues jobs whose queue entry was lost, and requests jobs by the clock."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.queue.cron import Schedule, check_cron_line, run_cron
from maskloop.store.jobs import JobStatus
from maskloop.store.sessions import now
from maskloop_studio.runtime.notify import note_disk, note_lost, send_until
from maskloop_studio.runtime.tasks import sweep

if TYPE_CHECKING:
    from redis import Redis

    from maskloop.settings import Settings
    from maskloop.store.projects import ProjectRepository
    from maskloop_studio.services import Services

__all__ = ["read_schedules", "run_scheduler"]

logger = logging.getLogger(__name__)
SWEEP_S = 5.0
PRUNE_S = 3600.0
KEEP = timedelta(days=30)  # of jobs that ended well
TASKS = "maskloop_studio.runtime.tasks"
NAMES = {"train": "training", "prelabel": "prelabelling"}


def run_scheduler(services: Services, connection: Redis, stop: threading.Event) -> None:
    """Sweep and follow the schedules until `stop` is set; wait for a database or queue that is away.

    Several schedulers may run: a job that one requested waits in the database, so the others add none.
    """
    reader = _ScheduleReader(services.settings)
    sweeper = threading.Thread(target=_sweep_on, args=(services, stop), name="sweeper")
    sweeper.start()
    notifier = _start_notifier(services, stop)
    try:
        # The database may be away now: it is read within run_cron, which waits for it.
        run_cron(connection, lambda: reader(services.store.projects), stop)
    finally:
        stop.set()
        sweeper.join()
        if notifier is not None:
            notifier.join()


def read_schedules(
    settings: Settings, projects: ProjectRepository
) -> tuple[tuple[Schedule, ...], dict[str, str]]:
    """Return the schedules of now, and those that cannot be kept.

    Args:
        settings: the schedules of every project that has none of its own.
        projects: the connected projects with their options.

    Returns:
        The schedules, and the name of each bad one -> what is wrong with it.

    Raises:
        StoreError: the database does not answer.
    """
    every_s = 60 * settings.sync_minutes
    found, bad = [Schedule(name="sync", function=f"{TASKS}.want_syncs", every_s=every_s)], {}
    for project_id in projects.ids():
        options = projects.options(project_id)
        for kind, function, general in (
            ("train", "want_training", settings.train_cron),
            ("prelabel", "want_prelabelling", settings.prelabel_cron),
        ):
            own = options.get(f"{kind}_cron")
            line, name = str(own or general or ""), f"{NAMES[kind]}-{project_id}"
            if not line:
                continue
            try:
                check_cron_line(line)
            except ValueError as exc:
                origin = f"{kind}_cron of its options" if own else f"MASKLOOP_{kind.upper()}_CRON"
                bad[name] = f"{origin}: {exc}"
                continue
            arguments = {"project_id": project_id}
            found.append(Schedule(name=name, function=f"{TASKS}.{function}", arguments=arguments, cron=line))
    return tuple(found), bad


class _ScheduleReader:
    """Reads the schedules again and again, and logs each bad one once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reported: dict[str, str] = {}

    def __call__(self, projects: ProjectRepository) -> tuple[Schedule, ...]:
        found, bad = read_schedules(self._settings, projects)
        for name, reason in bad.items():
            if self._reported.get(name) != reason:
                log_action(logger, "schedule_skipped", level=logging.ERROR, schedule=name, reason=reason)
        self._reported = bad
        return found


def _sweep_on(services: Services, stop: threading.Event) -> None:
    """Sweep in this process, not by a job: without sweeps nothing repairs the queue."""
    prune_at, recorded = time.monotonic(), False
    while not stop.is_set():
        try:
            if not recorded:
                _record_settings(services)
                recorded = True
            _record_kept(services)
            if services.settings.notify_url is not None:
                _note_trouble(services)
            sweep(jobs=services.store.jobs, queue=services.queue)
            if time.monotonic() >= prune_at:
                services.store.jobs.prune(now() - KEEP)
                services.store.notices.prune(now() - KEEP)
                prune_at = time.monotonic() + PRUNE_S
        except Exception as exc:
            log_action(
                logger,
                "sweep_failed",
                level=logging.WARNING,
                exc_info=not isinstance(exc, MaskloopError),
                error=exc,
            )
        stop.wait(SWEEP_S)


def _record_settings(services: Services) -> None:
    """Record in the audit trail what differs from the settings of the scheduler before."""
    from maskloop_studio.projects.audit_trail import command_line_actor
    from maskloop_studio.projects.setting_records import record_settings

    record_settings(services.settings, services.store.audit, actor=command_line_actor())


def _record_kept(services: Services) -> None:
    """Record what could not be recorded while the database was away; this machine's processes share it."""
    outbox = services.store.audit_outbox
    if outbox is not None:
        outbox.deliver(services.store.audit)


def _note_trouble(services: Services) -> None:
    store = services.store
    for job in store.jobs.due():
        if job.status is JobStatus.RUNNING:  # due, since its lease lapsed
            note_lost(job, store.notices)
    note_disk(services.settings, store.notices)


def _start_notifier(services: Services, stop: threading.Event) -> threading.Thread | None:
    """Start the thread that posts notices: a receiver that hangs must not keep the queue from being swept."""
    if services.settings.notify_url is None:
        return None

    def send() -> None:
        while not stop.is_set():
            try:
                send_until(stop, services.settings, services.store.notices)
            except Exception:  # the thread outlives any fault
                log_action(logger, "notifier_failed", level=logging.ERROR, exc_info=True)
                stop.wait(SWEEP_S)

    thread = threading.Thread(target=send, name="notifier")
    thread.start()
    return thread
