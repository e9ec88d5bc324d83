"""Rectangles, ellipses and key points: what masks become, and what regions mean in pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskloop.errors import CodecError
from maskloop.masks import mask_to_segment
from maskloop.polygons.rings import rings_to_mask
from maskloop_studio.formats.shapes import (
    ellipse_to_ring,
    rectangle_to_ring,
    segment_to_ellipse,
    segment_to_key_point,
    segment_to_rectangle,
)

SIZE = (120, 160)


def _iou(first, second):
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def _ellipse(size_hw, y, x, radius_x, radius_y, degrees):
    """Return the mask of an ellipse by its equation, turned clockwise as seen."""
    rows, columns = np.indices(size_hw) + 0.5
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along = (columns - x) * cos + (rows - y) * sin
    down = (rows - y) * cos - (columns - x) * sin
    return (along / radius_x) ** 2 + (down / radius_y) ** 2 < 1


@settings(deadline=None)
@given(data=st.data(), height=st.integers(1, 300), width=st.integers(1, 300))
def test_rectangle_round_trip_keeps_every_pixel(data, height, width):
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask_hw = np.zeros((height, width), dtype=bool)
    mask_hw[top:bottom, left:right] = True
    value = segment_to_rectangle(mask_to_segment(mask_hw, label="box"), mask_hw.shape)
    ring = rectangle_to_ring(value, mask_hw.shape, place="here")
    assert np.array_equal(rings_to_mask([ring], mask_hw.shape), mask_hw)


@settings(deadline=None, max_examples=60)
@given(radius_x=st.floats(8, 30), radius_y=st.floats(8, 30), degrees=st.floats(0, 180), wide=st.booleans())
def test_ellipse_round_trip_keeps_the_ellipse(radius_x, radius_y, degrees, wide):
    size_hw = (90, 200) if wide else (200, 90)
    mask_hw = _ellipse(size_hw, size_hw[0] / 2 + 3, size_hw[1] / 2 - 4, radius_x, radius_y, degrees)
    value = segment_to_ellipse(mask_to_segment(mask_hw, label="disc"), size_hw)
    ring = ellipse_to_ring(value, size_hw, place="here")
    assert _iou(rings_to_mask([ring], size_hw), mask_hw) >= 0.95


@pytest.mark.parametrize(
    ("mask_hw", "at_most"),
    [
        pytest.param(np.ones(SIZE, dtype=bool), 50, id="full"),
        pytest.param(np.eye(120, 160, dtype=bool), 50, id="thin diagonal"),
        pytest.param(np.arange(120 * 160).reshape(SIZE) == 0, 1, id="one pixel in the corner"),
    ],
)
def test_segment_to_ellipse_stays_within_what_the_sdk_accepts(mask_hw, at_most):
    value = segment_to_ellipse(mask_to_segment(mask_hw, label="disc"), SIZE)
    assert all(0 < value[key] <= at_most for key in ("x", "y", "radiusX", "radiusY"))
    assert 0 <= value["rotation"] < 360


@pytest.mark.parametrize("degrees", [0, 30, 90, 200, -45])
def test_ellipse_to_ring_turns_clockwise_about_the_centre(degrees):
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10, "rotation": degrees}
    drawn = rings_to_mask([ellipse_to_ring(value, SIZE, place="here")], SIZE)
    assert _iou(drawn, _ellipse(SIZE, 60, 80, 40, 12, degrees)) > 0.995


@pytest.mark.parametrize(
    ("degrees", "box"),
    [
        pytest.param(0, (60, 80, 72, 112), id="upright"),
        pytest.param(90, (60, 68, 92, 80), id="quarter turn, the corner stays"),
        pytest.param(180, (48, 48, 60, 80), id="half turn"),
        pytest.param(-90, (28, 80, 60, 92), id="quarter turn back"),
    ],
)
def test_rectangle_to_ring_turns_clockwise_about_its_corner(degrees, box):
    value = {"x": 50, "y": 50, "width": 20, "height": 10, "rotation": degrees}
    drawn = rings_to_mask([rectangle_to_ring(value, SIZE, place="here")], SIZE)
    expected = np.zeros(SIZE, dtype=bool)
    expected[box[0] : box[2], box[1] : box[3]] = True
    assert np.array_equal(drawn, expected)


def test_rectangle_to_ring_agrees_with_the_sdk():
    convert = pytest.importorskip("label_studio_sdk.converter.utils").convert_annotation_to_yolo_obb
    value = {"x": 40, "y": 30, "width": 20, "height": 15, "rotation": 33}
    theirs = convert({**value, "original_width": 160, "original_height": 120}, normalize=False)
    assert rectangle_to_ring(value, SIZE, place="here") == pytest.approx(np.array(theirs))


@pytest.mark.parametrize(
    "mask_hw",
    [
        pytest.param(_ellipse(SIZE, 60, 80, 50, 50, 0) & ~_ellipse(SIZE, 60, 80, 30, 30, 0), id="ring"),
        pytest.param(np.ones(SIZE, dtype=bool), id="full"),
        pytest.param(np.eye(120, 160, dtype=bool), id="diagonal"),
    ],
)
def test_segment_to_key_point_lies_inside(mask_hw):
    value = segment_to_key_point(mask_to_segment(mask_hw, label="disc"), SIZE)
    assert mask_hw[int(value["y"] * 1.2), int(value["x"] * 1.6)]
    assert value["width"] == 1


BOX = {"x": 1, "y": 1, "width": 2, "height": 2, "radiusX": 3, "radiusY": 3, "rotation": 0}


@pytest.mark.parametrize("read", [rectangle_to_ring, ellipse_to_ring])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"x": math.nan}, id="nan"),
        pytest.param({"y": 1e308}, id="far away"),
        pytest.param({"x": 10**400}, id="too long a number"),
        pytest.param({"width": -1, "radiusX": -1}, id="negative"),
        pytest.param({"height": 0, "radiusY": 0}, id="flat"),
        pytest.param({"x": "1"}, id="text"),
        pytest.param({"y": True}, id="bool"),
        pytest.param({"rotation": math.inf}, id="endless turn"),
        pytest.param({"x": None}, id="none"),
    ],
)
def test_damaged_shapes_raise(read, changes):
    with pytest.raises(CodecError, match="task 4"):
        read(BOX | changes, SIZE, place="task 4")
