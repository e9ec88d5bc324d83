"""From a model's segments on the holdout to the score from which on they are worth drawing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.annotation_cost import (
    DEFAULT_WEIGHTS,
    EditWeights,
    weights_from_settings,
    work_saved,
)
from maskloop.learning.evaluation.calibration import ScoreCalibration, fit_calibration
from maskloop.learning.evaluation.coco_matching import Detections, match_image
from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.region_edits import count_outcomes, trace_segments
from maskloop.learning.evaluation.showing import HIDDEN, Showing, shown_segments
from maskloop.settings import Settings
from maskloop.types import BoolMask, EditCounts, OutcomeName, Prediction, SegmentOutcome

__all__ = ["ShowingRule", "find_showing", "least_worthy_score"]

MIN_REGIONS = 5  # of a class, from a score on: fewer say nothing about what is kept
STEPS = 16  # scores of a class that are tried: each compares all images anew
MAX_IMAGES = 200  # that are compared
IGNORED_SHARE = 0.5  # of a segment in areas that nobody judges: it is left out
STAYING = frozenset({"kept", "nudged", "relabelled"})  # the outline stays, IoU >= .8


@dataclass(frozen=True, kw_only=True)
class ShowingRule:
    """When a segment is worth drawing."""

    kept_share: float = 0.5  # at least this share of what is drawn keeps its outline,
    saving: float = 0.2  # or each drawn segment saves at least this share of the time of drawing an object
    weights: EditWeights = DEFAULT_WEIGHTS

    @classmethod
    def from_settings(cls, settings: Settings) -> ShowingRule:
        """Return the rule of the settings."""
        return cls(
            kept_share=settings.show_share,
            saving=settings.show_saving,
            weights=weights_from_settings(settings.edit_seconds),
        )

    def saved_s(self, outcome: OutcomeName) -> float:
        """Return the seconds that a drawn segment saves against drawing its object on an empty canvas."""
        weights = self.weights
        cost = {
            "kept": 0.0,
            "nudged": weights.nudge,
            "relabelled": weights.relabel,
            "redrawn": weights.redraw,
        }
        return weights.add - cost[outcome] if outcome in cost else -weights.delete

    def is_worthy(self, kept_share: float, saved_s: float) -> bool:
        """Return whether segments are worth drawing.

        Args:
            kept_share: of them, that keep their outline.
            saved_s: mean seconds that one of them saves.
        """
        return saved_s > 0 and (kept_share >= self.kept_share or saved_s >= self.saving * self.weights.add)


def find_showing(
    predictions: Sequence[Prediction],
    truths: Sequence[GroundTruth],
    *,
    labels: Sequence[str],
    rule: ShowingRule,
) -> Showing:
    """Return which segments of a model are worth drawing, and the calibration of its scores.

    For each class, of the scores from which on its segments are worth drawing by the rule, the one is chosen
    that saves most seconds against drawing all objects on an empty canvas, or a lower one that saves about
    as much. A class with fewer than five
    segments takes the score that all classes together have. Where even this is not known, or all that is
    drawn costs more than it saves, nothing is drawn.

    Args:
        predictions: one an image, segments best first.
        truths: one an image, in the same order.
        labels: the model's classes.
        rule: when a segment is worth drawing.

    Raises:
        ResourceError: too many overlapping segments to compare in a few seconds.
    """
    images = _comparable(predictions, truths)
    counts = Counter(one.label for found, _ in images for one in found.segments)
    own = _best_floors(images, [(label,) for label in labels], rule)
    floors = dict(zip(labels, own, strict=True))
    if any(counts[label] < MIN_REGIONS for label in labels):
        (shared,) = _best_floors(images, [tuple(labels)], rule)
        floors |= {label: shared for label in labels if counts[label] < MIN_REGIONS}
    traced = _trace(images, floors)
    drawn = _flat(traced)
    if sum(rule.saved_s(one.outcome) for one in drawn if one.outcome != "added") <= 0:
        floors = dict.fromkeys(labels, HIDDEN)
        traced = _trace(images, floors)
        drawn = _flat(traced)
    found = _flat(_trace(images, {}))
    return Showing(
        floors=floors,
        calibration=_calibration(predictions, truths, labels),
        images=len(images),
        objects=sum(len(truth.segments) for truth in truths),
        found=sum(counts.values()),
        drawn=sum(one.outcome != "added" for one in drawn),
        work_saved=_work_saved(drawn, rule.weights),
        work_saved_by_all=_work_saved(found, rule.weights),
        holdout_shares=tuple(_share_to_correct(image) for image in traced),
    )


def least_worthy_score(outcomes: Iterable[SegmentOutcome], rule: ShowingRule) -> float:
    """Return the score from which on a version's predicted regions are worth drawing; above 1 for none.

    By what annotators did to them. 0 where all are worth drawing, and for fewer than five regions, which say
    nothing; else, of the scores that the rule allows, the one that saves most.

    Args:
        outcomes: of one label, of all annotations.
        rule: when regions are worth drawing.
    """
    predicted = sorted((one for one in outcomes if one.outcome != "added"), key=lambda one: one.score)
    if len(predicted) < MIN_REGIONS:
        return 0.0
    score_n = np.array([one.score for one in predicted])
    count_n = np.arange(len(predicted), 0, -1)  # from this region on
    stays_n = _from_each([float(one.outcome in STAYING) for one in predicted]) / count_n
    saved_n = _from_each([rule.saved_s(one.outcome) for one in predicted])
    # A floor lets all regions of its score through: of equal scores only the first is a place to begin.
    firsts = [0, *(np.flatnonzero(np.diff(score_n)) + 1)]
    worthy = [
        at
        for at in firsts
        if count_n[at] >= MIN_REGIONS and rule.is_worthy(float(stays_n[at]), float(saved_n[at] / count_n[at]))
    ]
    if not worthy:
        return HIDDEN
    return 0.0 if worthy[0] == 0 else float(score_n[max(worthy, key=lambda at: saved_n[at])])


def _from_each(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the sum of the values from each place to the end, float64 (N,)."""
    sums_n: NDArray[np.float64] = np.cumsum(np.asarray(values)[::-1])[::-1]
    return sums_n


def _comparable(
    predictions: Sequence[Prediction], truths: Sequence[GroundTruth]
) -> list[tuple[Prediction, GroundTruth]]:
    """Return some of the images at most, without segments that lie in areas nobody judges."""
    every = max(1, -(-len(predictions) // MAX_IMAGES))
    pairs = list(zip(predictions, truths, strict=True))[::every]
    return [
        (one if truth.ignored_hw is None else _outside(one, truth.ignored_hw), truth) for one, truth in pairs
    ]


def _outside(prediction: Prediction, ignored_hw: BoolMask) -> Prediction:
    kept = []
    for segment in prediction.segments:
        top, left, bottom, right = segment.box_yxyx
        inside = np.count_nonzero(ignored_hw[top:bottom, left:right] & segment.mask_hw)
        if inside < IGNORED_SHARE * segment.area:
            kept.append(segment)
    return dataclasses.replace(prediction, segments=tuple(kept))


def _best_floors(
    images: Sequence[tuple[Prediction, GroundTruth]], groups: Sequence[Sequence[str]], rule: ShowingRule
) -> list[float]:
    """Return for each group of labels the score from which on drawing its segments saves most.

    Of the scores that save about as much (the best one saves more by at most one standard error over the
    images) the lowest: what a few images say about the last segment is chance.

    Source:
        The one-standard-error rule of Breiman et al., "Classification and Regression Trees", 1984.
    """
    scores = [
        np.sort([one.score for found, _ in images for one in found.segments if one.label in group])
        for group in groups
    ]
    worthy: list[list[tuple[float, NDArray[np.float64]]]] = [[] for _ in groups]  # score, seconds an image
    for step in range(STEPS):  # from all segments up to the best few
        tried = [float(values[len(values) * step // STEPS]) if len(values) else HIDDEN for values in scores]
        outcomes = _trace(
            images, {label: floor for group, floor in zip(groups, tried, strict=True) for label in group}
        )
        for place, group in enumerate(groups):
            drawn = [
                [one.outcome for one in image if one.label in group and one.outcome != "added"]
                for image in outcomes
            ]
            saved_i = np.array([sum(map(rule.saved_s, image)) for image in drawn])
            stays, count = sum(one in STAYING for image in drawn for one in image), sum(map(len, drawn))
            if count >= MIN_REGIONS and rule.is_worthy(stays / count, float(saved_i.sum()) / count):
                worthy[place].append((tried[place] if step else 0.0, saved_i))
    return [_lowest_about_best(found) if found else HIDDEN for found in worthy]


def _lowest_about_best(worthy: Sequence[tuple[float, NDArray[np.float64]]]) -> float:
    """Return the lowest score that saves about as much as the best one; both ascend."""
    _, best_i = max(worthy, key=lambda one: float(one[1].sum()))
    for score, saved_i in worthy:
        more_i = best_i - saved_i
        error = float(more_i.std(ddof=1)) * len(more_i) ** 0.5 if len(more_i) > 1 else 0.0
        if more_i.sum() <= error:
            return score
    raise AssertionError("the best one saves as much as itself")


def _trace(
    images: Iterable[tuple[Prediction, GroundTruth]], floors: Mapping[str, float]
) -> list[tuple[SegmentOutcome, ...]]:
    """Return the outcomes on each image of the segments that are drawn, and of the added ones."""
    return [trace_segments(shown_segments(found, floors).segments, truth.segments) for found, truth in images]


def _share_to_correct(outcomes: Sequence[SegmentOutcome]) -> float:
    """Return the share of an image's drawn and missing regions that is not kept as drawn, 0..1."""
    if not outcomes:
        return 0.0
    return round(sum(one.outcome != "kept" for one in outcomes) / len(outcomes), 4)


def _flat(outcomes: Iterable[Iterable[SegmentOutcome]]) -> list[SegmentOutcome]:
    return [one for image in outcomes for one in image]


def _work_saved(outcomes: Iterable[SegmentOutcome], weights: EditWeights) -> float | None:
    saved = work_saved(sum(count_outcomes(outcomes).values(), EditCounts()), weights)
    return None if saved is None else round(saved, 4)


def _calibration(
    predictions: Sequence[Prediction], truths: Sequence[GroundTruth], labels: Sequence[str]
) -> ScoreCalibration | None:
    found = Detections.joined(
        [
            match_image(one.segments, truth, labels=labels, image=index)
            for index, (one, truth) in enumerate(zip(predictions, truths, strict=True))
        ]
    )
    judged_d = ~found.ignored_td[0]
    return fit_calibration(found.score_d[judged_d], found.correct_td[0][judged_d])
