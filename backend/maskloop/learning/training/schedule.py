"""The schedule of a training: its steps under a time limit, its learning rate, its early stop."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["affordable_steps", "rate_factor", "should_give_up"]

PACE_STEPS = 5  # steps before the pace is measured; the first ones are slower


def affordable_steps(*, steps: int, done: int, spent_s: float, pace_s: float, limit_s: float) -> int:
    """Return the total number of steps: as planned, or fewer where the time limit requires it.

    Args:
        steps: planned steps.
        done: steps done so far.
        spent_s: seconds that the steps so far took.
        pace_s: seconds of one step.
        limit_s: seconds that all steps may take.
    """
    left = math.floor(max(limit_s - spent_s, 0.0) / max(pace_s, 1e-9))
    return max(min(steps, done + left), min(done + 1, steps))


def rate_factor(step: int, *, warmup: int, steps: int) -> float:
    """Return the factor on the peak learning rate at a step: linear warm-up, then a cosine to zero."""
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def should_give_up(losses: Sequence[float], patience: int) -> bool:
    """Return whether none of the last `patience` validations lowered the validation loss.

    Args:
        losses: validation losses, oldest first.
        patience: number of validations, at least 1.
    """
    if len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])
