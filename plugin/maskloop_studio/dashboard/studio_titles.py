"""Titles of projects as Label Studio has them now; a page waits for them only for a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError

if TYPE_CHECKING:
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["StudioTitles"]

FRESH_S = 60.0
PATIENCE_S = 0.4
MOST = 2000
THREADS = 4


class StudioTitles:
    """One per process; safe from any thread."""

    def __init__(
        self, client: Callable[[], StudioClient], *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._clock_s = client, clock_s
        self._titles: dict[int, tuple[str, float]] = {}
        self._asked: dict[int, Future[None]] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, "titles")

    def of(self, project_ids: Sequence[int], *, patience_s: float = PATIENCE_S) -> dict[int, str]:
        """Return number -> title of those that are known; others are fetched and known at a later call."""
        with self._lock:
            fresh_after = self._clock_s() - FRESH_S
            stale = [
                number
                for number in project_ids
                if number not in self._asked and self._titles.get(number, ("", -1e12))[1] < fresh_after
            ]
            for number in stale:
                self._asked[number] = self._threads.submit(self._fetch, number)
            asked = [self._asked[number] for number in project_ids if number in self._asked]
        wait(asked, timeout=patience_s)
        with self._lock:
            return {
                number: title for number in project_ids if (title := self._titles.get(number, ("", 0))[0])
            }

    def close(self) -> None:
        """Fetch no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, number: int) -> None:
        title = self._titles.get(number, ("", 0.0))[0]
        try:
            project = self._client().find_project(number)
            title = "" if project is None else project.title
        except MaskloopError:  # the page goes without the title; other checks say what is wrong
            pass
        finally:
            with self._lock:
                if len(self._titles) >= MOST:
                    self._titles.clear()
                self._titles[number] = (title, self._clock_s())
                self._asked.pop(number, None)
