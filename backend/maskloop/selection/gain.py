"""The gain of a selection strategy: corrections in images that it chose against images drawn at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskloop.selection.pool import Floats

__all__ = ["MIN_IMAGES", "SelectionGain", "estimate_gain"]

MIN_IMAGES = 5  # of each kind; with fewer there is no ratio
CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class SelectionGain:
    """Corrections per image: chosen images against images drawn at random."""

    chosen_images: int
    random_images: int
    chosen_mean: float | None  # corrections per image; None without images
    random_mean: float | None  # the same; an unbiased estimate for the whole pool
    ratio: float | None = None  # chosen_mean / random_mean; None with too few images or without corrections
    ratio_low: float | None = None  # confidence interval at CONFIDENCE
    ratio_high: float | None = None


def estimate_gain(chosen: Sequence[float], at_random: Sequence[float], *, seed: int = 0) -> SelectionGain:
    """Compare the corrections of chosen images with those of images drawn at random.

    Args:
        chosen: number of corrections of each image that a strategy chose.
        at_random: number of corrections of each image that was drawn at random.
        seed: seed of the resampling.

    Source:
        Percentile bootstrap of the ratio of two independent means: Efron, Tibshirani, "An
        Introduction to the Bootstrap", 1993, section 13.3, as scipy.stats.bootstrap has it.
    """
    from scipy import stats

    gain = SelectionGain(
        chosen_images=len(chosen),
        random_images=len(at_random),
        chosen_mean=_mean(chosen),
        random_mean=_mean(at_random),
    )
    if min(len(chosen), len(at_random)) < MIN_IMAGES or not gain.random_mean:
        return gain
    samples = np.asarray(chosen, dtype=np.float64), np.asarray(at_random, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may be without any correction
        found = stats.bootstrap(
            samples,
            _ratio,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = (float(bound) for bound in found.confidence_interval)
    return replace(
        gain,
        ratio=float(_ratio(*samples)),
        ratio_low=low if math.isfinite(low) else None,
        ratio_high=high if math.isfinite(high) else None,
    )


def _ratio(chosen: Floats, at_random: Floats, axis: int = -1) -> Floats:
    ratio: Floats = np.mean(chosen, axis=axis) / np.mean(at_random, axis=axis)
    return ratio


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
