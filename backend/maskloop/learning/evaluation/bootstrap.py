"""How sure a few images make us: resampling them, paired, with a correction for small numbers of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from maskloop.learning.evaluation.average_precision import Floats

__all__ = ["confidence_above", "resample_weights", "spread_quantile"]


def resample_weights(images: int, resamples: int, seed: int) -> Floats:
    """Return float64 (R, N): how often each image is drawn when as many are drawn as there are."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


def confidence_above(values_r: Floats, bound: float, images: int) -> float:
    """Return how sure it is that the truth behind resampled values lies above a bound, 0..1.

    The share of resamples above the bound is read as a normal quantile, shrunk by what a resample varies too
    little, and read again as Student's t: few images never make sure.

    Args:
        values_r: of each resample; NaN where it has none.
        bound: to be exceeded; a value on it does not.
        images: how many there are to draw from.

    Returns:
        0 where there is nothing to go by: fewer than two images, or no value.

    Source:
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015),
        section 4.3.2, the expanded percentile interval, solved for its level.
    """
    known_r = values_r[~np.isnan(values_r)]
    if images < 2 or not known_r.size:
        return 0.0
    least = 0.5 / known_r.size  # what so many resamples cannot tell from none
    share = float(np.clip(np.mean(known_r > bound), least, 1 - least))
    return float(stats.t.cdf(stats.norm.ppf(share) * np.sqrt((images - 1) / images), images - 1))


def spread_quantile(values_r: Floats, confidence: float, images: int) -> tuple[float, float]:
    """Return the bounds below and above which the truth lies with at most 1 - confidence each.

    The same correction as in `confidence_above`; (NaN, NaN) where there is nothing to go by.
    """
    known_r: NDArray[np.float64] = values_r[~np.isnan(values_r)]
    if images < 2 or not known_r.size:
        return float("nan"), float("nan")
    level = stats.norm.cdf(stats.t.ppf(confidence, images - 1) * np.sqrt(images / (images - 1)))
    low, high = np.quantile(known_r, [1 - level, level])
    return float(low), float(high)
