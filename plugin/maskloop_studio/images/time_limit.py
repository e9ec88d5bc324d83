"""When the work of one request must end: at its deadline, or as soon as its client is gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any, TypeVar

__all__ = ["TimeLimit"]

Value = TypeVar("Value")


class TimeLimit:
    """Shared by the thread that works and the event loop that watches the connection."""

    def __init__(self, seconds: float | None = None) -> None:
        """Start the clock; without `seconds` only `end` ends the work."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._client_gone: Future[None] = Future()

    def end(self) -> None:
        """End the work now: the client is gone. May be called more than once."""
        with contextlib.suppress(InvalidStateError):
            self._client_gone.set_result(None)

    @property
    def is_client_gone(self) -> bool:
        """Whether `end` was called."""
        return self._client_gone.done()

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None where there is no deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether no more work may be done."""
        return self.is_client_gone or self.left_s == 0.0

    def wait(self, futures: Iterable[Future[Value]]) -> set[Future[Value]]:
        """Return those futures that are done, as soon as one is; none of them where the limit comes first."""
        wanted = set(futures)
        either: set[Future[Any]] = {*wanted, self._client_gone}
        wait(either, timeout=self.left_s, return_when=FIRST_COMPLETED)
        return {future for future in wanted if future.done()}
