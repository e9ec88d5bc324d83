"""When the work of one request must end: at its deadline, or as soon as its client is gone."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any, TypeVar

from maskloop_studio.images.deadline import FetchLimit

__all__ = ["TimeLimit"]

Value = TypeVar("Value")


class TimeLimit:
    """Shared by the thread that works and the event loop that watches the connection."""

    def __init__(self, seconds: float | None = None) -> None:
        """Start the clock; without `seconds` only `end` ends the work."""
        self.fetches = FetchLimit() if seconds is None else FetchLimit().within(seconds)  # end with it
        self._client_gone: Future[None] = Future()  # wakes `wait`

    def end(self) -> None:
        """End the work now: the client is gone. May be called more than once."""
        self.fetches.cancelled.set()
        with contextlib.suppress(InvalidStateError):
            self._client_gone.set_result(None)

    @property
    def is_client_gone(self) -> bool:
        """Whether `end` was called."""
        return self.fetches.is_cancelled

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None where there is no deadline."""
        left_s = self.fetches.deadline - time.monotonic()
        return max(0.0, left_s) if math.isfinite(left_s) else None

    @property
    def is_over(self) -> bool:
        """Whether no more work may be done."""
        return self.fetches.is_over

    def wait(self, futures: Iterable[Future[Value]]) -> set[Future[Value]]:
        """Return those futures that are done, as soon as one is; none of them where the limit comes first."""
        wanted = set(futures)
        either: set[Future[Any]] = {*wanted, self._client_gone}
        wait(either, timeout=self.left_s, return_when=FIRST_COMPLETED)
        return {future for future in wanted if future.done()}
