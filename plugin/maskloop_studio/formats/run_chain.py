"""Where the items of a stream begin, found in parallel; each item's length is known only once it is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_ITEM", "follow_chain"]

NO_ITEM = 1  # the step from where no item begins
MAX_STEP = 2**8 - 1
BLOCK = 2048  # positions of which one of the parallel walks finds the items
LEAD = 512  # positions that it walks before them, to meet the true chain
SHORT = 40 * BLOCK  # below that a plain loop is faster
MAX_WALK = 256  # steps; a walk that is not at its end by then went from one NO_ITEM to the next
STRAGGLERS_OF = 64  # one in so many walks may be left unfinished, and its block is walked again
STRIDE = 8  # steps between two checks whether all walks are at their ends


def follow_chain(steps: NDArray[np.uint8], first: int) -> NDArray[np.int64]:
    """Return the positions first, first + steps[first] and so on, as far as there are steps.

    A walk that begins anywhere in such a stream soon meets the true chain, and stays on it. So one walk for
    each block begins a little before it, all of them at once. Where a block's walk has not met the chain that
    comes out of the block before, the block is walked again, one step after the other.

    Args:
        steps: uint8 (N,), at least 1: how far it is from each position to the next if an item begins there,
            NO_ITEM where none can.
        first: where the first item begins, before N.

    Returns:
        int64, ascending. The chain ends at the first position without an item, which is returned as
        well; what comes after that one has no meaning.

    Source:
        Klein and Wiseman, "Parallel Huffman Decoding with Applications to JPEG Files", The Computer Journal
        46(5), 2003.
    """
    if len(steps) < SHORT:
        return np.array(_walk(steps.tobytes(), first, len(steps)), dtype=np.int64)
    # A rest that one step may pass over belongs to the last block.
    starts = np.arange(first, len(steps) - MAX_STEP, BLOCK)
    stops = np.append(starts[1:], len(steps))
    positions_bs = _walk_all(steps, np.maximum(starts - LEAD, first), stops)
    inside_bs = (positions_bs >= starts[:, None]) & (positions_bs < stops[:, None])
    positions = positions_bs[inside_bs]
    ends = np.cumsum(np.count_nonzero(inside_bs, axis=1))
    # Where each block's walk enters the block and where it leaves it; -1: it has not reached the end.
    entries = positions_bs[np.arange(len(starts)), np.argmax(inside_bs, axis=1)]
    last = positions[ends - 1]
    exits = np.where(positions_bs[:, -1] >= stops, last + steps[last], -1)
    arrivals = np.append(first, exits[:-1])
    missed = np.flatnonzero((entries != arrivals) | (exits < 0))
    if missed.size == 0:
        return positions
    walks = _Walks(positions=positions, ends=ends, stops=stops, entries=entries, exits=exits)
    return np.concatenate(_walk_missed_again(steps.data, walks, missed))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Walks:
    """The parallel walks, one for each of B blocks."""

    positions: NDArray[np.int64]  # (N,): inside the blocks, one block after the other
    ends: NDArray[np.int64]  # (B,): where each block's positions end in `positions`
    stops: NDArray[np.int64]  # (B,): the position after each block
    entries: NDArray[np.int64]  # (B,): the first position inside each block
    exits: NDArray[np.int64]  # (B,): the first position after each block; -1: the walk has not reached it


def _walk_all(
    steps: NDArray[np.uint8], first_b: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the positions (B, S) of all walks, step by step until nearly all are past their stops."""
    walked_sb = np.empty((MAX_WALK + 1, len(first_b)), dtype=np.int64)
    walked_sb[0] = first_b
    stragglers = len(first_b) // STRAGGLERS_OF
    step_b = np.empty(len(first_b), dtype=np.uint8)
    for step in range(MAX_WALK):
        # Past the end a walk goes on with the last step, which changes nothing; other modes copy `out`.
        steps.take(walked_sb[step], out=step_b, mode="clip")
        np.add(walked_sb[step], step_b, out=walked_sb[step + 1])
        if (step + 1) % STRIDE == 0 and np.count_nonzero(walked_sb[step + 1] < stops) <= stragglers:
            break
    return walked_sb[: step + 2].T


def _walk_missed_again(
    steps: memoryview, walks: _Walks, missed: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Return the chain in pieces: the blocks that are right as they are, the others walked again."""
    positions, ends, stops = walks.positions, walks.ends, walks.stops
    entries, exits = walks.entries, walks.exits
    pieces = []
    kept, block = 0, int(missed[0])
    arrival = int(exits[block - 1]) if block else int(positions[0])
    while True:
        pieces.append(positions[kept : ends[block - 1] if block else 0])
        walked = _walk(steps, arrival, int(stops[block]))
        pieces.append(np.array(walked, dtype=np.int64))
        kept, arrival = int(ends[block]), walked[-1] + steps[walked[-1]]
        if arrival < stops[block]:
            return pieces  # the chain ends here
        block += 1
        if block < len(stops) and arrival == entries[block] and exits[block] >= 0:
            following = int(np.searchsorted(missed, block, side="right"))
            block = int(missed[following]) if following < len(missed) else len(stops)
            arrival = int(exits[block - 1])
        if block == len(stops):
            pieces.append(positions[kept:])
            return pieces


def _walk(steps: bytes | memoryview, at: int, stop: int) -> list[int]:
    """Return the positions from `at`, before `stop`, to the one before it or to the first without an item."""
    walked = []
    while at < stop:
        walked.append(at)
        step = steps[at]
        if step == NO_ITEM:
            break
        at += step
    return walked
