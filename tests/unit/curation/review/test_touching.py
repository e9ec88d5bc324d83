import numpy as np
import pytest
from tests.unit.curation.review.conftest import rectangle
from tests.unit.curation.review.test_local_colours import disc

from maskloop.curation.review import touching
from maskloop.curation.review.shape_edits import cut
from maskloop.curation.review.touching import NO_NEIGHBOUR, touching_numbers

SIZE_HW = (64, 64)


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2])
def test_touching_halves_of_one_object_fit_together(angle: float):
    whole = disc(30, 30, 12, SIZE_HW)
    parts = cut(whole, SIZE_HW, angle)
    assert parts is not None
    for part, found in zip(parts, touching_numbers(parts), strict=True):
        assert found["touch"] > 0.25
        assert found["joint_growth"] == pytest.approx(np.log(whole.area / part.area), abs=0.05)
        assert found["joint_solidity"] > -0.05


def test_touching_two_objects_do_not_fit_together():
    objects = [disc(30, 20, 9, SIZE_HW), disc(30, 38, 9, SIZE_HW)]
    for found in touching_numbers(objects):
        assert 0 < found["touch"] < 0.25
        assert found["joint_solidity"] < -0.05


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(rectangle(10, 25, 10, 10), id="apart"),
        pytest.param(rectangle(10, 20, 10, 10, "square"), id="another label"),
    ],
)
def test_touching_none_of_its_label_is_no_neighbour(other):
    assert touching_numbers([rectangle(10, 10, 10, 10), other])[0] == NO_NEIGHBOUR


def test_touching_the_neighbour_that_touches_most_counts():
    regions = [rectangle(10, 10, 10, 10), rectangle(20, 18, 4, 20), rectangle(10, 20, 10, 6)]
    found = touching_numbers(regions)[0]
    assert found["joint_growth"] == pytest.approx(np.log(1.6))


@pytest.mark.parametrize("side", [40, 900], ids=["as it is", "read in steps"])
def test_touching_large_regions_are_told_as_small_ones(side):
    halves = [rectangle(10, 10, side, side), rectangle(10, 10 + side, side, side)]
    for found in touching_numbers(halves):
        assert found["touch"] == pytest.approx(0.25, abs=0.03)
        assert found["joint_growth"] == pytest.approx(np.log(2), abs=0.03)
        assert found["joint_solidity"] == pytest.approx(0, abs=0.03)


def test_touching_of_many_neighbours_those_that_share_most_are_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(touching, "_touch", lambda region, other: compared.append(other) or 0.0)
    crowd = [rectangle(10, 10, 20 + number, 20) for number in range(60)]
    touching_numbers(crowd)
    assert len(compared) == 60 * touching.MOST_NEIGHBOURS


def test_touching_no_regions_is_empty():
    assert touching_numbers([]) == []
