"""Puts jobs whose rows are durable on the queue, in a thread of its own: no request waits for the queue."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from maskloop.errors import QueueError
from maskloop.log import log_action
from maskloop.store.jobs import JobKind
from maskloop_studio.dispatch import job_spec

if TYPE_CHECKING:
    from maskloop.queue.spec import JobQueue

__all__ = ["Outbox"]

logger = logging.getLogger(__name__)
MAX_WAITING = 10_000
PAUSE_S = 1.0  # after the queue did not answer


class Outbox:
    """A job that cannot be queued now waits in the database; the scheduler queues it later."""

    def __init__(self, queue: Callable[[], JobQueue]) -> None:
        """Args:
        queue: the job queue; connected at the first use.
        """
        self._queue = queue
        self._waiting: deque[tuple[JobKind, int]] = deque(maxlen=MAX_WAITING)
        self._changed = threading.Condition()
        self._ending = False
        # A daemon: a queue that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._silent_until = 0.0

    def start(self) -> None:
        """Begin to queue jobs."""
        self._thread.start()

    def put(self, jobs: list[tuple[JobKind, int]]) -> None:
        """Queue jobs soon; return at once."""
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify()

    def stop(self, *, patience_s: float = 2.0) -> None:
        """Queue what waits, for `patience_s` seconds at the most, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                kind, job_id = self._waiting.popleft()
            self._enqueue(kind, job_id)

    def _enqueue(self, kind: JobKind, job_id: int) -> None:
        if time.monotonic() < self._silent_until:
            return
        try:
            self._queue().enqueue(job_spec(kind, job_id))
        except QueueError as exc:
            self._silent_until = time.monotonic() + PAUSE_S
            log_action(logger, "queue_unreachable", level=logging.WARNING, job_id=job_id, error=exc)
        except Exception:
            # The thread outlives any fault of one job; the job itself waits in the database.
            log_action(
                logger,
                "job_not_queued",
                level=logging.ERROR,
                exc_info=True,
                job_id=f"{kind.value}-{job_id}",
            )
