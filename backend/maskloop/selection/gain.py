"""What choosing is worth, live: corrections in images that were chosen against images that chance drew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskloop.selection.pool import Floats

__all__ = ["LEAST_IMAGES", "Worth", "worth_of_choosing"]

LEAST_IMAGES = 5  # on either side; fewer say nothing
CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Corrections in an image, chosen against drawn by chance."""

    chosen_images: int
    random_images: int
    chosen_mean: float | None  # corrections an image; None without any image
    random_mean: float | None  # the same; as unbiased an estimate for the whole pool as there is
    ratio: float | None = None  # of the two; None where there are too few images, or nothing to correct
    ratio_low: float | None = None  # where the truth lies with CONFIDENCE
    ratio_high: float | None = None


def worth_of_choosing(chosen: Sequence[float], by_chance: Sequence[float], *, seed: int = 0) -> Worth:
    """Compare the corrections that images needed.

    Args:
        chosen: corrections in each image that a strategy chose.
        by_chance: corrections in each image that was drawn by chance.
        seed: of the resampling.

    Source:
        Percentile bootstrap of the ratio of two independent means: Efron, Tibshirani, "An
        Introduction to the Bootstrap", 1993, section 13.3, as scipy.stats.bootstrap has it.
    """
    from scipy import stats

    worth = Worth(
        chosen_images=len(chosen),
        random_images=len(by_chance),
        chosen_mean=_mean(chosen),
        random_mean=_mean(by_chance),
    )
    if min(len(chosen), len(by_chance)) < LEAST_IMAGES or not worth.random_mean:
        return worth
    samples = np.asarray(chosen, dtype=np.float64), np.asarray(by_chance, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have nothing to correct at all
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
        worth,
        ratio=float(_ratio(*samples)),
        ratio_low=low if math.isfinite(low) else None,
        ratio_high=high if math.isfinite(high) else None,
    )


def _ratio(chosen: Floats, by_chance: Floats, axis: int = -1) -> Floats:
    ratio: Floats = np.mean(chosen, axis=axis) / np.mean(by_chance, axis=axis)
    return ratio


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
