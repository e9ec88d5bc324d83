"""Schedules through RQ's cron, whose own jobs are pickled: ours travel as JSON, like all others."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError
from rq.cron import CronJob, CronScheduler

from maskloop.errors import QueueError
from maskloop.log import log_action
from maskloop.queue.jobs import JobSpec, QueueName, RqQueue

__all__ = ["Schedule", "run_cron"]

logger = logging.getLogger(__name__)
TICK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Something that happens again and again."""

    name: str
    function: str  # dotted name; called without arguments by an intake worker
    every_s: int | None = None  # seconds; or
    cron: str | None = None  # a cron line, in local time


class _JsonCronJob(CronJob):
    """RQ's cron job, put on the queue as JSON, and not while the last one still waits or runs."""

    def enqueue(self, connection: Redis) -> None:  # type: ignore[override]
        RqQueue(connection).enqueue(
            JobSpec(queue=QueueName(self.queue_name), function=self.func_name, job_id=f"schedule-{self.name}")
        )


def run_cron(connection: Redis, schedules: Sequence[Schedule], stop: threading.Event) -> None:
    """Keep schedules until told to stop; a queue that is away is waited for."""
    scheduler = CronScheduler(connection, logging_level=logging.WARNING)
    scheduler.get_jobs().extend(_cron_job(schedule) for schedule in schedules)
    known = False  # to the queue: a Redis that lost its data must be told again
    while not stop.is_set():
        try:
            if not known:
                scheduler.register_birth()
                known = True
            if scheduler.enqueue_jobs():
                scheduler.save()
            scheduler.heartbeat()
        except (RedisError, QueueError) as exc:
            known = False
            log_action(logger, "schedules wait for the queue", level=logging.WARNING, error=exc)
        stop.wait(TICK_S)
    with contextlib.suppress(RedisError):
        scheduler.register_death()


def _cron_job(schedule: Schedule) -> CronJob:
    return _JsonCronJob(
        queue_name=QueueName.INTAKE.value,
        func_name=schedule.function,
        interval=schedule.every_s,
        cron=schedule.cron,
        name=schedule.name,
    )
