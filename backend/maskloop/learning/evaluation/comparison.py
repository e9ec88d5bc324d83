"""Comparison of two models on the same images: gain, changes of classes and speed, with confidences.

`gate` makes a decision of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.average_precision import Floats, mean_known
from maskloop.learning.evaluation.bootstrap import confidence_above, resample_weights, spread_quantile
from maskloop.learning.evaluation.prediction_metrics import Evaluation

__all__ = ["ClassChange", "Comparison", "compare"]


CLASS_CONFIDENCE = 0.95  # one-sided, of the interval of a class's score


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """The score of one class, the mean of AP50, PQ and IoU, of champion and challenger."""

    label: str
    before: float
    after: float
    images: int  # images with the class; copies count once
    fall_confidence: float  # confidence that it fell by more than the gate allows, 0..1
    interval: tuple[float, float]  # of `after`: 90 %, within 0..1; NaN with fewer than two images

    @property
    def fall(self) -> float:
        """How much the score fell; negative where it rose."""
        return self.before - self.after


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A challenger compared with its champion on the holdout."""

    images: int  # images with a compared class; copies count once
    before: float  # score of the champion, mean over the compared classes
    after: float  # score of the challenger
    confidence: float  # confidence that the gain exceeds the margin, 0..1
    interval: tuple[float, float]  # of the gain, one-sided at the rule's confidence on each side
    classes: tuple[ClassChange, ...]  # compared classes in the order of the labels
    new: tuple[ClassChange, ...]  # classes that only the challenger has
    without_example: tuple[str, ...]  # classes of the challenger that no image has
    nothing_common: bool  # so that all of the challenger's classes were compared
    slowdown: float | None  # share of time per image more than the champion's; None where unknown

    @property
    def gain(self) -> float:
        """How much the score rose; negative where it fell."""
        return self.after - self.before


def compare(
    champion: Evaluation,
    challenger: Evaluation,
    *,
    confidence: float,
    margin: float,
    class_drop: float,
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare two evaluations on the same images by a paired bootstrap over the images.

    Classes that both models have and that occur in the ground truth are compared; where there is none, as
    with the first model of a new label set, all classes of the challenger that occur. Each resample leaves
    out, for both models, the classes that it has no example of.

    Args:
        champion: evaluation of the served model; at least one image.
        challenger: evaluation of the new model; the same images and labels.
        confidence: one-sided confidence of the interval of the gain, 0..1.
        margin: the gain has to exceed it.
        class_drop: how much the score of a class may fall.
        resamples: number of resamples.
        seed: seed of the resamples.
    """
    columns = [challenger.labels.index(label) for label in champion.labels if label in challenger.labels]
    labels = [challenger.labels[column] for column in columns]
    of_champion = [champion.labels.index(label) for label in labels]
    present_nc = challenger.present_nc[:, columns]
    has_c = present_nc.any(axis=0)
    known_c = np.array([label in challenger.known for label in labels], np.bool_)
    both_c = known_c & np.array([label in champion.known for label in labels], np.bool_)
    nothing_common = not (both_c & has_c).any()
    compared_c = has_c & (known_c if nothing_common else both_c)
    weights_rn = np.concatenate(
        [
            np.ones((1, challenger.images)),
            resample_weights(challenger.images, resamples, seed, groups=challenger.groups),
        ]
    )
    has_rc = weights_rn @ present_nc > 0
    before_rc = np.where(has_rc, _score(champion, weights_rn)[:, of_champion], np.nan)
    after_rc = np.where(has_rc, _score(challenger, weights_rn)[:, columns], np.nan)
    gain_r = mean_known((after_rc - before_rc)[1:, compared_c], 1)
    images = challenger.count_images(present_nc[:, compared_c].any(axis=1))
    changes = [
        ClassChange(
            label=label,
            before=float(before_rc[0, index]),
            after=float(after_rc[0, index]),
            images=challenger.count_images(present_nc[:, index]),
            fall_confidence=confidence_above(
                (before_rc - after_rc)[1:, index], class_drop, challenger.count_images(present_nc[:, index])
            ),
            interval=_class_interval(after_rc[1:, index], challenger.count_images(present_nc[:, index])),
        )
        for index, label in enumerate(labels)
    ]
    return Comparison(
        images=images,
        before=float(np.nan_to_num(mean_known(before_rc[0, compared_c], 0))),
        after=float(np.nan_to_num(mean_known(after_rc[0, compared_c], 0))),
        confidence=confidence_above(gain_r, margin, images),
        interval=spread_quantile(gain_r, confidence, images),
        classes=_chosen(changes, compared_c),
        new=() if nothing_common else _chosen(changes, has_c & known_c & ~both_c),
        without_example=tuple(labels[index] for index in np.flatnonzero(known_c & ~has_c)),
        nothing_common=nothing_common,
        slowdown=_slowdown(champion, challenger),
    )


def _score(evaluation: Evaluation, weights_rn: Floats) -> Floats:
    """Return (R, C): the mean of a class's AP50, PQ and IoU without those that are undefined."""
    return mean_known(np.stack(list(evaluation.scores(weights_rn).values())), 0)


def _class_interval(scores_r: Floats, images: int) -> tuple[float, float]:
    low, high = spread_quantile(scores_r, CLASS_CONFIDENCE, images)
    return max(0.0, low) if low == low else low, min(1.0, high) if high == high else high


def _chosen(changes: list[ClassChange], chosen_c: NDArray[np.bool_]) -> tuple[ClassChange, ...]:
    return tuple(changes[index] for index in np.flatnonzero(chosen_c))


def _slowdown(champion: Evaluation, challenger: Evaluation) -> float | None:
    """Return the median over the images of how much longer the challenger took, as a share of 1."""
    ratio_n = challenger.seconds_n / champion.seconds_n
    ratio_n = ratio_n[np.isfinite(ratio_n)]
    return float(np.median(ratio_n)) - 1 if ratio_n.size else None
