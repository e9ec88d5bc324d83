"""How much better a model looks where annotators saw its regions than where they drew on an empty image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.evaluation.average_precision import Floats, mean_known
from maskloop.learning.evaluation.bootstrap import resample_weights, spread_quantile
from maskloop.learning.evaluation.prediction_metrics import Evaluation

__all__ = ["Anchoring", "measure_anchoring"]

MIN_IMAGES = 5  # of each kind, copies counted once
RESAMPLES = 2000
ONE_SIDED = 0.95  # of a two-sided interval of 90 %


@dataclass(frozen=True, kw_only=True)
class Anchoring:
    """The score of one model on images that were annotated with and without its regions in sight."""

    shown_images: int
    blind_images: int  # never pre-annotated
    shown: float  # score, the mean of AP50, PQ and mean IoU
    blind: float
    interval: tuple[float, float]  # of shown - blind: 90 %

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return asdict(self) | {"interval": list(self.interval)}


def measure_anchoring(evaluation: Evaluation, blind_n: Sequence[bool], *, seed: int = 0) -> Anchoring | None:
    """Return how a model's score differs between images that were pre-annotated and those that were not.

    The two kinds are different images, chosen by content alone: the difference is what annotators took over
    from predictions, and chance, which the interval tells.

    Args:
        evaluation: of the model that was served, on N images of the holdout.
        blind_n: which of them were never pre-annotated.
        seed: seed of the resamples.

    Returns:
        None where there are fewer than 5 images of a kind.
    """
    is_blind_n = np.array(list(blind_n), np.bool_)
    kinds = [~is_blind_n, is_blind_n]
    counts = [evaluation.count_images(kind_n) for kind_n in kinds]
    if min(counts, default=0) < MIN_IMAGES:
        return None
    drawn = [_scores(evaluation, kind_n, seed + number) for number, kind_n in enumerate(kinds)]
    (shown, *shown_r), (blind, *blind_r) = drawn
    difference_r = np.array(shown_r) - np.array(blind_r)
    return Anchoring(
        shown_images=counts[0],
        blind_images=counts[1],
        shown=float(shown),
        blind=float(blind),
        interval=spread_quantile(difference_r, ONE_SIDED, min(counts)),
    )


def _scores(evaluation: Evaluation, chosen_n: NDArray[np.bool_], seed: int) -> Floats:
    """Return (1 + R,): the score on the chosen images, then on resamples of them."""
    rows = np.flatnonzero(chosen_n)
    groups = [evaluation.groups[row] for row in rows] if evaluation.groups else []
    weights_rn = np.zeros((RESAMPLES + 1, evaluation.images))
    weights_rn[0, rows] = 1
    weights_rn[1:, rows] = resample_weights(len(rows), RESAMPLES, seed, groups=groups)
    by_class = mean_known(np.stack(list(evaluation.scores(weights_rn).values())), 0)
    seen_rc = weights_rn @ evaluation.present_nc > 0
    return mean_known(np.where(seen_rc, by_class, np.nan), 1)
