"""Polygons: exact tracing, simplification with a floor, holes and parts, and damaged rings."""

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_fill_holes

from maskloop.errors import CodecError
from maskloop.masks import mask_to_segment
from maskloop.polygons import rings as rings_module
from maskloop.polygons.outlines import trace_parts
from maskloop.polygons.rings import (
    join_holes,
    percent_to_ring,
    ring_to_percent,
    rings_to_mask,
    segments_to_rings,
)


def _rings(segment, **how):
    (rings,) = segments_to_rings([segment], **how)
    return rings


def _split(part):
    outer, *holes = part.rings
    return outer, holes


def _iou(first, second):
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def _disc(size_hw, y, x, radius):
    rows, columns = np.indices(size_hw)
    return np.hypot(rows - y, columns - x) < radius


def _blobs(seed):
    noise = np.random.default_rng(seed).random((120, 160)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return smooth > np.quantile(smooth, 0.7)


SIZE = (120, 160)
SHAPES = [
    pytest.param(np.ones(SIZE, dtype=bool), 1, id="full"),
    pytest.param(_disc(SIZE, 60, 80, 6), 1, id="100 pixels"),
    pytest.param(_disc(SIZE, 0, 0, 50), 1, id="corner"),
    pytest.param(_disc(SIZE, 60, 80, 50) & ~_disc(SIZE, 60, 80, 20), 1, id="hole"),
    pytest.param(
        _disc(SIZE, 60, 80, 50) & ~_disc(SIZE, 50, 60, 9) & ~_disc(SIZE, 70, 95, 12), 1, id="two holes"
    ),
    pytest.param(_disc(SIZE, 40, 40, 30) | _disc(SIZE, 70, 120, 25), 2, id="two parts"),
    pytest.param(
        _disc(SIZE, 60, 80, 50) & ~_disc(SIZE, 60, 80, 35) | _disc(SIZE, 60, 80, 20), 2, id="island"
    ),
    pytest.param(_blobs(0), None, id="blobs"),
    pytest.param(_blobs(1), None, id="other blobs"),
]


@settings(deadline=None)
@given(mask_hw=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)))
def test_segments_to_rings_without_tolerance_keeps_every_pixel(mask_hw):
    segment = mask_to_segment(mask_hw, label="disc")
    rings = _rings(segment, tolerance_px=0) if segment else []
    shown = [percent_to_ring(ring_to_percent(ring, mask_hw.shape), mask_hw.shape) for ring in rings]
    assert np.array_equal(rings_to_mask(shown, mask_hw.shape), mask_hw)


@settings(deadline=None)
@given(masks=st.lists(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)), max_size=4))
def test_trace_parts_many_masks_agree_with_connected_components(masks):
    parts = trace_parts(masks)
    for index, mask_hw in enumerate(masks):
        count, part_hw = cv2.connectedComponents(mask_hw.astype(np.uint8), connectivity=4)
        background = np.pad(~mask_hw, 1, constant_values=True).astype(np.uint8)
        mine = [part for part in parts if part.mask == index]
        drawn = [rings_to_mask([join_holes(*_split(part))], mask_hw.shape) for part in mine]
        assert len(mine) == count - 1
        assert sum(len(part.rings) - 1 for part in mine) == cv2.connectedComponents(background)[0] - 2
        assert all(len(np.unique(part_hw[one])) == 1 for one in drawn)
        assert np.array_equal(sum(map(np.int64, drawn), np.zeros(mask_hw.shape)), mask_hw)


@pytest.mark.parametrize(("mask_hw", "parts"), SHAPES)
def test_segments_to_rings_default_keeps_shape_within_budget(mask_hw, parts):
    rings = _rings(mask_to_segment(mask_hw, label="disc"))
    assert parts is None or len(rings) == parts
    assert _iou(rings_to_mask(rings, SIZE), mask_hw) >= 0.98
    assert max(len(ring) for ring in rings) <= 200
    largest_first = [np.count_nonzero(rings_to_mask([ring], SIZE)) for ring in rings]
    assert largest_first == sorted(largest_first, reverse=True)


@pytest.mark.parametrize(("mask_hw", "parts"), SHAPES)
def test_segments_to_rings_even_odd_by_opencv_keeps_holes(mask_hw, parts):
    # fillPoly counts crossings (even-odd) and also draws the outline, so one pixel around edges is left out.
    shift = 8
    drawn = np.zeros(SIZE, dtype=np.uint8)
    for ring in _rings(mask_to_segment(mask_hw, label="disc")):
        points = np.round((ring - 0.5) * 2**shift).astype(np.int32)
        cv2.fillPoly(drawn, [points[:, None]], 1, shift=shift)
    kernel = np.ones((7, 7), np.uint8)
    inside = cv2.erode(mask_hw.astype(np.uint8), kernel) > 0
    outside = cv2.dilate(mask_hw.astype(np.uint8), kernel) == 0
    assert drawn[inside].all()
    assert not drawn[outside].any()


@pytest.mark.parametrize("seed", range(6))
def test_rings_to_mask_simple_ring_equals_shapely(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.random(9)) * 2 * np.pi
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(4, 18, (9, 1)) + (20.3, 15.7)
    polygon = shapely.Polygon(ring)
    rows, columns = np.indices((32, 40))
    assert polygon.is_valid
    expected = shapely.contains_xy(polygon, columns + 0.5, rows + 0.5)
    assert np.array_equal(rings_to_mask([ring], (32, 40)), expected)


def test_rings_to_mask_overlap_in_ring_is_filled_like_in_the_browser():
    # Twice around the same square: the canvas fills what is wound, even-odd would leave it open.
    square = np.array([[2, 2], [8, 2], [8, 8], [2, 8]], dtype=np.float64)
    assert np.count_nonzero(rings_to_mask([np.concatenate([square, square])], (10, 10))) == 36


def test_rings_to_mask_outside_is_cut_off():
    ring = np.array([[-50, -50], [5, -50], [5, 500], [-50, 500]], dtype=np.float64)
    assert np.array_equal(rings_to_mask([ring], (10, 12)), np.indices((10, 12))[1] < 5)
    assert not rings_to_mask([ring + 1000], (10, 12)).any()


def test_segments_to_rings_thin_line_stays():
    mask_hw = np.zeros((40, 40), dtype=bool)
    mask_hw[5, 2:38] = mask_hw[5:35, 2] = True
    rings = _rings(mask_to_segment(mask_hw, label="disc"))
    assert np.array_equal(rings_to_mask(rings, mask_hw.shape), mask_hw)


def test_segments_to_rings_small_parts_and_holes_stay():
    mask_hw = _disc(SIZE, 60, 80, 50)
    mask_hw[60, 80] = False
    mask_hw[2, 2] = True
    drawn = rings_to_mask(_rings(mask_to_segment(mask_hw, label="disc")), SIZE)
    assert drawn[2, 2]
    assert not drawn[60, 80]


@pytest.mark.parametrize("seed", range(4))
def test_segments_to_rings_without_holes_are_valid(seed):
    segment = mask_to_segment(binary_fill_holes(_blobs(seed)), label="disc")
    assert all(shapely.Polygon(ring).is_valid for ring in _rings(segment))


def test_segments_to_rings_slanted_edges_take_few_points_and_stay_near():
    rows, columns = np.indices(SIZE)
    mask_hw = (rows > 0.3 * columns + 10) & (rows < 110 - 0.2 * columns)
    (ring,) = _rings(mask_to_segment(mask_hw, label="disc"))
    (exact,) = _rings(mask_to_segment(mask_hw, label="disc"), tolerance_px=0)
    assert len(ring) <= 6 < 50 < len(exact)
    assert shapely.hausdorff_distance(shapely.LinearRing(ring), shapely.LinearRing(exact)) <= 1.01


@pytest.mark.parametrize("size_hw", [(97, 133), (1080, 1920), (3001, 4003)])
def test_percent_to_ring_gives_the_very_points_back(size_hw):
    points = np.random.default_rng(0).integers(0, 2 * min(size_hw), (50, 2)) / 2
    ring = percent_to_ring(ring_to_percent(points, size_hw), size_hw)
    assert np.array_equal(ring, np.minimum(points, size_hw[::-1]))


def test_segments_to_rings_corner_touch_is_two_parts():
    mask_hw = np.eye(2, dtype=bool)
    assert len(_rings(mask_to_segment(mask_hw, label="disc"))) == 2


def test_segments_to_rings_small_budget_is_kept_where_iou_allows():
    segment = mask_to_segment(_disc(SIZE, 60, 80, 55), label="disc")
    few, many = (_rings(segment, max_vertices=most, tolerance_px=0.3)[0] for most in (30, 200))
    assert len(few) <= 30 < len(many)
    assert _iou(rings_to_mask([few], SIZE), _disc(SIZE, 60, 80, 55)) >= 0.98


def test_ring_to_percent_image_edges_are_0_and_100():
    ring = np.array([[0, 0], [160, 0], [160, 120], [0, 120]], dtype=np.float64)
    assert ring_to_percent(ring, SIZE) == [[0, 0], [100, 0], [100, 100], [0, 100]]


BROKEN = [
    pytest.param(None, "3 to", id="none"),
    pytest.param("abc", "3 to", id="text"),
    pytest.param([[1, 2], [3, 4]], "got 2 points", id="two points"),
    pytest.param([[1, 2], [3, 4], [5]], "pairs", id="short pair"),
    pytest.param([[1, 2], [3, 4], [5, "x"]], "pairs", id="word"),
    pytest.param([[1, 2], [3, 4], [5, None]], "pairs", id="none inside"),
    pytest.param([[1, 2], [3, 4], [5, float("inf")]], "finite", id="infinite"),
    pytest.param([[1, 2], [3, 4], [5, 10**400]], "pairs", id="huge number"),
]


@pytest.mark.parametrize(("points", "words"), BROKEN)
def test_percent_to_ring_broken_raises(points, words):
    with pytest.raises(CodecError, match=words):
        percent_to_ring(points, SIZE, place="Task 1, region r")


def test_rings_to_mask_too_many_crossings_raises():
    ring = np.tile([[0.0, 0.0], [3.0, 3000.0]], (20_000, 1))
    with pytest.raises(CodecError, match="crossings"):
        rings_to_mask([ring], (3000, 4))


@pytest.mark.parametrize("step", [1, 3])
def test_segments_to_rings_several_at_once_equals_one_by_one(step, monkeypatch):
    monkeypatch.setattr(rings_module, "SHEET_ROWS", 200 * step)
    segments = [mask_to_segment(shape.values[0], label="disc") for shape in SHAPES]
    together = segments_to_rings(segments)
    for segment, rings in zip(segments, together, strict=True):
        alone = _rings(segment)
        assert len(rings) == len(alone)
        assert all(np.array_equal(one, other) for one, other in zip(rings, alone, strict=True))
