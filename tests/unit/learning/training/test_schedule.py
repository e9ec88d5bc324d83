import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskloop.learning.training.schedule import affordable_steps, rate_factor, should_give_up


@pytest.mark.parametrize(
    ("done", "spent_s", "expected"),
    [(10, 10, 60), (10, 59, 11), (10, 90, 11), (10, 0, 70), (99, 500, 100), (100, 500, 100)],
    ids=["on-pace", "one-left", "over", "slow-start", "nearly-done", "done"],
)
def test_affordable_steps_fit_the_time(done, spent_s, expected):
    assert affordable_steps(steps=100, done=done, spent_s=spent_s, pace_s=1.0, limit_s=60.0) == expected


@given(st.integers(1, 500), st.integers(0, 500), st.floats(0, 1e4), st.floats(0, 100))
def test_affordable_steps_never_more_than_planned_nor_fewer_than_done(steps, done, spent_s, pace_s):
    done = min(done, steps)
    total = affordable_steps(steps=steps, done=done, spent_s=spent_s, pace_s=pace_s, limit_s=60.0)
    assert done <= total <= steps


@given(st.integers(1, 300), st.integers(0, 50))
def test_rate_factor_climbs_to_one_and_falls_to_zero(steps, warmup):
    factors = [rate_factor(step, warmup=warmup, steps=steps) for step in range(steps + 1)]
    peak = min(warmup, steps // 2)
    assert factors[peak] == max(factors) == 1.0
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] == pytest.approx(0.0, abs=1e-9) or steps == peak


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([], False), ([3, 2], False), ([3, 2, 2.5], False), ([3, 2, 2.5, 2.1], True), ([3, 2, 2.5, 1.9], False)],
    ids=["none", "gaining", "one-without", "two-without", "late-gain"],
)
def test_should_give_up_after_two_without_gain(losses, expected):
    assert should_give_up(losses, patience=2) is expected
