"""Names of annotators as Label Studio has them now; a page waits for them only for a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop_studio.projects.annotators import studio_names

if TYPE_CHECKING:
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["StudioPeople"]

FRESH_S = 300.0
PATIENCE_S = 1.0


class StudioPeople:
    """One per process; safe from any thread."""

    def __init__(
        self, client: Callable[[], StudioClient], *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._clock_s = client, clock_s
        self._names: Mapping[int, str] = {}
        self._asked: Future[None] | None = None
        self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, "people")

    def names(self, *, patience_s: float = PATIENCE_S) -> Mapping[int, str]:
        """Return user number -> name; what Label Studio does not say in time is known at a later call."""
        with self._lock:
            if self._asked is None and self._clock_s() - self._asked_at > FRESH_S:
                self._asked_at = self._clock_s()
                self._asked = self._threads.submit(self._fetch)
            asked = self._asked
        if asked is not None:
            wait([asked], timeout=patience_s)
        with self._lock:
            return self._names

    def close(self) -> None:
        """Fetch no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fetch(self) -> None:
        try:
            found = studio_names(self._client())
            with self._lock:
                self._names = found
        except MaskloopError:  # the page has numbers then; other checks say what is wrong
            pass
        finally:
            with self._lock:
                self._asked = None
