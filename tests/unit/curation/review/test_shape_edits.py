import numpy as np
import pytest
from tests.unit.curation.review.test_local_colours import disc

from maskloop.curation.review import shape_edits
from maskloop.curation.review.shape_edits import careless_outline, shifted_copy
from maskloop.masks import paste_segment, segment_iou
from maskloop.types import Segment

SIZE_HW = (60, 80)
PLACES = [
    pytest.param(disc(30, 40, 9, SIZE_HW), id="middle"),
    pytest.param(disc(3, 76, 9, SIZE_HW), id="corner"),
]


@pytest.mark.parametrize("segment", PLACES)
def test_careless_outline_is_half_right_and_inside_the_image(segment: Segment):
    rng = np.random.default_rng(2)
    drawn = [careless_outline(segment, SIZE_HW, rng) for _ in range(60)]
    found = [one for one in drawn if one is not None]
    assert len(found) > 50
    assert all(0.5 <= segment_iou(one, segment) <= 0.85 for one in found)
    boxes = np.array([one.box_yxyx for one in found])
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= SIZE_HW).all()
    larger = np.mean([one.area > segment.area for one in found])
    assert 0.1 < larger < 0.9


@pytest.mark.parametrize("segment", PLACES)
@pytest.mark.parametrize("edit", [careless_outline, shifted_copy])
def test_edit_in_a_window_equals_that_of_the_whole_image(
    segment: Segment, edit, monkeypatch: pytest.MonkeyPatch
):
    in_window = [edit(segment, SIZE_HW, np.random.default_rng(seed)) for seed in range(30)]
    monkeypatch.setattr(
        shape_edits, "window_around", lambda one, size_hw, _: (paste_segment(one, size_hw), (0, 0))
    )
    for seed, found in enumerate(in_window):
        plain = edit(segment, SIZE_HW, np.random.default_rng(seed))
        assert (found is None) == (plain is None)
        if found is not None and plain is not None:
            assert segment_iou(found, plain) > 0.98  # a wave's pixels may fall to the other side by rounding


def test_careless_outline_waves_in_and_out():
    segment = disc(30, 40, 14, SIZE_HW)
    mask_hw, rng = paste_segment(segment, SIZE_HW), np.random.default_rng(0)
    drawn_hw = shape_edits._waved(mask_hw, 4, rng)
    assert (drawn_hw & ~mask_hw).sum() > 30
    assert (mask_hw & ~drawn_hw).sum() > 30
    rows, columns = np.nonzero(drawn_hw != mask_hw)
    from_outline = np.abs(np.hypot(rows - 30, columns - 40) - 14)
    assert from_outline.max() <= 5.5
