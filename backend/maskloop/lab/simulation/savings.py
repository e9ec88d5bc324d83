"""How much of the cost of drawing by chance a strategy saves to reach a quality, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.lab.simulation.outcome import CONFIDENCE, Cost, Run, same_seeds

__all__ = ["Saving", "cost_saved", "cost_to_reach", "percent"]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Saving:
    """How much of the cost a strategy saves against another one."""

    share: float | None  # of the other's cost; negative where more is needed; None: not known
    word: str  # why not, or how
    target: float  # the quality to reach
    needed: float | None  # what the strategy needs; None: it does not reach the target
    against: float | None  # what the other needs
    low: float | None = None  # bounds of the share over seeds; None: none, as far as these runs went
    high: float | None = None
    missed: float | None = None  # share of the resamples in which the strategy did not reach the target
    against_missed: float | None = None  # the same of the other; None with a single seed

    @property
    def interval_word(self) -> str:
        """The bounds in words; empty with a single seed."""
        if self.missed is None:
            return ""
        if self.low is None:
            return "open on both sides" if self.high is None else f"at most {percent(self.high)}"
        low = percent(self.low)
        return f"at least {low}" if self.high is None else f"{low} to {percent(self.high)}"


def percent(share: float) -> str:
    """Return a share in words, without a minus before zero."""
    return f"{round(share, 2) + 0.0:.0%}"


def cost_to_reach(cost: Sequence[float], quality: Sequence[float], target: float) -> float | None:
    """Return where a curve first reaches the target, between its points on a straight line; None: nowhere.

    Args:
        cost: ascending.
        quality: at each of them; may fall as well as rise.
        target: a quality; where the curve begins at it or above, its first cost is returned.
    """
    for place, value in enumerate(quality):
        if value >= target:
            if place == 0:
                return float(cost[0])
            share = (target - quality[place - 1]) / (value - quality[place - 1])
            return float(cost[place - 1] + share * (cost[place] - cost[place - 1]))
    return None


def cost_saved(
    runs: Sequence[Run], against: Sequence[Run], target: float, *, cost: Cost = "labels"
) -> Saving | None:
    """Return the share of the cost that a strategy saves to reach a quality, on the mean curves over seeds.

    A mean curve has, for each round, the mean cost and the mean quality. The interval is from a bootstrap
    over the seeds, the same ones for both, and every resample counts. Where a curve of a resample does not
    reach the target it would have cost more than it did, so that the saved share is only bounded: with the
    other's end too cheap it is at least one minus ours over that end (and 1 at most), with ours too cheap at
    most one minus that end over the other's (and has no lower bound), and with both it may be anything. The
    lower bound of the interval is the quantile of the resamples' lower bounds, the upper one that of the
    upper ones; the lower of two neighbouring values for the lower bound, the higher for the upper one. A
    bound that says nothing (none below, or 1) is None.

    Args:
        runs: of the strategy, one a seed.
        against: of the other, with the same seeds in the same order.
        target: the quality to reach.
        cost: what is counted.

    Returns:
        None where a cost is not known.

    Raises:
        ValueError: seeds or rounds are not the same.

    Source:
        Percentile bootstrap: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. The
        bounds where values are known by intervals alone: Manski, "Partial Identification of Probability
        Distributions", 2003, chapter 1.
    """
    same_seeds(runs, against)
    if len({run.labels for run in (*runs, *against)}) != 1:
        raise ValueError("cost_saved: expected all runs to have labels after the same numbers of images")
    ours, theirs = _curves(runs, cost), _curves(against, cost)
    if ours is None or theirs is None:
        return None
    everyone = np.arange(len(runs))
    needed, _ = _reach(ours, everyone, target)
    other, _ = _reach(theirs, everyone, target)
    ends = tuple(float(curve[0][:, -1].mean()) for curve in (ours, theirs))
    common = {"target": target, "needed": needed, "against": other}
    if needed is None or other is None:
        share, word = None, _why_not(needed, other, ends, cost)
    else:
        share, word = _share(needed, other), "reached"
    if len(runs) < 2:
        return Saving(share=share, word=word, **common)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    lows, highs, missed = [], [], np.zeros(2)
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(runs), size=len(runs))
        (one, our_end), (two, their_end) = _reach(ours, drawn, target), _reach(theirs, drawn, target)
        missed += (one is None, two is None)
        lows.append(-math.inf if one is None else _share(one, their_end if two is None else two))
        highs.append(1.0 if two is None else _share(our_end if one is None else one, two))
    tail = (1 - CONFIDENCE) / 2 * (RESAMPLES - 1)
    low, high = sorted(lows)[math.floor(tail)], sorted(highs)[math.ceil(RESAMPLES - 1 - tail)]
    return Saving(
        share=share,
        word=word,
        low=low if math.isfinite(low) else None,
        high=high if high < 1.0 else None,
        missed=float(missed[0] / RESAMPLES),
        against_missed=float(missed[1] / RESAMPLES),
        **common,  # type: ignore[arg-type]
    )


def _curves(runs: Sequence[Run], cost: Cost) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return costs and qualities, each float64 (seeds, rounds); None where a cost is not known."""
    costs = [run.cost(cost) for run in runs]
    if any(one is None for one in costs):
        return None
    return np.asarray(costs, dtype=np.float64), np.asarray([run.quality for run in runs], dtype=np.float64)


def _reach(
    curves: tuple[NDArray[np.float64], NDArray[np.float64]], drawn: NDArray[np.int64], target: float
) -> tuple[float | None, float]:
    """Return what the mean curve of some seeds needs, and what it cost in all."""
    cost_r, quality_r = (values_sr[drawn].mean(axis=0) for values_sr in curves)
    return cost_to_reach(cost_r.tolist(), quality_r.tolist(), target), float(cost_r[-1])


def _share(needed: float, other: float) -> float:
    """Return the share of the other's cost that is saved; without any cost nothing is."""
    return 1 - needed / other if other else 0.0


def _why_not(needed: float | None, other: float | None, ends: tuple[float, ...], cost: Cost) -> str:
    ours, theirs = (f"{end:.0f} {cost}" for end in ends)
    if needed is None and other is None:
        both = ours if ours == theirs else f"{ours}, random with {theirs}"
        return f"neither reached it with {both}"
    if needed is None:
        return f"not reached with {ours}"
    return f"random did not reach it with {theirs}: at least {percent(_share(needed, ends[1]))} saved"
