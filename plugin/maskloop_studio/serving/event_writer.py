"""Writes events to the database: all that wait are written in one transaction, then answered.

A commit costs the same for one event as for a hundred, so under load they share it. An event is answered once
it is durable; the queue is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from maskloop.store.jobs import JobKind, NewEvent
from maskloop_studio.dispatch import find_same_training
from maskloop_studio.errors import OverloadedError

if TYPE_CHECKING:
    from maskloop.store.database import Store
    from maskloop_studio.serving.outbox import Outbox

__all__ = ["EventWriter"]

logger = logging.getLogger(__name__)
MAX_WAITING = 5_000  # events; Label Studio stops waiting after a second
MAX_BATCH = 500
PAUSE_S = 0.01  # from one commit to the next: events that come meanwhile share it
Result = TypeVar("Result")


class EventWriter:
    """Lives on one event loop, from `start` to `stop`."""

    def __init__(self, store: Callable[[], Store], outbox: Outbox) -> None:
        """Args:
        store: the database; opened at the first use, in the writer's thread.
        outbox: puts the jobs of written events on the queue.
        """
        self._store, self._outbox = store, outbox
        self._waiting: list[tuple[NewEvent, asyncio.Future[int | None]]] = []
        self._some = asyncio.Event()
        self._ending = False
        self._executor = ThreadPoolExecutor(1, "event-writer")
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._write_all())

    async def stop(self) -> None:
        """Write and answer all accepted events, and end."""
        self._ending = True
        self._some.set()
        if self._writer is not None:
            await self._writer
        self._executor.shutdown()

    async def add(self, event: NewEvent) -> int | None:
        """Keep an event; return its number once it is durable, None where it was known already.

        Raises:
            OverloadedError: too many wait, or the server ends.
            StoreError: the database cannot keep it.
        """
        if self._ending or len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(
                "webhook",
                expected=f"at most {MAX_WAITING} events that wait for the database",
                got="a server that ends" if self._ending else "more",
                remedy="send it again; what is missed meanwhile is found by the next `maskloop sync`",
            )
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        self._some.set()
        return await future

    async def want_training(self, project_id: int, reason: str) -> int:
        """Ask for a training; return its number once that is durable.

        Raises:
            StoreError: the database cannot keep it.
        """
        number = await self._in_thread(lambda: self._request_training(project_id, reason))
        self._outbox.put([(JobKind.TRAINING, number)])
        return number

    def _request_training(self, project_id: int, reason: str) -> int:
        store = self._store()
        running = find_same_training(project_id, store)
        return store.jobs.request(JobKind.TRAINING, project_id, reason) if running is None else running

    async def _write_all(self) -> None:
        while self._waiting or not self._ending:
            if not self._waiting:
                self._some.clear()
                await self._some.wait()
                continue
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._write(batch)
            if not self._ending:
                await asyncio.sleep(PAUSE_S)

    async def _write(self, batch: list[tuple[NewEvent, asyncio.Future[int | None]]]) -> None:
        events = [event for event, _ in batch]
        try:
            numbers = await self._in_thread(lambda: self._store().jobs.add_events(events))
        except Exception as exc:
            # Of any kind: each waiting request gets it, and the next batch has its turn.
            for _, future in batch:
                with contextlib.suppress(asyncio.InvalidStateError):  # the client is gone
                    future.set_exception(exc)
            return
        for (_, future), number in zip(batch, numbers, strict=True):
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(number)
        self._outbox.put([(JobKind.EVENT, number) for number in numbers if number is not None])

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
