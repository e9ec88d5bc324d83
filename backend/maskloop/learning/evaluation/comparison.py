"""Two models' judgements on the same images, compared: gain, falls of classes, time; each with its doubt.

Neighbour `promotion` turns the comparison into a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.average_precision import Floats, mean_known
from maskloop.learning.evaluation.bootstrap import confidence_above, resample_weights, spread_quantile
from maskloop.learning.evaluation.metrics import Judgement

__all__ = ["ClassChange", "Comparison", "compare"]


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """One class's score, the mean of AP50, PQ and IoU, before and after."""

    label: str
    before: float
    after: float
    images: int  # that have the class
    fall_confidence: float  # how sure it is that it fell by more than is allowed

    @property
    def fall(self) -> float:
        """How much it fell; negative where it rose."""
        return self.before - self.after


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the holdout says of a challenger beside its champion."""

    images: int  # on which a compared class is to be found
    before: float  # the champion's score, mean over the compared classes
    after: float  # the challenger's
    confidence: float  # that the gain exceeds the margin
    interval: tuple[float, float]  # of the gain, at the rule's confidence on each side
    classes: tuple[ClassChange, ...]  # compared, in the order of the labels
    new: tuple[ClassChange, ...]  # those that only the challenger knows
    without_example: tuple[str, ...]  # classes that the challenger knows and no image has
    nothing_common: bool  # so that all of the challenger's classes were compared
    slowdown: float | None  # share of time per image more than the champion's; None where unknown

    @property
    def gain(self) -> float:
        """How much the score rose."""
        return self.after - self.before


def compare(
    champion: Judgement,
    challenger: Judgement,
    *,
    confidence: float,
    margin: float,
    class_drop: float,
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare two judgements on the same images by a paired bootstrap over them.

    Only classes that both models know and that the truth has are compared; where there is none, as with the
    first model of a new label set, all that the challenger knows. A resample leaves out, on both sides, the
    classes it has no example of.

    Args:
        champion: of the model that is served; at least one image.
        challenger: of the new one; the same images and labels.
        confidence: of the interval of the gain.
        margin: that the gain has to exceed.
        class_drop: that a class may fall by.
        resamples: how many.
        seed: of their choice.
    """
    columns = [challenger.labels.index(label) for label in champion.labels if label in challenger.labels]
    labels = [challenger.labels[column] for column in columns]
    mine = [champion.labels.index(label) for label in labels]
    wanted_nc = challenger.wanted_nc[:, columns]
    has_c = wanted_nc.any(axis=0)
    known_c = np.array([label in challenger.known for label in labels], np.bool_)
    both_c = known_c & np.array([label in champion.known for label in labels], np.bool_)
    nothing_common = not (both_c & has_c).any()
    compared_c = has_c & (known_c if nothing_common else both_c)
    weights_rn = np.concatenate(
        [np.ones((1, challenger.images)), resample_weights(challenger.images, resamples, seed)]
    )
    has_rc = weights_rn @ wanted_nc > 0
    before_rc = np.where(has_rc, _score(champion, weights_rn)[:, mine], np.nan)
    after_rc = np.where(has_rc, _score(challenger, weights_rn)[:, columns], np.nan)
    gain_r = mean_known((after_rc - before_rc)[1:, compared_c], 1)
    images = int(np.count_nonzero(wanted_nc[:, compared_c].any(axis=1)))
    changes = [
        ClassChange(
            label=label,
            before=float(before_rc[0, index]),
            after=float(after_rc[0, index]),
            images=int(np.count_nonzero(wanted_nc[:, index])),
            fall_confidence=confidence_above(
                (before_rc - after_rc)[1:, index], class_drop, int(np.count_nonzero(wanted_nc[:, index]))
            ),
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


def _score(judgement: Judgement, weights_rn: Floats) -> Floats:
    """Return (R, C): the mean of a class's AP50, PQ and IoU, of those that are defined."""
    return mean_known(np.stack(list(judgement.scores(weights_rn).values())), 0)


def _chosen(changes: list[ClassChange], chosen_c: NDArray[np.bool_]) -> tuple[ClassChange, ...]:
    return tuple(changes[index] for index in np.flatnonzero(chosen_c))


def _slowdown(champion: Judgement, challenger: Judgement) -> float | None:
    """Return the median over the images, each with itself, of how much longer the challenger took."""
    ratio_n = challenger.seconds_n / champion.seconds_n
    ratio_n = ratio_n[np.isfinite(ratio_n)]
    return float(np.median(ratio_n)) - 1 if ratio_n.size else None
