"""Numbers by chance that belong to a task: the same whenever and wherever they are asked for.

They come from mixing (seed, purpose, task number), so no state has to be kept for a draw to stay drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["chance"]

MASK_64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def chance(seed: int, numbers_n: ArrayLike, *purpose: int) -> NDArray[np.float64]:
    """Return one number 0 <= u < 1 for each of these; those of two purposes have nothing in common.

    Source:
        SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014,
        figure 16.
    """
    state_n = np.asarray(numbers_n, dtype=np.int64).astype(np.uint64) * np.uint64(GOLDEN)
    for word in (seed, *purpose):
        state_n = _mix(state_n ^ _mix(np.array([word & MASK_64], dtype=np.uint64)))
    return (state_n >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(state_n: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state_n = state_n + np.uint64(GOLDEN)
    state_n = (state_n ^ (state_n >> np.uint64(30))) * np.uint64(FACTORS[0])
    state_n = (state_n ^ (state_n >> np.uint64(27))) * np.uint64(FACTORS[1])
    return state_n ^ (state_n >> np.uint64(31))
