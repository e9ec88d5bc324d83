"""Schedules through RQ's cron. Its own jobs are pickled; ours are JSON, like all others."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from croniter import CroniterError, croniter
from redis import Redis
from redis.exceptions import RedisError
from rq.cron import CronJob, CronScheduler

from maskloop.errors import QueueError, StoreError, first_line
from maskloop.log import log_action
from maskloop.queue.rq_queue import RqQueue
from maskloop.queue.spec import JobSpec, QueueName

__all__ = ["Schedule", "check_cron_line", "run_cron"]

logger = logging.getLogger(__name__)
TICK_S = 1.0
READ_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Something that happens again and again."""

    name: str
    function: str  # dotted name; called by an intake worker
    arguments: Mapping[str, int | str] = field(default_factory=dict)
    every_s: int | None = None  # seconds; or
    cron: str | None = None  # a cron line, in local time


def check_cron_line(line: str) -> None:
    """Raise where a cron line cannot be read, or names no time that ever comes ("0 0 31 2 *").

    Raises:
        ValueError: expected, got.
    """
    try:
        croniter(line, datetime.now()).get_next()  # RQ's cron keeps local time
    except (CroniterError, ValueError, TypeError, KeyError, OverflowError) as exc:
        raise ValueError(
            f"expected a cron line such as '0 3 * * *', got {line[:80]!r} ({first_line(exc)})"
        ) from exc


class _JsonCronJob(CronJob):
    """RQ's cron job, put on the queue as JSON, and not while the last one still waits or runs."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(
            queue_name=QueueName.INTAKE.value,
            func_name=schedule.function,
            kwargs=dict(schedule.arguments),
            interval=schedule.every_s,
            cron=schedule.cron,
            name=schedule.name,
        )
        self.schedule = schedule

    def enqueue(self, connection: Redis) -> None:  # type: ignore[override]
        RqQueue(connection).enqueue(
            JobSpec(
                queue=QueueName(self.queue_name),
                function=self.func_name,
                job_id=f"schedule-{self.name}",
                arguments=self.schedule.arguments,
            )
        )


def run_cron(
    connection: Redis, read_schedules: Callable[[], Sequence[Schedule]], stop: threading.Event
) -> None:
    """Queue scheduled jobs until `stop` is set; wait while the queue or the database does not answer.

    Args:
        connection: the queue's server.
        read_schedules: returns them; called every half minute.
        stop: set it to end.
    """
    scheduler = CronScheduler(connection, logging_level=logging.WARNING)
    read_at = 0.0
    registered = False  # a Redis that lost its data needs it again
    while not stop.is_set():
        try:
            if time.monotonic() >= read_at:
                _follow(scheduler, read_schedules())
                read_at = time.monotonic() + READ_S
            if not registered:
                scheduler.register_birth()
                registered = True
            if scheduler.enqueue_jobs():
                scheduler.save()
            scheduler.heartbeat()
        except (RedisError, QueueError, StoreError) as exc:
            registered = False
            log_action(logger, "scheduler_waits_for_queue", level=logging.WARNING, error=exc)
        except Exception as exc:  # a fault of ours in one round must not end all schedules
            registered = False
            log_action(logger, "scheduler_failed", level=logging.ERROR, exc_info=True, error=exc)
        stop.wait(TICK_S)
    with contextlib.suppress(RedisError):
        scheduler.register_death()


def _follow(scheduler: CronScheduler, schedules: Sequence[Schedule]) -> None:
    """Keep the clocks of schedules that stay; begin and end those that come and go."""
    jobs = scheduler.get_jobs()
    running = {job.schedule.name: job for job in jobs if isinstance(job, _JsonCronJob)}
    followed = []
    for schedule in schedules:
        job = running.get(schedule.name)
        if job is not None and job.schedule == schedule:
            followed.append(job)
            continue
        try:
            followed.append(_JsonCronJob(schedule))
        except ValueError as exc:  # one bad schedule must not stop the others
            log_action(logger, "schedule_skipped", level=logging.ERROR, schedule=schedule.name, error=exc)
    jobs[:] = followed
