"""Reports of edits, made in a thread of their own and kept while a project's annotations stay as they are.

A report reads every correction. Requests wait for it only for a moment, so that none of them holds a thread
that other requests need.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop_studio.errors import OverloadedError
from maskloop_studio.projects.edit_report import ProjectReport, report_project

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store

__all__ = ["EditReports"]

MOST_PROJECTS = 64
KEPT_S = 300.0  # masks that are derived again leave the stamp as it is
PATIENCE_S = 2.0  # of a request


@dataclass(frozen=True, kw_only=True)
class _Kept:
    stamp: tuple[int, int]
    made_s: float  # by the monotonic clock
    report: ProjectReport


class EditReports:
    """One per process; safe from any thread. One report is made at a time."""

    def __init__(self, settings: Settings, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock_s = settings, clock_s
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._making: dict[int, Future[_Kept]] = {}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "reports")

    def of(self, project_id: int, store: Store, *, patience_s: float = PATIENCE_S) -> ProjectReport:
        """Return what annotators did to a project's predictions.

        Raises:
            OverloadedError: it is still being made; a later call finds it.
            StoreError: the database does not answer.
        """
        stamp = store.overview.corrections_stamp(project_id)
        with self._lock:
            kept = self._kept.get(project_id)
            if kept is not None and kept.stamp == stamp and self._clock_s() - kept.made_s <= KEPT_S:
                return kept.report
            making = self._making.get(project_id)
            if making is None:
                making = self._thread.submit(self._make, project_id, stamp, store)
                self._making[project_id] = making
        wait([making], timeout=patience_s)
        if not making.done():
            raise OverloadedError(
                f"project {project_id}, report of edits",
                expected=f"a report within {patience_s:.0f} s",
                got="one that is still being made",
                remedy="it appears by itself in a moment, or reload the page",
            )
        return making.result().report

    def _make(self, project_id: int, stamp: tuple[int, int], store: Store) -> _Kept:
        try:
            report = report_project(project_id, corrections=store.corrections, settings=self._settings)
            kept = _Kept(stamp=stamp, made_s=self._clock_s(), report=report)
            with self._lock:
                self._kept[project_id] = kept
                self._kept.move_to_end(project_id)
                while len(self._kept) > MOST_PROJECTS:
                    self._kept.popitem(last=False)
            return kept
        finally:
            with self._lock:
                self._making.pop(project_id, None)
