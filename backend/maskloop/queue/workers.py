"""RQ workers, one process each: training forks for every job, the others stay warm."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker, Worker
from rq.cron import CronScheduler
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from maskloop.errors import QueueError
from maskloop.log import log_action
from maskloop.processes import own_environment
from maskloop.queue.allowed_job import AllowedJob, allow_functions, delete_job
from maskloop.queue.spec import QueueName
from maskloop.queue.valkey import ask_queue

__all__ = [
    "WorkerState",
    "default_queues",
    "has_gpu",
    "has_live_scheduler",
    "has_live_worker",
    "keep_working",
    "run_worker",
    "served_queues",
    "worker_states",
]

# A killed job must continue within seconds; RQ's own defaults take minutes.
MONITORING_S = 5
MAINTENANCE_S = 15
WORKER_TTL_S = 60
SCHEDULER_FRESH = timedelta(seconds=30)  # a heartbeat comes every second
GPU_TIMEOUT_S = 120
QUEUE_RETRY_S = 2.0
TRAINING_NICENESS = 10  # Label Studio waits one second for a webhook; a training is not urgent
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A worker as it is registered in the queue."""

    name: str
    host: str
    pid: int | None
    queues: tuple[str, ...]
    state: str  # RQ's word: busy, idle, suspended
    job: str | None  # its name in the queue
    heartbeat_at: datetime | None  # aware


class _WorkerRules:
    """Mixed into RQ's workers: refuses jobs that are not ours, and stops also while the queue is away."""

    was_stopped = False

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.was_stopped = self._stop_requested = True
        super().request_stop(signum, frame)  # type: ignore[misc]

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        # RQ raises in its signal handler: where that was caught by whoever ran just then, it would wait for
        # a queue that is away, and never look whether it was told to stop.
        if self.was_stopped and self.get_state() != WorkerStatus.BUSY:  # type: ignore[attr-defined]
            raise StopRequested
        super().heartbeat(*args, **kwargs)  # type: ignore[misc]

    def set_shutdown_requested_date(self) -> None:
        with contextlib.suppress(RedisError):
            super().set_shutdown_requested_date()  # type: ignore[misc]

    def execute_job(self, job: Job, queue: Queue) -> None:
        reason = job.refusal() if isinstance(job, AllowedJob) else "a job of another class"
        if reason is None:
            super().execute_job(job, queue)  # type: ignore[misc]
            return
        log_action(
            logger, "job_refused", level=logging.WARNING, job_id=job.id, queue=queue.name, reason=reason
        )
        queue.intermediate_queue.remove(job.id)
        delete_job(job)


class _ForkingWorker(_WorkerRules, Worker):
    """A process for every job."""


class _WarmWorker(_WorkerRules, SimpleWorker):
    """One process for all jobs."""


def keep_working(connection: Redis, queues: Sequence[QueueName], *, functions: Mapping[str, str]) -> None:
    """Work until SIGTERM or SIGINT; where the queue goes away, wait for it. See `run_worker`."""
    if QueueName.TRAIN in queues:
        os.nice(TRAINING_NICENESS)
    while True:
        try:
            run_worker(connection, queues, functions=functions)
        except QueueError as exc:
            log_action(logger, "queue_unreachable", level=logging.WARNING, error=exc)
            # RQ's signal handlers belong to the worker that has ended.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            time.sleep(QUEUE_RETRY_S)
        else:
            return


def run_worker(
    connection: Redis, queues: Sequence[QueueName], *, functions: Mapping[str, str], burst: bool = False
) -> None:
    """Work until SIGTERM or SIGINT; the job in hand is finished first.

    Training gets a process of its own for every job, so nothing of torch may be imported before the fork;
    the other queues keep one warm process.

    Args:
        connection: the queue's server.
        queues: which queues, the most urgent first.
        functions: name in the queue -> dotted name of the function that runs. A job with any other function,
            with a callback or with a webhook is logged and deleted.
        burst: end when the queues are empty.

    Raises:
        QueueError: the queue went away.
    """
    kind = _ForkingWorker if QueueName.TRAIN in queues else _WarmWorker
    worker = None
    try:
        worker = kind(
            [name.value for name in queues],
            connection=connection,
            serializer=JSONSerializer,
            job_class=allow_functions(functions),
            job_monitoring_interval=MONITORING_S,
            maintenance_interval=MAINTENANCE_S,
            worker_ttl=WORKER_TTL_S,
        )
        logging.getLogger("rq.worker").setLevel(logging.WARNING)
        worker.work(burst=burst, logging_level="WARNING")
    except RedisError as exc:
        if worker is not None and worker.was_stopped:
            return
        raise QueueError(
            f"worker for {', '.join(queues)}",
            expected="a Redis or Valkey that answers",
            got=f"{type(exc).__name__}: {exc}",
            remedy="start it, then this worker again; `maskloop up` does so by itself",
        ) from exc


def default_queues() -> tuple[QueueName, ...]:
    """Return the queues for a worker of this machine: train where there is a GPU, else intake and predict."""
    return (QueueName.TRAIN,) if has_gpu() else (QueueName.INTAKE, QueueName.PREDICT)


def has_gpu() -> bool:
    """Return whether torch sees a GPU here; found out in another process, since this one may fork."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, a fixed line
            [sys.executable, "-c", code],
            capture_output=True,
            env=own_environment(),
            timeout=GPU_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def has_live_worker(connection: Redis) -> bool:
    """Return whether a worker of this machine is registered in the queue and its process runs.

    A busy worker counts as alive however long its job takes: its process is checked, not its last heartbeat.

    Raises:
        QueueError: the queue does not answer.
    """
    here = socket.gethostname()
    return any(
        worker.hostname == here and _runs(worker.pid)
        for worker in ask_queue(lambda: Worker.all(connection=connection, serializer=JSONSerializer))
    )


def served_queues(connection: Redis) -> Counter[str]:
    """Return how many workers are registered for each queue, on all machines.

    Workers of this machine count only while their process runs; one that died on another machine counts for
    up to a minute.

    Raises:
        QueueError: the queue does not answer.
    """
    here = socket.gethostname()
    return Counter(
        name
        for worker in ask_queue(lambda: Worker.all(connection=connection, serializer=JSONSerializer))
        if worker.hostname != here or _runs(worker.pid)
        for name in worker.queue_names()
    )


def worker_states(connection: Redis) -> list[WorkerState]:
    """Return the registered workers of all machines, by host and name; see `served_queues` of the dead ones.

    Raises:
        QueueError: the queue does not answer.
    """
    here = socket.gethostname()
    found = ask_queue(
        lambda: [
            _worker_state(worker)
            for worker in Worker.all(connection=connection, serializer=JSONSerializer)
            if worker.hostname != here or _runs(worker.pid)
        ]
    )
    return sorted(found, key=lambda one: (one.host, one.name))


def _worker_state(worker: BaseWorker) -> WorkerState:
    heartbeat = worker.last_heartbeat
    if heartbeat is not None and heartbeat.tzinfo is None:
        heartbeat = heartbeat.replace(tzinfo=UTC)
    return WorkerState(
        name=worker.name,
        host=str(worker.hostname or ""),
        pid=worker.pid,
        queues=tuple(worker.queue_names()),
        state=str(getattr(worker.get_state(), "value", worker.get_state())),
        job=worker.get_current_job_id(),
        heartbeat_at=heartbeat,
    )


def has_live_scheduler(connection: Redis) -> bool:
    """Return whether a scheduler of this machine sent a heartbeat lately; see `has_live_worker`."""
    here = socket.gethostname()
    return any(
        scheduler.hostname == here
        and scheduler.last_heartbeat is not None
        and now() - scheduler.last_heartbeat < SCHEDULER_FRESH
        for scheduler in ask_queue(lambda: CronScheduler.all(connection))
    )


def _runs(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True
