"""What a simulation came to as a table for a terminal, from the values that `maskloop simulate` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich.table import Table

__all__ = ["gain_word", "saving_word", "simulation_table", "simulation_warnings"]

BASELINE = "random"
COSTS = ("labels", "objects", "seconds")


def simulation_table(told: Mapping[str, Any]) -> Table:
    """Return a column for each strategy: where it ends, what it gains at equal cost, what it saves."""
    strategies: Mapping[str, Mapping[str, Any]] = told["strategies"]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("against random", overflow="fold")
    for name in strategies:
        table.add_column(name, overflow="fold")

    words: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "quality in the end": lambda one: f"{one['mean'][-1]:.3f}",
        **{f"{cost} in the end": partial(_mean_end, cost=cost) for cost in COSTS},
    }
    for head, word in words.items():
        table.add_row(head, *map(word, strategies.values()))
    compared: dict[str, Callable[[Mapping[str, Any]], str]] = {
        **{f"gain at equal {cost}": partial(_gain, cost=cost) for cost in COSTS},
        **{f"{cost} saved": partial(_saved, cost=cost) for cost in COSTS},
    }
    for head, word in compared.items():
        table.add_row(head, *("" if name == BASELINE else word(one) for name, one in strategies.items()))
    return table


def simulation_warnings(told: Mapping[str, Any]) -> list[str]:
    """Return what has to be known of the table."""
    lines = []
    for name, found in told["strategies"].items():
        for cost in COSTS[1:]:
            gain = found[f"gain_at_equal_{cost}"]
            if name == BASELINE or gain is None or gain["low"] is None:
                continue
            if gain["low"] <= 0 <= gain["high"]:
                lines.append(f"{name}: at equal {cost} these runs show neither a gain nor a loss")
    return lines


def gain_word(gain: Mapping[str, float | None] | None) -> str:
    """Return a gain with its interval in words."""
    if gain is None:
        return "not known"
    spread = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
    return f"{gain['mean']:+.3f}{spread}"


def saving_word(saved: Mapping[str, Any] | None) -> str:
    """Return what is saved to reach the target, with its interval, in words."""
    if saved is None:
        return "not known"
    share = saved["word"] if saved["share"] is None else f"{round(saved['share'], 2) + 0.0:.0%}"
    return f"{share} ({saved['interval_word']})" if saved["interval_word"] else str(share)


def _gain(found: Mapping[str, Any], cost: str) -> str:
    return gain_word(found[f"gain_at_equal_{cost}"])


def _saved(found: Mapping[str, Any], cost: str) -> str:
    return saving_word(found["labels_saved_detail" if cost == "labels" else f"{cost}_saved"])


def _mean_end(found: Mapping[str, Any], cost: str) -> str:
    ends = [curve[-1] for curve in found[cost] if curve is not None]
    return f"{sum(ends) / len(ends):.0f}" if ends else "not known"
