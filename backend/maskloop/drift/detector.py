"""Values that come one by one: conformal p-values, and a detector of change with a bound on false alarms.

As long as the values are exchangeable (each order of them is as likely as any other), the p-values are
independent and uniform, whatever the values' distribution. A bet on small p-values then gains nothing on
average, and the Shiryaev-Roberts sum of all bets, begun at each image, reaches c for the first time after c
images on average or later. That it does so within n images has a probability of at most n / c.

Source:
    Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2nd ed. 2022, chapter 8; Vovk,
    Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or not retrain: conformal test martingales
    for change-point detection", COPA 2021; Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework
    for sequential change detection", 2022: an average of such sums keeps the bound.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_KNOWN", "Watched", "tie_break", "watch"]

POWERS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the bets: k p^(k - 1), whose mean over uniform p is 1
LEAST_KNOWN = 30  # values before the first bet: with fewer no p-value is small
WINDOW = 100  # values whose share of strange ones is told
STRANGE = 0.05  # a p-value below it is strange; so is one in twenty by chance


@dataclass(frozen=True, kw_only=True, eq=False)
class Watched:
    """What became of watching a series of values."""

    p_n: NDArray[np.float64]  # of each value, 0..1; small: strange
    evidence: float  # base-10 logarithm of the sum now; the alarm is at that of the threshold
    alarms: tuple[int, ...]  # places of the values at which it was raised; the sum begins anew after each
    strange_share: float | None  # of the last WINDOW values; None where there is none


def watch(
    known: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    ties: Sequence[float],
    *,
    images_per_alarm: float,
    two_sided: bool = False,
) -> Watched:
    """Return where images change, by one series of values of them or several.

    Args:
        known: for each series, values that are as the others should be, in any order.
        values: for each series, N further ones, in the order in which they came; large ones are strange.
        ties: N numbers in 0..1, drawn by chance without a look at the values: places among equal ones.
        images_per_alarm: exchangeable values for one false alarm, on average, at the least.
        two_sided: small values are strange as well.
    """
    ordered = [sorted(one) for one in known]
    powers = np.array(POWERS)
    count = len(values[0]) if values else 0
    sums = np.zeros((len(values) * (2 if two_sided else 1), len(POWERS)))
    alarms: list[int] = []
    p_n = np.ones(count)
    for place in range(count):
        sides = []
        for series, before in zip(values, ordered, strict=True):
            p = _p_value(series[place], before, ties[place])
            sides += [p, 1 - p] if two_sided else [p]
        p_n[place] = min(1.0, len(sides) * min(sides))
        if min(map(len, ordered)) <= LEAST_KNOWN:
            continue
        bets = powers * np.array(sides)[:, None] ** (powers - 1)
        sums = (1 + sums) * bets
        if float(sums.mean()) >= images_per_alarm:
            alarms.append(place)
            sums[:] = 0.0
    recent = p_n[-WINDOW:]
    return Watched(
        p_n=p_n,
        evidence=math.log10(max(float(sums.mean()), 1.0)) if sums.size else 0.0,
        alarms=tuple(alarms),
        strange_share=float(np.mean(recent < STRANGE)) if len(recent) else None,
    )


def _p_value(value: float, before: list[float], tie: float) -> float:
    """Return the p-value of a value among those before it, and add it to them; they stay sorted."""
    greater = len(before) - bisect_right(before, value)
    equal = bisect_right(before, value) - bisect_left(before, value) + 1  # and itself
    p = (greater + tie * equal) / (len(before) + 1)
    insort(before, value)
    return min(max(p, 1e-12), 1 - 1e-12)


def tie_break(*parts: object) -> float:
    """Return a number in 0..1 that depends on the parts alone, as if it were drawn by chance."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
