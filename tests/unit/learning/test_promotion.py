from dataclasses import replace

import pytest

from maskloop.learning.promotion import decide
from maskloop.types import HoldoutMetrics

CHAMPION = HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.6, images=24)


def shifted(gain, **changes):
    return replace(CHAMPION, ap50=0.5 + gain, pq=0.4 + gain, miou=0.6 + gain, **changes)


@pytest.mark.parametrize(
    ("gain", "margin", "promote"),
    [(0.02, 0.0, True), (0.02, 0.03, False), (0.04, 0.03, True), (0.0, 0.0, False), (-0.1, 0.0, False)],
    ids=["better", "within-margin", "beyond-margin", "same", "worse"],
)
def test_decide_by_mean_of_three(gain, margin, promote):
    decision = decide(CHAMPION, shifted(gain), margin=margin)
    assert decision.promote is promote
    assert decision.gain == pytest.approx(gain)
    assert "24 holdout images" in decision.reason


def test_decide_one_metric_falls_mean_rises_promotes():
    challenger = replace(CHAMPION, ap50=0.45, pq=0.6)
    assert decide(CHAMPION, challenger, margin=0.0).promote


def test_decide_no_holdout_keeps_champion_and_says_why():
    decision = decide(replace(CHAMPION, images=0), shifted(0.3, images=0), margin=0.0)
    assert (decision.promote, decision.gain) == (False, 0.0)
    assert "no holdout image" in decision.reason


def test_decide_different_holdouts_keeps_champion():
    decision = decide(CHAMPION, shifted(0.3, images=25), margin=0.0)
    assert not decision.promote
    assert "24 and 25" in decision.reason


def test_decide_not_finite_keeps_champion():
    decision = decide(CHAMPION, replace(CHAMPION, pq=float("nan")), margin=0.0)
    assert not decision.promote
    assert "not finite" in decision.reason
