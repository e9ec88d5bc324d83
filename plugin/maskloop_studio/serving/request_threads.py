"""Threads for requests that are no predictions: they never wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

__all__ = ["RequestThreads", "RunInThread"]

Result = TypeVar("Result")


class RunInThread(Protocol):
    """Calls a function in a thread, so that the event loop is free meanwhile."""

    def __call__(self, call: Callable[[], Result], /) -> Awaitable[Result]:
        """Return what the call returns."""
        ...


class RequestThreads:
    """A bounded number of threads for one kind of requests."""

    def __init__(self, count: int, *, name: str) -> None:
        self._threads = ThreadPoolExecutor(count, name)

    async def run(self, call: Callable[[], Result], /) -> Result:
        """Return what the call returns, called in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Start no more calls; what runs goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)
