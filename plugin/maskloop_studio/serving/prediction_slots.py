"""Threads of their own for predictions: a bounded number works, a bounded number waits, the rest gets 503.

Webhooks, health, setup and the status page use other threads, so they never wait for a prediction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from maskloop_studio.errors import ClientGoneError, OverloadedError
from maskloop_studio.images.time_limit import TimeLimit

__all__ = ["PredictionSlots"]

Result = TypeVar("Result")


class PredictionSlots:
    """Lives on one event loop."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        """Args:
        at_once: requests that are worked on at the same time, at least 1.
        waiting: requests that wait for one of them to end; any more are refused.
        """
        self._at_once, self._most = at_once, at_once + waiting
        self._free = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, "predict")
        self._accepted = 0

    @property
    def accepted(self) -> int:
        """Requests that are worked on or wait."""
        return self._accepted

    @property
    def at_once(self) -> int:
        """Requests that can be worked on at the same time."""
        return self._at_once

    def close(self) -> None:
        """Start no more work; what runs goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(
        self,
        work: Callable[[TimeLimit], Result],
        *,
        limit: TimeLimit,
        disconnect: Callable[[], Awaitable[None]],
    ) -> Result:
        """Do one request's work in a thread and return its result.

        Args:
            work: called in a thread; has to look at the limit often.
            limit: of this request; ended here when the client is gone.
            disconnect: waits until the client is gone.

        Raises:
            OverloadedError: too many requests wait already.
            ClientGoneError: the client is gone; the work has stopped, or never began.
        """
        if self._accepted >= self._most:
            raise OverloadedError(
                "predictions",
                expected=f"at most {self._most} requests that are worked on or wait",
                got="more",
                remedy="send it again in a moment, or raise MASKLOOP_PREDICT_REQUESTS",
            )
        self._accepted += 1
        gone = asyncio.ensure_future(disconnect())
        try:
            await self._wait_for_slot(gone)
            try:
                return await self._work(work, limit, gone)
            finally:
                self._free.release()
        finally:
            self._accepted -= 1
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await gone

    async def _wait_for_slot(self, gone: asyncio.Future[None]) -> None:
        slot = asyncio.ensure_future(self._free.acquire())
        try:
            await _first_of(slot, gone)
        except asyncio.CancelledError:
            if not slot.cancel():
                self._free.release()
            raise
        if not slot.done():
            slot.cancel()
            raise _client_gone("before a thread was free")

    async def _work(
        self, work: Callable[[TimeLimit], Result], limit: TimeLimit, gone: asyncio.Future[None]
    ) -> Result:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work, limit)
        try:
            await _first_of(running, gone)
            if not running.done():
                limit.end()
            # The slot is free again only when its thread is: work that overstays counts against the bound.
            result = await asyncio.shield(running)
        except asyncio.CancelledError:
            limit.end()
            await asyncio.wait({running})
            raise
        if limit.is_client_gone:
            raise _client_gone("while it was worked on")
        return result


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _client_gone(when: str) -> ClientGoneError:
    return ClientGoneError(
        "predictions",
        expected="a client that waits for the answer",
        got=f"a connection that closed {when}",
        remedy="give the request more time at the client",
    )
