"""Reports that read a whole project: made in a thread of their own, and kept while it stays as it is.

Requests wait for one only for a moment, so that none of them holds a thread that other requests need.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from maskloop_studio.errors import OverloadedError

__all__ = ["KEPT_S", "KeptReports"]

Report = TypeVar("Report")
MOST_PROJECTS = 256  # no fewer than have metrics
KEPT_S = 300.0  # what changes without the stamp is seen after this time
PATIENCE_S = 2.0  # of a request


@dataclass(frozen=True, kw_only=True)
class _Kept(Generic[Report]):
    stamp: Hashable
    made_s: float  # by the monotonic clock
    report: Report


class KeptReports(Generic[Report]):
    """Reports of one kind; one per process, safe from any thread. One report is made at a time."""

    def __init__(
        self,
        what: str,
        make: Callable[[int], Report],
        stamp: Callable[[int], Hashable],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        what: what it is a report of, for messages.
        make: returns the report of a project.
        stamp: returns what changes whenever the report does, quickly.
        clock_s: a clock that only goes forward.
        """
        self._what, self._make, self._stamp, self._clock_s = what, make, stamp, clock_s
        self._kept: OrderedDict[int, _Kept[Report]] = OrderedDict()
        self._making: dict[int, Future[_Kept[Report]]] = {}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, f"report of {what}")

    def of(self, project_id: int, *, patience_s: float = PATIENCE_S) -> Report:
        """Return the report of a project.

        Raises:
            OverloadedError: it is still being made; a later call finds it.
            MaskloopError: what making it raised.
        """
        stamp = self._stamp(project_id)
        with self._lock:
            kept = self._kept.get(project_id)
            if kept is not None and kept.stamp == stamp and self._clock_s() - kept.made_s <= KEPT_S:
                return kept.report
            making = self._making.get(project_id)
            if making is None:
                making = self._thread.submit(self._make_one, project_id, stamp)
                self._making[project_id] = making
        wait([making], timeout=patience_s)
        if not making.done():
            raise OverloadedError(
                f"project {project_id}, report of {self._what}",
                expected=f"a report within {patience_s:.0f} s",
                got="one that is still being made",
                remedy="it appears by itself in a moment, or reload the page",
            )
        return making.result().report

    def soon(self, project_id: int) -> Report | None:
        """Return the report where it is kept, maybe an older one; else None, and it is begun to be made.

        Raises:
            MaskloopError: what finding the stamp or making it raised.
        """
        try:
            return self.of(project_id, patience_s=0.0)
        except OverloadedError:
            with self._lock:
                kept = self._kept.get(project_id)
            return None if kept is None else kept.report

    def _make_one(self, project_id: int, stamp: Hashable) -> _Kept[Report]:
        try:
            kept = _Kept(stamp=stamp, made_s=self._clock_s(), report=self._make(project_id))
            with self._lock:
                self._kept[project_id] = kept
                self._kept.move_to_end(project_id)
                while len(self._kept) > MOST_PROJECTS:
                    self._kept.popitem(last=False)
            return kept
        finally:
            with self._lock:
                self._making.pop(project_id, None)
