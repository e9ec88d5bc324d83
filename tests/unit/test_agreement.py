"""How much two predictions say the same, against cases worked out by hand."""

import pytest

from maskloop.masks import agreement
from maskloop.types import Prediction


@pytest.fixture
def predict(make_segment):
    def make(*offsets, label="disc"):
        segments = tuple(make_segment(offset=offset, label=label) for offset in offsets)  # 8 x 10 pixels
        return Prediction(segments=segments, size_hw=(64, 64), confidence=0.5)

    return make


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param((), (), 1.0, id="both empty"),
        pytest.param(((0, 0),), (), 0.0, id="one empty"),
        pytest.param(((0, 0), (20, 20)), ((20, 20), (0, 0)), 1.0, id="same, another order"),
        pytest.param(((0, 0),), ((0, 2),), 64 / 96, id="shifted"),
        pytest.param(((0, 0),), ((0, 5),), 0.0, id="too far"),
        pytest.param(((0, 0), (20, 20)), ((0, 0),), 2 / 3, id="one missing"),
        pytest.param(((0, 0), (0, 0)), ((0, 0),), 2 / 3, id="said twice"),
    ],
)
def test_agreement_is_symmetric_and_as_by_hand(predict, first, second, expected):
    assert agreement(predict(*first), predict(*second)) == pytest.approx(expected)
    assert agreement(predict(*second), predict(*first)) == pytest.approx(expected)


def test_agreement_other_label_is_no_match(predict):
    assert agreement(predict((0, 0)), predict((0, 0), label="ring")) == 0.0
