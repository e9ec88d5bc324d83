"""The gate's verdict as places in a drawing."""

import pytest

from maskloop_studio.dashboard.gate_picture import MOST_DOTS, WIDTH, draw_gate
from maskloop_studio.dashboard.holdout_images import ImageScore

GATE = {"gain": 0.1, "before": 0.4, "interval": [-0.1, 0.3], "rule": {"margin": 0.02}}


def make_scores(*differences):
    return [
        ImageScore(key=f"1/{task}/{task}", champion=0.5, challenger=0.5 + difference)
        for task, difference in enumerate(differences)
    ]


def test_draw_gate_places_are_proportional_to_values():
    picture = draw_gate(GATE, make_scores(0.5, -0.25, 0.0))
    assert picture.zero_x == WIDTH / 2
    reach = WIDTH / 2 - 30
    assert [dot.x for dot in picture.dots] == [
        pytest.approx(WIDTH / 2 + reach * share, abs=0.1) for share in (-0.5, 0.0, 1.0)
    ]
    assert picture.gain_x == pytest.approx(WIDTH / 2 + reach * 0.2, abs=0.1)
    assert picture.interval_x[0] < picture.zero_x < picture.margin_x < picture.gain_x
    assert (picture.better, picture.worse, picture.same) == (1, 1, 1)
    assert picture.text.startswith("Gain +0.100, interval -0.100 to +0.300; better on 1")


@pytest.mark.parametrize(
    "gate",
    [
        pytest.param({}, id="none"),
        pytest.param({"gain": 0.0}, id="not compared"),
        pytest.param({"gain": "x"}, id="text"),
    ],
)
def test_draw_gate_without_a_comparison_is_none(gate):
    assert draw_gate(gate, make_scores(0.1)) is None


def test_draw_gate_many_images_has_few_dots_and_says_so():
    picture = draw_gate(GATE | {"interval": None}, make_scores(*[place / 5000 for place in range(3000)]))
    assert len(picture.dots) <= MOST_DOTS
    assert len(picture.dots) + picture.left_out == 3000
    assert picture.interval_x is None
    assert all(0 <= dot.x <= WIDTH for dot in picture.dots)
