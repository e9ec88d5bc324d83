"""The way back, worked out from what was written down and from what the registry says now."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskloop.learning.registry.history import (
    PromotionStep,
    ancestors,
    json_to_step,
    promotion_line,
    step_to_json,
)

AT = datetime(2026, 5, 4, tzinfo=UTC)


def make_step(number, before, kind="promotion"):
    return PromotionStep(number=number, before=before, kind=kind, at=AT, reason="better")


ONE_TO_THREE = (make_step(1, None), make_step(2, 1), make_step(3, 2))


@pytest.mark.parametrize(
    ("steps", "champion", "line"),
    [
        pytest.param((), None, (), id="nothing"),
        pytest.param((), 4, (4,), id="champion without a step"),
        pytest.param(ONE_TO_THREE, 3, (1, 2, 3), id="promotions"),
        pytest.param((*ONE_TO_THREE, make_step(2, 3, "rollback")), 2, (1, 2), id="rolled back"),
        pytest.param(
            (*ONE_TO_THREE, make_step(2, 3, "rollback"), make_step(4, 2)),
            4,
            (1, 2, 4),
            id="and on from there",
        ),
        pytest.param((*ONE_TO_THREE, make_step(1, 3)), 1, (1, 2, 3, 1), id="older one promoted"),
        pytest.param(
            (
                make_step(1, None),
                make_step(2, 1),
                make_step(1, 2),
                make_step(2, 1),
                make_step(1, 2, "rollback"),
            ),
            1,
            (1,),
            id="rolled away from wherever it stood",
        ),
        pytest.param((*ONE_TO_THREE, make_step(4, 3)), 3, (1, 2, 3), id="written down, not made"),
        pytest.param((*ONE_TO_THREE, make_step(2, 3, "rollback")), 3, (1, 2, 3), id="rollback not made"),
        pytest.param(
            (*ONE_TO_THREE, make_step(4, 3), make_step(5, 3)), 5, (1, 2, 3, 5), id="not made, then another"
        ),
        pytest.param(ONE_TO_THREE, 7, (1, 2, 3, 7), id="alias moved by hand"),
        pytest.param((make_step(1, None), make_step(3, 2)), 3, (1, 2, 3), id="moved by hand in between"),
    ],
)
def test_promotion_line_has_previous_champions_in_order(steps, champion, line):
    assert promotion_line(steps, champion) == line


@given(st.lists(st.one_of(st.none(), st.integers(1, 6)), max_size=30))
def test_promotion_line_any_order_excludes_versions_rolled_back(choices):
    steps, champion, left = [], None, set()
    for number in choices:  # None rolls back
        line = promotion_line(steps, champion)
        if number is None and len(line) > 1:
            assert line[-2] not in left
            left.add(champion)
            steps.append(make_step(line[-2], champion, "rollback"))
            champion = line[-2]
        elif number is not None and number != champion:
            left.discard(number)
            steps.append(make_step(number, champion))
            champion = number
    line = promotion_line(steps, champion)
    assert line[-1:] == ((champion,) if champion else ())
    assert left.isdisjoint(line)


def test_step_json_and_back_is_the_same():
    step = make_step(2, None, "rollback")
    assert json_to_step(step_to_json(step)) == step


def test_step_naive_time_is_refused():
    with pytest.raises(ValueError, match="aware"):
        PromotionStep(number=1, before=None, kind="promotion", at=datetime(2026, 1, 1))


def test_step_long_reason_is_cut_for_the_registry():
    assert len(PromotionStep.now(1, None, "promotion", "x" * 9000).reason) == 1000


def test_ancestors_pruned_parent_ends_the_line():
    assert ancestors({3: 2, 5: 3, 6: None}, 5) == (3, 5)
    assert ancestors({}, None) == ()
