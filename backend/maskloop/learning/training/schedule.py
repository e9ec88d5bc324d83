"""How long a training is and what its rate is on the way, under a limit of time."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["affordable_steps", "rate_factor", "should_give_up"]

PACE_STEPS = 5  # done before a pace is believed; the first ones warm up


def affordable_steps(*, steps: int, done: int, spent_s: float, pace_s: float, limit_s: float) -> int:
    """Return how many steps there will be in all: as planned, or fewer where time would run out.

    Args:
        steps: planned.
        done: of them.
        spent_s: seconds, by those done.
        pace_s: seconds that a step takes.
        limit_s: seconds that all may take.
    """
    left = math.floor(max(limit_s - spent_s, 0.0) / max(pace_s, 1e-9))
    return max(min(steps, done + left), min(done + 1, steps))


def rate_factor(step: int, *, warmup: int, steps: int) -> float:
    """Return the share of the peak rate at a step: a line up, then a cosine to zero."""
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def should_give_up(losses: Sequence[float], patience: int) -> bool:
    """Return whether the last `patience` validations all brought no gain.

    Args:
        losses: of the validation part, oldest first.
        patience: at least one.
    """
    if len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])
