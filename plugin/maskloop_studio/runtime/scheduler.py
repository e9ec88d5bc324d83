"""What has to happen again and again: queue what waits in the database, ask for what the clock brings."""

from __future__ import annotations

import functools
import logging
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.queue.cron import Schedule, run_cron
from maskloop.store.sessions import now
from maskloop_studio.runtime.tasks import sweep

if TYPE_CHECKING:
    from redis import Redis

    from maskloop_studio.services import Services

__all__ = ["run_scheduler", "schedules"]

logger = logging.getLogger(__name__)
SWEEP_S = 5.0
PRUNE_S = 3600.0
KEEP = timedelta(days=30)  # of jobs that ended well
NAMES = {"train": "training", "prelabel": "prelabelling"}


def run_scheduler(services: Services, connection: Redis, stop: threading.Event) -> None:
    """Sweep and keep the schedules until told to stop; a database or queue that is away is waited for.

    Several schedulers may run: what one has asked for, the others find waiting.
    """
    sweeper = threading.Thread(target=_sweep_on, args=(services, stop), name="sweeper")
    sweeper.start()
    try:
        run_cron(connection, functools.partial(schedules, services), stop)
    finally:
        stop.set()
        sweeper.join()


def schedules(services: Services) -> tuple[Schedule, ...]:
    """Return what the clock brings now: projects come and go, and change their minds.

    Raises:
        StoreError: the database does not answer.
    """
    projects, settings = services.store.projects, services.settings
    found = [
        Schedule(
            name="sync",
            function="maskloop_studio.runtime.tasks.want_syncs",
            every_s=60 * settings.sync_minutes,
        )
    ]
    for project_id in projects.ids():
        options = projects.options(project_id)
        for kind, function, general in (
            ("train", "maskloop_studio.runtime.tasks.want_training", settings.train_cron),
            ("prelabel", "maskloop_studio.runtime.tasks.want_prelabelling", settings.prelabel_cron),
        ):
            line = options.get(f"{kind}_cron") or general
            if line:
                found.append(
                    Schedule(
                        name=f"{NAMES[kind]}-{project_id}",
                        function=function,
                        arguments={"project_id": project_id},
                        cron=str(line),
                    )
                )
    return tuple(found)


def _sweep_on(services: Services, stop: threading.Event) -> None:
    """Not through the queue: it is what mends the queue."""
    prune_at = time.monotonic()
    while not stop.is_set():
        try:
            sweep(services)
            if time.monotonic() >= prune_at:
                services.store.jobs.prune(now() - KEEP)
                prune_at = time.monotonic() + PRUNE_S
        except Exception as exc:
            # Whatever it was: without sweeps nothing that is lost comes back.
            log_action(
                logger,
                "sweep_failed",
                level=logging.WARNING,
                exc_info=not isinstance(exc, MaskloopError),
                error=exc,
            )
        stop.wait(SWEEP_S)
