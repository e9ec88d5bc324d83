"""A bound on the bytes that many threads hold at once."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

__all__ = ["MemoryBudget", "MemoryShares"]

LOOK_S = 0.25  # how often a waiting thread looks whether its work is still wanted
MB = 1 << 20


class MemoryBudget:
    """Counts bytes; threads that want more than is free wait, the one that came first goes first."""

    def __init__(self, total_bytes: int) -> None:
        self._total, self._held = total_bytes, 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def total_bytes(self) -> int:
        """The bound."""
        return self._total

    @property
    def held_bytes(self) -> int:
        """What is held now."""
        return self._held

    def acquire(self, size_bytes: int, *, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Hold bytes, at most the whole budget, as soon as they are free.

        Args:
            size_bytes: how many; more than the whole budget count as the whole budget.
            is_over: whether the work is no longer wanted; asked every quarter of a second.

        Returns:
            Whether they are held now; False only where `is_over` was true first.
        """
        size_bytes = min(size_bytes, self._total)
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._held + size_bytes > self._total:
                    if is_over():
                        return False
                    self._changed.wait(LOOK_S)
                self._held += size_bytes
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def try_acquire(self, size_bytes: int) -> bool:
        """Hold bytes where they are free now and nothing waits for some; return whether they are held."""
        with self._changed:
            if self._waiting or self._held + size_bytes > self._total:
                return False
            self._held += size_bytes
            return True

    def release(self, size_bytes: int) -> None:
        """Give back bytes that are held, as many as were acquired."""
        with self._changed:
            self._held -= min(size_bytes, self._total)
            self._changed.notify_all()

    @contextlib.contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Hold bytes for a block, which waits for them."""
        self.acquire(size_bytes)
        try:
            yield
        finally:
            self.release(size_bytes)


@dataclass(frozen=True, kw_only=True)
class MemoryShares:
    """The budgets of one process: no work holds one of them while it waits for the one before."""

    body_bytes: int  # request bodies as they come
    trees: MemoryBudget  # JSON of prediction requests
    files: MemoryBudget  # image files, from their download to their prediction
    pixels: MemoryBudget  # images that are decoded, and predictions that are made masks of

    @classmethod
    def of(cls, memory_mb: int) -> Self:
        """Divide `MASKLOOP_MEMORY_MB`."""
        twelfth = memory_mb * MB // 12
        return cls(
            body_bytes=twelfth,
            trees=MemoryBudget(2 * twelfth),
            files=MemoryBudget(3 * twelfth),
            pixels=MemoryBudget(6 * twelfth),
        )
