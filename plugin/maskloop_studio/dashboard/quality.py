"""Outcomes of trainings -> quality by version, of all classes and of each, with the interval of its gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from maskloop.types import version_number

if TYPE_CHECKING:
    from maskloop.store.trainings import Training

__all__ = ["ClassScores", "QualityPoint", "class_scores", "quality_points"]

SCORE_PARTS = ("ap50", "pq", "iou")  # a class's score is the mean of these, as the gate's
MAX_CLASSES = 50  # of one table


@dataclass(frozen=True, kw_only=True)
class QualityPoint:
    """A version as it was judged on the holdout; 0..1, None where it was not."""

    version: str  # tag
    number: int
    base: str  # tag of the version that it was compared with
    training_id: int
    at: datetime | None
    release: str  # promoted, waiting, shadow or refused
    reason: str
    images: int  # of the holdout
    before: float | None = None  # score of the version that it was compared with, on the same images
    score: float | None = None  # mean of AP50, PQ and IoU over the compared classes
    low: float | None = None  # `before` plus the bounds of the gain's interval
    high: float | None = None
    ap50: float | None = None
    pq: float | None = None
    miou: float | None = None
    by_class: Mapping[str, float] = field(default_factory=dict)  # class -> score


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """One class in the newest versions; None where it was not judged."""

    label: str
    scores: tuple[float | None, ...]  # of each version
    change: float | None  # newest minus the one before it


def quality_points(trainings: Sequence[Training]) -> list[QualityPoint]:
    """Return the versions that trainings made, in the order of their numbers; others are left out.

    Outcomes are read as they were stored: what is missing or damaged in one of them is None.
    """
    found = [point for training in trainings if (point := _point(training)) is not None]
    return sorted(found, key=lambda point: (point.number, point.training_id))


def class_scores(points: Sequence[QualityPoint]) -> list[ClassScores]:
    """Return each class of the newest version, worst first."""
    if not points:
        return []
    newest = points[-1].by_class
    rows = []
    for label in sorted(newest, key=lambda name: (newest[name], name))[:MAX_CLASSES]:
        scores = tuple(point.by_class.get(label) for point in points)
        before = scores[-2] if len(scores) > 1 else None
        rows.append(
            ClassScores(label=label, scores=scores, change=None if before is None else newest[label] - before)
        )
    return rows


def _point(training: Training) -> QualityPoint | None:
    outcome = training.outcome or {}
    tag = str(outcome.get("version") or "")
    if not version_number(tag):
        return None
    decision, metrics = _table(outcome.get("decision")), _table(outcome.get("challenger_metrics"))
    before = _number(decision.get("before"))
    interval = decision.get("interval")
    bounds = interval if isinstance(interval, list) and len(interval) == 2 else [None, None]
    low, high = (_sum(before, _number(bound)) for bound in bounds)
    images = _number(outcome.get("holdout_images"))
    return QualityPoint(
        version=tag,
        number=version_number(tag),
        base=str(outcome.get("base") or ""),
        training_id=training.training_id,
        at=training.finished_at,
        release=str(outcome.get("release") or ("promoted" if outcome.get("promoted") else "refused")),
        reason=str(outcome.get("reason") or ""),
        images=int(images or 0),
        before=before,
        score=_number(decision.get("after")),
        low=low,
        high=high,
        ap50=_number(metrics.get("ap50")),
        pq=_number(metrics.get("pq")),
        miou=_number(metrics.get("miou")),
        by_class=_by_class(_table(metrics.get("per_class"))),
    )


def _by_class(per_class: Mapping[str, Any]) -> dict[str, float]:
    scores = {}
    for label, numbers in per_class.items():
        parts = [_number(_table(numbers).get(name)) for name in SCORE_PARTS]
        known = [part for part in parts if part is not None]
        if known:
            scores[label] = sum(known) / len(known)
    return scores


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
