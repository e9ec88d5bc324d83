"""What a benchmark is, and the figures that it returns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

__all__ = ["Budget", "Case", "Result", "Skip", "Spread"]


class Skip(Exception):  # noqa: N818  # not an error: this machine has no way to run the case
    """The case cannot run on this machine; the text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of one figure over the rounds of a run."""

    median: float
    low: float  # the first quartile
    high: float  # the third
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> Self:
        """Return the median and the quartiles of at least one measured value."""
        if len(values) == 1:
            return cls(median=values[0], low=values[0], high=values[0], rounds=1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median=median, low=low, high=high, rounds=len(values))


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table."""

    name: str  # of the case, then a slash and the variant: "brush-encode/1080p busy"
    unit: str  # of both figures
    ours: Spread
    reference: Spread | None = None  # where there is nothing to compare with
    reference_name: str = ""
    better: Literal["less", "more"] = "less"
    same: str = ""  # how the equality of both results was checked, and the outcome
    aim: float | None = None  # the ratio, or without a reference the figure, that was aimed for
    notes: Mapping[str, object] = field(default_factory=dict)  # numbers of the case's own, for the JSON
    figures: Mapping[str, float] = field(default_factory=dict)  # further keys of its entry in the JSON
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)  # the JSON's own lists

    @property
    def ratio(self) -> float | None:
        """How many times better ours is: above 1 is a gain, whichever way the unit points."""
        if self.reference is None:
            return None
        ours, theirs = self.ours.median, self.reference.median
        return theirs / ours if self.better == "less" else ours / theirs


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much time a variant may take."""

    seconds: float = 10.0  # of rounds, both ways together; at least MIN_ROUNDS are done
    quick: bool = False  # the smallest variant only, to see that it runs
    requests: int = 100_000  # mutated ones of `hostile`, at most
    minutes: float = 10.0  # for these requests: what is not sent by then stays unsent


@dataclass(frozen=True, kw_only=True)
class Case:
    """A benchmark with a name; `run` does all the work, imports included.

    `run` returns one result per variant. It checks in the same run that both ways return the same, raises
    AssertionError where they do not, and Skip where this machine cannot run it.
    """

    name: str
    summary: str  # one line for --list
    run: Callable[[Budget], list[Result]]
