"""How long a fetch may take, and how its thread is freed early."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

__all__ = ["SLICE_S", "FetchLimit"]

SLICE_S = 0.25  # a wait that cannot be interrupted goes on for so long at most


@dataclass(frozen=True, kw_only=True)
class FetchLimit:
    """The end of a fetch, as a moment and as an event; may be shared by threads."""

    deadline: float = float("inf")  # of time.monotonic()
    cancelled: threading.Event = field(default_factory=threading.Event)  # set to abandon the fetch
    parent: FetchLimit | None = None  # cancelled together with it

    @property
    def is_cancelled(self) -> bool:
        """Whether the fetch was abandoned."""
        return self.cancelled.is_set() or (self.parent is not None and self.parent.is_cancelled)

    @property
    def is_over(self) -> bool:
        """Whether the fetch has to end now."""
        return time.monotonic() >= self.deadline or self.is_cancelled

    def left_s(self, at_most: float | None = None) -> float:
        """Return the seconds that are left, at least a millisecond: sockets take 0 for "do not wait"."""
        left = self.deadline - time.monotonic()
        return max(left if at_most is None else min(left, at_most), 0.001)

    def sleep(self, seconds: float) -> None:
        """Wait, no longer than until the end."""
        limit = self.within(seconds)
        while not limit.is_over:
            self.cancelled.wait(limit.left_s(SLICE_S))

    def share(self, fraction: float) -> FetchLimit:
        """Return a limit with this share of the time that is left."""
        return replace(self, deadline=time.monotonic() + self.left_s() * fraction)

    def within(self, seconds: float) -> FetchLimit:
        """Return a limit that ends in so many seconds, or with this one if that is earlier."""
        return replace(self, deadline=min(self.deadline, time.monotonic() + seconds))

    def child(self) -> FetchLimit:
        """Return a limit that ends with this one, and can be cancelled alone."""
        return FetchLimit(deadline=self.deadline, parent=self)
