import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskloop.learning.data.sampling import (
    FRESH_FACTOR,
    MAX_REPEATS,
    epoch_order,
    example_weights,
    with_guesses,
)

CAR, RARE = frozenset({"car"}), frozenset({"car", "bus"})


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_epoch_order_equal_weights_shows_each_once(count, seed, number):
    assert sorted(epoch_order(np.ones(count), seed, number)) == list(range(count))


@given(st.lists(st.floats(0.5, 8), min_size=1, max_size=30), st.integers(0, 9))
def test_epoch_order_any_weights_shows_fair_shares(weights, number):
    weights = np.array(weights)
    counts = np.bincount(epoch_order(weights, 0, number), minlength=len(weights))
    assert counts.sum() == len(weights)
    assert np.abs(counts - len(weights) * weights / weights.sum()).max() < 1 + 1e-6


def test_epoch_order_same_seed_is_the_same_other_epoch_differs():
    weights = np.linspace(1, 2, 20)
    first, again, other = (epoch_order(weights, 3, number) for number in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("labels", "fresh", "expected"),
    [
        ([CAR] * 5, [False] * 5, [1] * 5),
        ([CAR] * 5, [True] * 5, [FRESH_FACTOR] * 5),
        ([CAR, CAR, frozenset()], [True, False, False], [FRESH_FACTOR, 1, 1]),
        ([RARE, *[CAR] * 19], [False] * 20, [2.0, *[1] * 19]),
        ([RARE, *[CAR] * 999], [False] * 1000, [MAX_REPEATS, *[1] * 999]),
    ],
    ids=["alike", "all-new", "new-and-empty", "one-in-twenty", "one-in-a-thousand"],
)
def test_example_weights_rare_and_new_count_more(labels, fresh, expected):
    assert example_weights(labels, fresh) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("drawn", "guessed", "share"),
    [(16, 100, 0.5), (4, 100, 0.5), (100, 20, 1 / 6), (50, 50, 0.5), (3, 0, 0.0)],
)
def test_guesses_are_half_of_the_views_at_most(drawn, guessed, share):
    is_guessed = [False] * drawn + [True] * guessed
    weights = with_guesses(np.ones(drawn + guessed), is_guessed)
    orders = np.concatenate([epoch_order(weights, 0, number) for number in range(40)])
    assert np.mean(np.asarray(is_guessed)[orders]) == pytest.approx(share, abs=0.01)
    assert len(set(weights[:drawn])) == 1


def test_guesses_keep_the_balance_of_what_people_drew():
    drawn = example_weights([RARE, *[CAR] * 19], [True] + [False] * 19)
    weights = with_guesses(np.concatenate([drawn, np.ones(30)]), [False] * 20 + [True] * 30)
    assert weights[:20] == pytest.approx(drawn)
    assert weights[20:].sum() == pytest.approx(drawn.sum())


def test_guesses_alone_count_alike():
    assert with_guesses(np.ones(3), [True] * 3) == pytest.approx([1, 1, 1])
