"""Two ways of doing the same thing, timed in turn: what else runs on the machine disturbs both alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .case import Budget, Result, Spread

__all__ = ["Pair", "clocked", "in_turn", "side_by_side"]

MIN_ROUNDS, MAX_ROUNDS = 5, 200


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Seconds of both ways, and what the last round of each returned."""

    ours_s: list[float]
    reference_s: list[float]
    ours: Any
    reference: Any

    def result(
        self,
        name: str,
        *,
        against: str,
        same: str,
        aim: float | None = None,
        images: int | None = None,
        notes: Mapping[str, object] | None = None,
    ) -> Result:
        """Return the line of the table for this pair, in milliseconds or images a second.

        Args:
            name: of the case and its variant.
            against: what the reference is.
            same: how the equality of both results was checked.
            aim: the ratio that was aimed for.
            images: how many images one round handles; without it the unit is milliseconds.
            notes: more figures for the JSON.
        """

        def spread(seconds: list[float]) -> Spread:
            return Spread.of([1000 * one if images is None else images / one for one in seconds])

        return Result(
            name=name,
            unit="ms" if images is None else "images/s",
            better="less" if images is None else "more",
            ours=spread(self.ours_s),
            reference=spread(self.reference_s),
            reference_name=against,
            same=same,
            aim=aim,
            notes=notes or {},
        )


def side_by_side(
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    budget: Budget,
    *,
    warmup: int = 1,
    min_rounds: int = MIN_ROUNDS,
    synchronise: Callable[[], None] | None = None,
) -> Pair:
    """Run both in turn until the time is over; which of them is first changes every round.

    Args:
        ours: does the work and returns its result.
        reference: does the same.
        budget: how long.
        warmup: rounds before that are not counted.
        min_rounds: counted at least, however long they take.
        synchronise: waits for the device inside what is timed, where one is used.
    """
    names = ("reference", "ours")
    seconds, results = in_turn(
        dict(zip(names, (reference, ours), strict=True)),
        budget,
        warmup=warmup,
        min_rounds=min_rounds,
        synchronise=synchronise,
    )
    return Pair(
        ours_s=seconds["ours"],
        reference_s=seconds["reference"],
        ours=results["ours"],
        reference=results["reference"],
    )


def in_turn(
    ways: Mapping[str, Callable[[], Any]],
    budget: Budget,
    *,
    warmup: int = 1,
    min_rounds: int = MIN_ROUNDS,
    synchronise: Callable[[], None] | None = None,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run all in turn until the time is over; which of them is first changes every round.

    Arguments as for `side_by_side`.

    Returns:
        The seconds of each round by name, and what the last round of each returned.
    """
    for _ in range(warmup):
        for way in ways.values():
            clocked(way, synchronise)
    names = tuple(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, Any] = dict.fromkeys(names)
    end = time.perf_counter() + budget.seconds
    rounds = 0
    while rounds < min_rounds or (time.perf_counter() < end and rounds < MAX_ROUNDS):
        first = -rounds % len(names)
        for name in names[first:] + names[:first]:
            results[name] = None  # free its memory before the next round
            took, results[name] = clocked(ways[name], synchronise)
            seconds[name].append(took)
        rounds += 1
    return seconds, results


def clocked(work: Callable[[], Any], synchronise: Callable[[], None] | None = None) -> tuple[float, Any]:
    """Return the seconds that a call took, and what it returned; the collector of garbage waits."""
    gc.collect()
    gc.disable()
    try:
        if synchronise is not None:
            synchronise()
        start = time.perf_counter()
        result = work()
        if synchronise is not None:
            synchronise()
        return time.perf_counter() - start, result
    finally:
        gc.enable()
