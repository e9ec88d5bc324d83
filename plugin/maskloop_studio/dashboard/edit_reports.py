"""Reports of edits, kept while a project's annotations stay as they are: they read every correction."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop_studio.projects.edit_report import ProjectReport, report_project

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store

__all__ = ["EditReports"]

MOST_PROJECTS = 64
KEPT_S = 300.0  # masks that are derived again leave the stamp as it is


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
        self._lock = threading.Lock()

    def of(self, project_id: int, store: Store) -> ProjectReport:
        """Return what annotators did to a project's predictions.

        Raises:
            StoreError: the database does not answer.
        """
        stamp = store.overview.corrections_stamp(project_id)
        with self._lock:
            kept = self._kept.get(project_id)
            if kept is None or kept.stamp != stamp or self._clock_s() - kept.made_s > KEPT_S:
                report = report_project(project_id, corrections=store.corrections, settings=self._settings)
                kept = _Kept(stamp=stamp, made_s=self._clock_s(), report=report)
                self._kept[project_id] = kept
            self._kept.move_to_end(project_id)
            while len(self._kept) > MOST_PROJECTS:
                self._kept.popitem(last=False)
        return kept.report
