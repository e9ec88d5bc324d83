"""A trial: two versions each draw for half of the tasks, and what annotators keep decides, at any time.

Source:
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024): the
    capital of bets on a mean is a test martingale, so that by Ville's inequality (1939) it reaches 1/risk
    with at most that probability however often one looks; an average over several stakes is one as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["TrialRule", "TrialState", "Verdict", "is_old_versions", "judge_trial"]

STAKES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # shares of the capital that are bet on a difference in -1..1


class Verdict(StrEnum):
    """What a trial has shown."""

    OPEN = "open"
    BETTER = "better"  # annotators keep more of the new version's regions
    WORSE = "worse"  # they keep less
    ALIKE = "alike"  # no difference within the images that a trial takes


@dataclass(frozen=True, kw_only=True)
class TrialRule:
    """When a trial ends."""

    risk: float = 0.05  # of calling a version worse that is not, and of calling one better that is not; each
    most_pairs: int = 400  # images of each version; then the two are alike


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """How a trial stands."""

    verdict: Verdict
    pairs: int  # images of each version that are compared
    old_share: float | None  # of the regions kept untouched, mean over the old version's images
    new_share: float | None
    better: float  # capital of the bets that the new version is better; 1/risk decides
    worse: float  # the same that it is worse


def is_old_versions(task_id: int, new: str) -> bool:
    """Return whether the old version draws a task: by its number, for everybody, as if a coin were thrown.

    Args:
        task_id: Label Studio's number.
        new: tag of the version on trial.
    """
    return hashlib.sha256(f"trial\0{new}\0{task_id}".encode()).digest()[0] % 2 == 0


def judge_trial(old: Sequence[float], new: Sequence[float], rule: TrialRule = TrialRule()) -> TrialState:
    """Return what the images so far show; the verdict is that of the first pair at which there is one.

    Args:
        old: share of regions kept untouched, 0..1, of each image that the old version drew, in their order.
        new: the same of the new version.
        rule: when it ends.
    """
    pairs = min(len(old), len(new), rule.most_pairs)
    gain_n = np.asarray(new[:pairs], dtype=np.float64) - np.asarray(old[:pairs], dtype=np.float64)
    better_n, worse_n = _capital(gain_n), _capital(-gain_n)
    decided = [place for place in range(pairs) if max(better_n[place], worse_n[place]) >= 1 / rule.risk]
    verdict, last = Verdict.OPEN, pairs
    if decided:
        last = decided[0] + 1
        is_better = better_n[last - 1] >= worse_n[last - 1]
        verdict = Verdict.BETTER if is_better else Verdict.WORSE
    elif pairs >= rule.most_pairs:
        verdict = Verdict.ALIKE
    return TrialState(
        verdict=verdict,
        pairs=last,
        old_share=float(np.mean(old[:last])) if last else None,
        new_share=float(np.mean(new[:last])) if last else None,
        better=float(better_n[last - 1]) if last else 1.0,
        worse=float(worse_n[last - 1]) if last else 1.0,
    )


def _capital(gain_n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean capital of bets that gains are above 0 on average, after each, float64 (N,)."""
    logs_sn = np.cumsum(np.log1p(np.array(STAKES)[:, None] * gain_n[None, :]), axis=1)
    capital_n: NDArray[np.float64] = np.exp(np.minimum(logs_sn, 600.0)).mean(axis=0)
    return capital_n
