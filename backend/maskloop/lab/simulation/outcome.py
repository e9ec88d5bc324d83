"""What a simulation came to: curves over what labels cost, bands over seeds, gains at equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Band", "Cost", "Gain", "Run", "band_of", "gain_at_equal_cost", "mean_gain", "same_seeds"]

CONFIDENCE = 0.95
Cost: TypeAlias = Literal["labels", "objects", "seconds"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One strategy with one seed: what it had and how good it was, from the starting set on."""

    seed: int
    labels: tuple[int, ...]  # labelled images, ascending
    objects: tuple[int, ...]  # on them
    quality: tuple[float, ...]  # 0..1, on the holdout
    seconds: tuple[float, ...] | None = None  # of an annotator's work on them; None: not known

    def __post_init__(self) -> None:
        seconds = self.labels if self.seconds is None else self.seconds
        if (
            len({len(self.labels), len(self.objects), len(self.quality), len(seconds)}) != 1
            or not self.labels
        ):
            raise ValueError(
                f"Run: expected lists of one length, got {len(self.labels)}, {len(self.objects)}, "
                f"{len(self.quality)} and {len(seconds)}"
            )

    def cost(self, name: Cost) -> tuple[float, ...] | None:
        """Return what the labels cost so far, counted in images, objects or seconds; None: not known."""
        return {"labels": self.labels, "objects": self.objects, "seconds": self.seconds}[name]


@dataclass(frozen=True, kw_only=True)
class Band:
    """A mean over seeds and what it may be instead."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better a strategy is than another one at equal cost."""

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


def mean_gain(runs: Sequence[Run], against: Sequence[Run]) -> Gain:
    """Return how much better a strategy is with equally many images, the mean over rounds, seed by seed.

    The common start is left out. Equally many images may hold unequally many objects, and cost more.

    Raises:
        ValueError: seeds or rounds are not the same.
    """
    same_seeds(runs, against)
    if len({run.labels for run in (*runs, *against)}) != 1:
        raise ValueError("mean_gain: expected all runs to have labels after the same numbers of images")
    gains_sr = np.asarray([run.quality for run in runs]) - np.asarray([run.quality for run in against])
    return _gain((gains_sr[:, 1:] if gains_sr.shape[1] > 1 else gains_sr).mean(axis=1).tolist())


def gain_at_equal_cost(runs: Sequence[Run], against: Sequence[Run], *, cost: Cost) -> Gain | None:
    """Return how much better a strategy is at equal cost: the mean over all costs that both curves cover.

    Seed by seed, both curves are read on straight lines over what was spent so far, and the difference is
    averaged over the range from the later start to the earlier end of the two.

    Args:
        runs: of the strategy, one a seed.
        against: of the other, with the same seeds in the same order.
        cost: what is counted.

    Returns:
        The mean over seeds, with the interval of Student's t; None where a cost is not known.

    Raises:
        ValueError: seeds are not the same.
    """
    same_seeds(runs, against)
    gains_s = []
    for ours, theirs in zip(runs, against, strict=True):
        our_cost, their_cost = ours.cost(cost), theirs.cost(cost)
        if our_cost is None or their_cost is None:
            return None
        gains_s.append(_mean_difference(our_cost, ours.quality, their_cost, theirs.quality))
    return _gain(gains_s)


def same_seeds(runs: Sequence[Run], against: Sequence[Run]) -> None:
    """Check that two strategies can be compared seed by seed.

    Raises:
        ValueError: they cannot.
    """
    seeds, others = [run.seed for run in runs], [run.seed for run in against]
    if seeds != others or not seeds:
        raise ValueError(f"simulation: expected equal seeds, got {seeds} and {others}")


def _gain(gains_s: Sequence[float]) -> Gain:
    band, alone = band_of(gains_s), len(gains_s) < 2
    return Gain(mean=band.mean, low=None if alone else band.low, high=None if alone else band.high)


def _mean_difference(
    cost_a: Sequence[float], quality_a: Sequence[float], cost_b: Sequence[float], quality_b: Sequence[float]
) -> float:
    """Return the mean of a - b over the costs that both cover; costs ascend, and may repeat."""
    low, high = max(cost_a[0], cost_b[0]), min(cost_a[-1], cost_b[-1])
    if high <= low:  # at one cost alone: what each came to with it
        return _last_within(cost_a, quality_a, low) - _last_within(cost_b, quality_b, low)
    knots = np.unique(np.clip([*cost_a, *cost_b], low, high))
    # Between two knots both are straight, so their middle is their mean; at a repeated cost a curve jumps.
    middle, width = (knots[:-1] + knots[1:]) / 2, np.diff(knots)
    difference: NDArray[np.float64] = np.interp(middle, cost_a, quality_a) - np.interp(
        middle, cost_b, quality_b
    )
    return float((difference * width).sum() / width.sum())


def _last_within(cost: Sequence[float], quality: Sequence[float], most: float) -> float:
    return quality[int(np.searchsorted(cost, most, side="right")) - 1]
