"""What a simulation came to: curves over labels, bands over seeds, labels saved; pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Band", "Gain", "Run", "Saving", "band_of", "labels_saved", "labels_to_reach", "mean_gain"]

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Run:
    """One strategy with one seed: what it had and how good it was, from the starting set on."""

    seed: int
    labels: tuple[int, ...]  # labelled images, ascending
    objects: tuple[int, ...]  # on them
    quality: tuple[float, ...]  # 0..1, on the holdout

    def __post_init__(self) -> None:
        if not len(self.labels) == len(self.objects) == len(self.quality) > 0:
            raise ValueError(
                f"Run: expected lists of one length, got {len(self.labels)}, {len(self.objects)} and "
                f"{len(self.quality)}"
            )


@dataclass(frozen=True, kw_only=True)
class Band:
    """A mean over seeds and what it may be instead."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Saving:
    """How many labels a strategy saves against another one."""

    share: float | None  # of the other's labels; negative where more are needed; None: not known
    word: str  # why not, or how
    target: float  # the quality to reach
    labels: float | None  # that the strategy needs; None: it does not reach the target
    against: float | None  # that the other needs
    low: float | None = None  # bounds of the share over seeds
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better a strategy is than another one at equal labels, mean over rounds after the start."""

    mean: float
    low: float | None  # None with a single seed
    high: float | None


def band_of(values_s: Sequence[float], confidence: float = CONFIDENCE) -> Band:
    """Return the mean over seeds with the interval of Student's t; of one seed the interval is a point."""
    values = np.asarray(values_s, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Band(mean=mean, low=mean, high=mean)
    from scipy.stats import t

    half = float(t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return Band(mean=mean, low=mean - half, high=mean + half)


def labels_to_reach(labels: Sequence[float], quality: Sequence[float], target: float) -> float | None:
    """Return where a curve first reaches the target, between its points on a straight line; None: nowhere.

    Args:
        labels: ascending.
        quality: at each of them; may fall as well as rise.
        target: a quality; where the curve begins at it or above, its first number of labels is returned.
    """
    for place, value in enumerate(quality):
        if value >= target:
            if place == 0:
                return float(labels[0])
            share = (target - quality[place - 1]) / (value - quality[place - 1])
            return float(labels[place - 1] + share * (labels[place] - labels[place - 1]))
    return None


def labels_saved(runs: Sequence[Run], against: Sequence[Run], target: float) -> Saving:
    """Return the share of labels that a strategy saves to reach a quality, on the mean curves over seeds.

    Its interval is from a bootstrap over the seeds, the same ones for both.

    Args:
        runs: of the strategy, one a seed.
        against: of the other, with the same seeds in the same order.
        target: the quality to reach.

    Raises:
        ValueError: seeds or rounds are not the same.

    Source:
        Percentile bootstrap: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    labels, ours, theirs = _paired(runs, against)
    needed = labels_to_reach(labels, ours.mean(axis=0).tolist(), target)
    other = labels_to_reach(labels, theirs.mean(axis=0).tolist(), target)
    common = {"target": target, "labels": needed, "against": other}
    if needed is None or other is None:
        return Saving(share=None, word=_why_not(needed, other, labels[-1]), **common)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(RESAMPLES if len(runs) > 1 else 0):
        drawn = rng.integers(len(runs), size=len(runs))
        one = labels_to_reach(labels, ours[drawn].mean(axis=0).tolist(), target)
        two = labels_to_reach(labels, theirs[drawn].mean(axis=0).tolist(), target)
        if one is not None and two is not None:
            shares.append(1 - one / two)
    low, high = np.quantile(shares, [0.025, 0.975]) if shares else (None, None)
    return Saving(
        share=1 - needed / other,
        word="reached",
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        **common,  # type: ignore[arg-type]
    )


def mean_gain(runs: Sequence[Run], against: Sequence[Run]) -> Gain:
    """Return how much better a strategy is at equal labels, seed by seed; the common start is left out."""
    _, ours, theirs = _paired(runs, against)
    gains_s = (ours - theirs)[:, 1:].mean(axis=1) if ours.shape[1] > 1 else (ours - theirs)[:, 0]
    band = band_of(gains_s.tolist())
    alone = len(runs) < 2
    return Gain(mean=band.mean, low=None if alone else band.low, high=None if alone else band.high)


def _paired(
    runs: Sequence[Run], against: Sequence[Run]
) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
    """Return the labels and both qualities as (seeds, rounds)."""
    if [run.seed for run in runs] != [run.seed for run in against] or not runs:
        raise ValueError(
            f"labels_saved: expected equal seeds, got {[run.seed for run in runs]} and "
            f"{[run.seed for run in against]}"
        )
    if len({run.labels for run in (*runs, *against)}) != 1:
        raise ValueError("labels_saved: expected all runs to have labels after the same numbers of images")
    return (
        list(runs[0].labels),
        np.asarray([run.quality for run in runs], dtype=np.float64),
        np.asarray([run.quality for run in against], dtype=np.float64),
    )


def _why_not(needed: float | None, other: float | None, most: int) -> str:
    if needed is None and other is None:
        return f"neither reached it with {most} labels"
    if needed is None:
        return f"not reached with {most} labels"
    return f"random did not reach it with {most} labels: at least {1 - needed / most:.0%} saved"
