"""Bootstrap over images: confidence and intervals, with a correction for small samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special  # not scipy.stats, which takes ten times as long to import

from maskloop.learning.evaluation.average_precision import Floats

__all__ = ["confidence_above", "resample_weights", "spread_quantile"]


MAX_SIGNS = 1000  # 2^-1000 is still a number


def resample_weights(images: int, resamples: int, seed: int, *, groups: Sequence[str] = ()) -> Floats:
    """Return float64 (R, N): how often each image is drawn in each of R resamples.

    Args:
        images: number N of images.
        resamples: number R.
        seed: seed of the draws.
        groups: group of each image; images of one group, such as copies, are drawn together (a cluster
            bootstrap). Empty: each image is alone.
    """
    rng = np.random.default_rng(seed)
    _, group_n = np.unique(list(groups) or np.arange(images), return_inverse=True)
    count = int(group_n.max()) + 1
    drawn_rg = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn_rg.astype(np.float64)[:, group_n]


def confidence_above(values_r: Floats, bound: float, images: int) -> float:
    """Return the confidence that the true value lies above a bound, 0..1.

    The share of resamples above the bound is converted to a normal quantile, scaled for the too small
    variance of a bootstrap, and converted back by Student's t distribution, so that few images never give
    a high confidence. Where all resamples lie on one side, the normal distribution of the same mean and
    variance is used, up to what a sign test on as many images can show (2^-images).

    Args:
        values_r: (R,), value of each resample; NaN where it has none.
        bound: the value has to be larger; equal is not.
        images: number of images that were resampled; copies count once.

    Returns:
        The confidence; 0 with fewer than two images or without any value.

    Source:
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015),
        section 4.3.2, the expanded percentile interval, solved for its level.
    """
    known_r = values_r[~np.isnan(values_r)]
    if images < 2 or not known_r.size:
        return 0.0
    least = 0.5 / known_r.size  # half of the smallest share that this many resamples can show
    share = float(np.clip(np.mean(known_r > bound), least, 1 - least))
    quantile = float(special.ndtri(share))
    if share in (least, 1 - least) and float(np.std(known_r)) > 0:
        beyond = abs(float(np.mean(known_r)) - bound) / float(np.std(known_r))
        most = -float(special.ndtri(2.0 ** -min(images, MAX_SIGNS)))
        quantile = float(np.copysign(max(abs(quantile), min(beyond, most)), quantile))
    return float(special.stdtr(images - 1, quantile * np.sqrt((images - 1) / images)))


def spread_quantile(values_r: Floats, confidence: float, images: int) -> tuple[float, float]:
    """Return an interval: the true value lies below it, and above it, with probability 1 - confidence each.

    The correction is that of `confidence_above`; (NaN, NaN) with fewer than two images or without any value.
    """
    known_r: NDArray[np.float64] = values_r[~np.isnan(values_r)]
    if images < 2 or not known_r.size:
        return float("nan"), float("nan")
    level = special.ndtr(special.stdtrit(images - 1, confidence) * np.sqrt(images / (images - 1)))
    low, high = np.quantile(known_r, [1 - level, level])
    return float(low), float(high)
