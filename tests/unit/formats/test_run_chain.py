"""Following a chain in parallel against following it step by step."""

import numpy as np
import pytest

from maskloop_studio.formats.run_chain import BLOCK, LEAD, MAX_STEP, MAX_WALK, NO_ITEM, SHORT, follow_chain


def _plain(steps, first):
    found = [first]
    while (step := int(steps[found[-1]])) != NO_ITEM and found[-1] + step < len(steps):
        found.append(found[-1] + step)
    return found


def _random(seed, length, sizes, share_without):
    rng = np.random.default_rng(seed)
    steps = rng.choice(np.array(sizes, dtype=np.uint8), length)
    steps[rng.random(length) < share_without] = NO_ITEM
    return steps


def _open_until(steps, first, stop):
    """Let the chain have items as far as `stop`."""
    at = first
    while at < min(stop, len(steps)):
        steps[at] = max(steps[at], 12)
        at += int(steps[at])
    return steps


LONG = SHORT + 5 * BLOCK + 17
CASES = [
    pytest.param(_random(0, 200, (14, 15), 0.0), id="short"),
    pytest.param(_random(1, LONG, (14, 15, 19, 27), 0.0), id="meets at once"),
    pytest.param(_random(2, LONG, (14, 28, 42), 0.0), id="lattice that some walks never meet"),
    pytest.param(np.full(LONG, 14, dtype=np.uint8), id="one size: most walks never meet"),
    pytest.param(np.full(LONG, 255, dtype=np.uint8), id="longest steps"),
    pytest.param(np.full(LONG, NO_ITEM, dtype=np.uint8), id="no item at all"),
    pytest.param(_open_until(_random(3, LONG, (14, 19), 0.9), 53, LONG), id="walks that often find no item"),
    pytest.param(
        _open_until(np.full(LONG, NO_ITEM, dtype=np.uint8), 53, LONG), id="no item outside of the chain"
    ),
    pytest.param(_open_until(_random(4, LONG, (14, 19), 0.3), 53, LONG // 2), id="ends halfway"),
    pytest.param(_open_until(np.full(SHORT, NO_ITEM, dtype=np.uint8), 53, SHORT - 3), id="exactly blocks"),
]


@pytest.mark.parametrize("steps", CASES)
def test_follow_chain_equals_step_by_step(steps):
    expected = _plain(steps, 53)
    found = follow_chain(steps, 53)
    # what comes after the first position without an item is of no meaning
    assert found[: len(expected)].tolist() == expected
    if len(found) > len(expected):
        assert steps[expected[-1]] == NO_ITEM
    assert found.dtype == np.int64


@pytest.mark.parametrize("rest", range(0, 40, 3))
def test_follow_chain_any_end_equals_step_by_step(rest):
    steps = _random(rest, SHORT + BLOCK + rest, (14, 15, 19, 27), 0.0)
    assert follow_chain(steps, 53).tolist() == _plain(steps, 53)


@pytest.mark.parametrize("seed", range(20))
def test_follow_chain_random_steps_equals_step_by_step(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(12, 40, rng.integers(1, 5))
    first = int(rng.integers(0, BLOCK))
    steps = _open_until(
        _random(seed, int(SHORT + rng.integers(0, 9000)), sizes, 0.3 * rng.random()), first, 10**9
    )
    assert follow_chain(steps, first).tolist() == _plain(steps, first)


def test_follow_chain_walks_are_long_enough_for_the_shortest_run():
    assert MAX_WALK * 12 > LEAD + BLOCK + MAX_STEP
