"""Calibrated scores: a score of .8 means that four in five of such segments are right.

A segment is right where it has an IoU of .5 with an object of its label that no better segment has (AP50).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScoreCalibration", "calibration_error", "fit_calibration"]

MIN_SEGMENTS = 20  # with fewer, two numbers cannot be fitted: scores stay as they are
EDGE = 1e-4  # scores are taken as this far from 0 and 1 at least: their logits are infinite there
# Of the prior, which holds both numbers near "unchanged" while segments are few.
SLOPE_SPREAD, SHIFT_SPREAD = 0.5, 2.0
BINS = 10  # of the expected calibration error, of equal width


@dataclass(frozen=True, kw_only=True)
class ScoreCalibration:
    """A score s becomes sigmoid(slope * logit(s) + shift): it rises with s, so the ranking stays."""

    slope: float  # above 0; below 1 the model was too sure of itself
    shift: float  # below 0: fewer were right than the scores said
    segments: int  # that it was fitted on

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.shift)):
            raise ValueError(
                f"ScoreCalibration: expected a slope above 0 and a finite shift, got {self.slope}, "
                f"{self.shift}"
            )

    def apply(self, score: float) -> float:
        """Return the calibrated score, 0..1."""
        return float(self.apply_all(np.array([score]))[0])

    def apply_all(self, score_d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated scores, float64 (D,)."""
        return _sigmoid(self.slope * _logit(score_d) + self.shift)


def fit_calibration(score_d: NDArray[np.float64], right_d: NDArray[np.bool_]) -> ScoreCalibration | None:
    """Return the calibration under which the scores explain best which segments are right.

    The most probable slope and shift of a logistic regression of `right` on the scores' logits, with normal
    priors on the logarithm of the slope and on the shift.

    Args:
        score_d: (D,) scores, 0..1.
        right_d: (D,) whether each segment is right.

    Returns:
        None for fewer than 20 segments.

    Source:
        Platt, "Probabilistic outputs for support vector machines", 1999; for detections Küppers et al.,
        "Multivariate confidence calibration for object detection", CVPRW 2020.
    """
    if len(score_d) < MIN_SEGMENTS:
        return None
    from scipy.optimize import minimize

    logit_d, sign_d = _logit(score_d), np.where(right_d, 1.0, -1.0)

    def loss(parameters: NDArray[np.float64]) -> float:
        log_slope, shift = parameters
        fit = np.logaddexp(0.0, -sign_d * (np.exp(log_slope) * logit_d + shift)).sum()
        return float(fit + 0.5 * (log_slope / SLOPE_SPREAD) ** 2 + 0.5 * (shift / SHIFT_SPREAD) ** 2)

    log_slope, shift = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return ScoreCalibration(
        slope=round(float(np.exp(log_slope)), 6), shift=round(float(shift), 6), segments=len(score_d)
    )


def calibration_error(score_d: Sequence[float] | NDArray[np.float64], right_d: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, 0..1: how far scores are from the share that is right.

    The mean over ten bins of scores, weighted by their segments, of |mean score - share right|; 0 for none.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
    """
    scores_d = np.asarray(score_d, dtype=np.float64)
    if not scores_d.size:
        return 0.0
    bin_d = np.minimum((scores_d * BINS).astype(np.int64), BINS - 1)
    gap_b = np.bincount(bin_d, scores_d - right_d, minlength=BINS)
    return float(np.abs(gap_b).sum() / scores_d.size)


def _logit(score_d: NDArray[np.float64]) -> NDArray[np.float64]:
    inside_d = np.clip(score_d, EDGE, 1 - EDGE)
    logit_d: NDArray[np.float64] = np.log(inside_d) - np.log1p(-inside_d)
    return logit_d


def _sigmoid(value_d: NDArray[np.float64]) -> NDArray[np.float64]:
    probability_d: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-value_d))
    return probability_d
