"""The loop's figures for Prometheus, read from the database when it asks, at most every few seconds.

Names and units follow https://prometheus.io/docs/practices/naming/. Labels are bounded: kinds and states are
fixed, the first 200 projects and 100 classes of each are told; projects left out are counted.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from maskloop.store.edit_rows import EDIT_FIELDS

if TYPE_CHECKING:
    from maskloop.store.database import Store
    from maskloop.store.trainings import Training
    from maskloop_studio.projects.edit_ledger import EditSummary

__all__ = ["LoopCollector"]

MAX_PROJECTS = 200
MAX_CLASSES = 100
MAX_LABEL = 100  # characters of a class's name
FRESH_S = 10.0  # several Prometheus servers, or an impatient one, cost no further queries
TRAINING_DETAILS = (  # metric, help, name in a job's details, factor
    ("training_loss", "Loss of the running training at its last report", "loss", 1.0),
    ("training_images_per_second", "Images a second that it learns from", "images_per_s", 1.0),
    ("training_seconds_left", "Time that it still takes", "eta_s", 1.0),
    ("training_memory_bytes", "The most memory it took: of the GPU where it uses one", "memory_mb", 2.0**20),
)
QUALITY = ("ap50", "pq", "miou", "boundary_iou")


class LoopCollector(Collector):
    """Figures of the whole loop; each server tells the same.

    Args:
        store: the database.
        home: the folder whose disk is looked at.
        edits: returns what annotators did to a project's predictions; None where it is not known yet.
        clock_s: a clock that only goes forward.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        home: Path,
        *,
        edits: Callable[[int], EditSummary | None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._home, self._edits, self._clock_s = store, home, edits, clock_s
        self._read_at, self._found = -math.inf, list[Metric]()

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: registering must not read the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the metrics.

        Raises:
            StoreError: the database does not answer.
        """
        at = self._clock_s()
        if at - self._read_at >= FRESH_S:
            self._found = self._read()
            self._read_at = at
        return list(self._found)

    def _read(self) -> list[Metric]:
        store = self._store()
        counts = store.loop_counts.read()
        known = sorted(store.projects.ids())
        told = frozenset(known[:MAX_PROJECTS])
        summaries = {
            number: summary for number in sorted(told) if (summary := self._edits(number)) is not None
        }
        step = {str(one.project_id): float(one.step) for one in counts.trainings if one.project_id in told}
        steps = {str(one.project_id): float(one.steps) for one in counts.trainings if one.project_id in told}
        details = {str(one.project_id): one.details for one in counts.trainings if one.project_id in told}
        drift = {
            (str(project_id), one.signal): one
            for project_id, states in store.drifts.newest().items()
            if project_id in told
            for one in states
        }
        free = {"home": float(shutil.disk_usage(self._home).free)} if self._home.exists() else {}
        quality, by_class = _quality(store.trainings.of(limit=MAX_PROJECTS * 2), told)
        return [
            _gauge("jobs_by_kind", "Jobs in the database", ("kind", "status"), counts.jobs),
            _gauge("job_due_seconds", "Time that the oldest due job waits", ("kind",), counts.oldest_due_s),
            _gauge("job_leases_lapsed", "Running jobs whose worker is silent", ("kind",), counts.lapsed),
            _gauge(
                "job_lease_overdue_seconds",
                "Time since the oldest lease of a running job ended; below 0 while all workers renew theirs",
                ("kind",),
                counts.overdue_s,
            ),
            _gauge(
                "annotations",
                "Annotations as they stand",
                ("project", "state", "split"),
                {key: count for key, count in counts.annotations.items() if key[0] in told},
            ),
            _gauge(
                "corrected_regions",
                "Predicted regions by what annotators did to them",
                ("project", "edit"),
                {
                    (number, name): sum(getattr(one.edits, name) for one in summary.versions)
                    for number, summary in summaries.items()
                    for name in EDIT_FIELDS
                },
            ),
            _gauge(
                "work_saved",
                "Share of the work that the newest corrected version's predictions save",
                ("project",),
                {
                    number: summary.versions[-1].work_saved
                    for number, summary in summaries.items()
                    if summary.versions and summary.versions[-1].work_saved is not None
                },
            ),
            _gauge("training_step", "Steps of the running training", ("project",), step),
            _gauge("training_steps_planned", "Steps that it will take", ("project",), steps),
            *(
                _gauge(
                    name,
                    text,
                    ("project",),
                    {key: factor * values[stored] for key, values in details.items() if stored in values},
                )
                for name, text, stored, factor in TRAINING_DETAILS
            ),
            _gauge(
                "trainings_ended",
                "Trainings that ended, of those that the database still has",
                ("project", "release"),
                {key: count for key, count in counts.releases.items() if key[0] in told},
            ),
            _gauge(
                "holdout_quality",
                "Serving version on the holdout, 0..1",
                ("project", "version", "metric"),
                quality,
            ),
            _gauge(
                "holdout_class_quality",
                "The same by class",
                ("project", "version", "class", "metric"),
                by_class,
            ),
            _gauge(
                "drift_evidence",
                "Base-10 logarithm of the evidence that new images differ; drift_threshold is the alarm's",
                ("project", "signal"),
                {key: one.evidence for key, one in drift.items()},
            ),
            _gauge(
                "drift_threshold",
                "Of the evidence",
                ("project", "signal"),
                {key: one.threshold for key, one in drift.items()},
            ),
            _gauge(
                "drift_alarm",
                "1: the signal was raised since the present version serves",
                ("project", "signal"),
                {key: float(one.alarms > 0) for key, one in drift.items()},
            ),
            _gauge("disk_free_bytes", "Free space", ("folder",), free),
            _gauge("projects", "Connected projects", (), {(): len(known)}),
            _gauge("projects_left_out", "Projects without metrics", (), {(): len(known) - len(told)}),
        ]


def _quality(
    trainings: Iterable[Training], told: frozenset[int]
) -> tuple[dict[tuple[int, str, str], float], dict[tuple[int, str, str, str], float]]:
    """Return the serving versions' figures, as the newest training that ended well judged them."""
    quality: dict[tuple[int, str, str], float] = {}
    by_class: dict[tuple[int, str, str, str], float] = {}
    newest = {one.project_id: one.outcome for one in trainings if one.outcome and one.project_id in told}
    for project_id, outcome in newest.items():
        side, judged = ("challenger", "version") if outcome.get("promoted") else ("champion", "base")
        metrics, version = outcome.get(f"{side}_metrics"), str(outcome.get(judged) or "")[:MAX_LABEL]
        if not isinstance(metrics, Mapping):
            continue
        for name in QUALITY:
            if isinstance(metrics.get(name), float | int):
                quality[project_id, version, name] = float(metrics[name])
        classes = metrics.get("per_class")
        for label, figures in list(classes.items())[:MAX_CLASSES] if isinstance(classes, Mapping) else ():
            for name, value in figures.items():
                if isinstance(value, float | int):
                    by_class[project_id, version, str(label)[:MAX_LABEL], str(name)] = float(value)
    return quality, by_class


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"maskloop_{name}", text, labels=labels)
    for key, value in values.items():
        parts = key if isinstance(key, tuple) else (key,)
        family.add_metric([str(part) for part in parts], float(value))
    return family
