"""What to label next: classes by their score on the holdout, and what more objects of them would gain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from maskloop.types import version_number

if TYPE_CHECKING:
    from maskloop.store.corrections import CorrectionRepository
    from maskloop.store.trainings import Training
    from maskloop.types import ModelVersion

__all__ = ["JudgedVersion", "WeakClass", "judged_versions", "learnt_objects", "weak_classes"]

AIM = 0.05  # of the score: how many more objects would bring so much
LEAST_POINTS = 3  # versions with different numbers of objects
LEAST_SLOPE = 0.005  # of the score a doubling: less is taken for none
MOST_FACTOR = 8.0  # a curve is not followed further than this many times the objects
VERSIONS_AT_ONCE = 200  # annotations whose masks are in memory


@dataclass(frozen=True, kw_only=True)
class JudgedVersion:
    """One version as a training judged it."""

    number: int
    tag: str
    scores: Mapping[str, tuple[float, float | None, float | None]]  # class -> score, 90 % interval; 0..1


@dataclass(frozen=True, kw_only=True)
class WeakClass:
    """One class of the newest judged version."""

    label: str
    score: float  # mean of AP50, PQ and IoU, 0..1
    low: float | None  # 90 % interval; None: too few images, or judged by an older maskloop
    high: float | None
    objects: int  # that the version has learnt from
    per_doubling: float | None  # of the score, by the project's own versions; None: too few of them
    needed: int | None  # more objects for five points more; None: not known, or more than eight times as many

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return asdict(self)


def judged_versions(trainings: Iterable[Training]) -> list[JudgedVersion]:
    """Return the versions whose classes were judged, by number; what is damaged in an outcome is left out."""
    found: dict[int, JudgedVersion] = {}
    for training in trainings:
        outcome = training.outcome or {}
        tag, decision = str(outcome.get("version") or ""), outcome.get("decision")
        number = version_number(tag)
        if not (number and isinstance(decision, Mapping)):
            continue
        scores = {}
        for one in (*_list(decision.get("classes")), *_list(decision.get("new_classes"))):
            score = _number(one.get("after"))
            if score is not None and isinstance(one.get("label"), str):
                bounds = one.get("interval")
                low, high = bounds if isinstance(bounds, list) and len(bounds) == 2 else (None, None)
                scores[one["label"]] = (score, _number(low), _number(high))
        if scores:
            found[number] = JudgedVersion(number=number, tag=tag, scores=scores)
    return [found[number] for number in sorted(found)]


def learnt_objects(
    versions: Sequence[ModelVersion], numbers: Iterable[int], corrections: CorrectionRepository
) -> dict[int, Counter[str]]:
    """Return version number -> label -> objects that it was trained on, by its data set.

    Args:
        versions: of the project.
        numbers: which of them.
        corrections: where the annotations are.
    """
    from maskloop.learning.data.snapshot import SnapshotManifest
    from maskloop.learning.registry.model_card import SNAPSHOT_FILE

    rows: dict[int, tuple[int, ...]] = {}
    for version in versions:
        path = version.path / SNAPSHOT_FILE
        if version.number in set(numbers) and path.exists():
            rows[version.number] = SnapshotManifest.read(path).version_ids("train")
    wanted = sorted({row for some in rows.values() for row in some})
    counts: dict[int, Counter[str]] = {}
    for start in range(0, len(wanted), VERSIONS_AT_ONCE):
        for one in corrections.at(wanted[start : start + VERSIONS_AT_ONCE]):
            counts.setdefault(one.version_id, Counter()).update(part.label for part in one.segments)
    return {
        number: sum((counts.get(row, Counter()) for row in some), Counter()) for number, some in rows.items()
    }


def weak_classes(
    judged: Sequence[JudgedVersion], objects: Mapping[int, Mapping[str, int]]
) -> list[WeakClass]:
    """Return the classes of the newest judged version, the weakest first.

    What more objects would gain is read off the line of the score over the doublings of the objects, through
    the project's own versions.

    Args:
        judged: as `judged_versions` returns them.
        objects: as `learnt_objects` returns them.
    """
    if not judged:
        return []
    newest = judged[-1]
    found = []
    for label, (score, low, high) in newest.scores.items():
        points = [
            (count, one.scores[label][0])
            for one in judged
            if label in one.scores and (count := _count(objects.get(one.number, {}), label)) > 0
        ]
        count = _count(objects.get(newest.number, {}), label)
        slope = _per_doubling(points)
        found.append(
            WeakClass(
                label=label,
                score=score,
                low=low,
                high=high,
                objects=count,
                per_doubling=slope,
                needed=_needed(count, slope),
            )
        )
    return sorted(found, key=lambda one: (one.score, one.label))


def _per_doubling(points: Sequence[tuple[int, float]]) -> float | None:
    if len({count for count, _ in points}) < LEAST_POINTS:
        return None
    doublings = [math.log2(count) for count, _ in points]
    scores = [score for _, score in points]
    middle, mean = sum(doublings) / len(doublings), sum(scores) / len(scores)
    spread = sum((one - middle) ** 2 for one in doublings)
    return sum((one - middle) * (score - mean) for one, score in zip(doublings, scores, strict=True)) / spread


def _needed(count: int, slope: float | None) -> int | None:
    if slope is None or slope < LEAST_SLOPE or count == 0:
        return None
    doublings = AIM / slope
    return math.ceil(count * (2**doublings - 1) - 1e-6) if doublings <= math.log2(MOST_FACTOR) else None


def _count(objects: Mapping[str, int], label: str) -> int:
    """Return a class's objects: its label's, or those of a label that differs in case only."""
    if label in objects:
        return objects[label]
    return sum(count for name, count in objects.items() if name.casefold() == label.casefold())


def _list(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]
