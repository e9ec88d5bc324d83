"""Shared borders: neighbouring polygons leave no pixel out and none twice, and stay close to the masks."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis.extra import numpy as hnp

from maskloop.masks import mask_to_segment
from maskloop.polygons.coverage import segments_to_shared_rings
from maskloop.polygons.rings import rings_to_mask
from maskloop.types import Prediction
from maskloop_studio.formats import DrawingOptions, annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import map_labels, parse_label_config

SIZE = (120, 160)
XML = """<View><Image name="image" value="$image"/><PolygonLabels name="p" toName="image">
<Label value="0"/><Label value="1"/><Label value="2"/></PolygonLabels></View>"""


def _segments(index_hw):
    return [mask_to_segment(index_hw == index, label=str(index)) for index in range(index_hw.max() + 1)]


def _partition():
    """Return an index map (H, W): a wavy border, a third area upon it, an island, and a 1-pixel piece."""
    rows, columns = np.indices(SIZE)
    index_hw = (columns > 70 + 15 * np.sin(rows / 9)).astype(np.int64)
    index_hw[np.hypot(rows - 60, columns - 75) < 30] = 2
    index_hw[np.hypot(rows - 60, columns - 75) < 9] = 0
    index_hw[5, 5] = 1
    return index_hw


def _rings(segments, size_hw, tolerance_px=1.0, max_vertices=200):
    return segments_to_shared_rings(segments, size_hw, tolerance_px=tolerance_px, max_vertices=max_vertices)


@pytest.mark.parametrize("tolerance_px", [0.0, 1.0, 3.0])
def test_segments_to_shared_rings_leave_no_gap_and_no_overlap(tolerance_px):
    index_hw = _partition()
    rings = _rings(_segments(index_hw), SIZE, tolerance_px)
    masks = np.array([rings_to_mask(parts, SIZE) for parts in rings])
    assert (masks.sum(axis=0) == 1).all()
    for index, mask_hw in enumerate(masks):
        wanted = index_hw == index
        assert np.count_nonzero(mask_hw & wanted) >= 0.9 * np.count_nonzero(mask_hw | wanted)
    assert np.count_nonzero(masks.argmax(axis=0) == index_hw) >= 0.98 * index_hw.size


def test_segments_to_shared_rings_use_fewer_points_than_the_outlines():
    segments = _segments(_partition())
    exact, simple = _rings(segments, SIZE, 0.0), _rings(segments, SIZE)
    count = [sum(len(ring) for parts in rings for ring in parts) for rings in (exact, simple)]
    assert count[1] < 0.5 * count[0]


def test_segments_to_shared_rings_neighbours_have_the_same_border_points():
    index_hw = (np.indices(SIZE).sum(axis=0) > 130).astype(np.int64)
    (first,), (second,) = _rings(_segments(index_hw), SIZE)
    shared = {tuple(point) for point in first} & {tuple(point) for point in second}
    inner = {(x, y) for x, y in first if 0 < x < SIZE[1] and 0 < y < SIZE[0]}
    assert inner <= shared


INDEX_MAPS = hnp.arrays(
    np.int64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements={"min_value": 0, "max_value": 3},
)


@pytest.mark.parametrize("tolerance_px", [0.0, 0.2], ids=["exact", "smoothed"])
@settings(deadline=None, max_examples=60)
@given(index_hw=INDEX_MAPS)
def test_segments_to_shared_rings_hardly_any_tolerance_keep_every_pixel(index_hw, tolerance_px):
    present = [segment for segment in _segments(index_hw) if segment is not None]
    for segment, parts in zip(present, _rings(present, index_hw.shape, tolerance_px), strict=True):
        assert np.array_equal(rings_to_mask(parts, index_hw.shape), index_hw == int(segment.label))


CORNER_BESIDE_A_PIXEL = np.zeros((9, 8), dtype=np.int64)
CORNER_BESIDE_A_PIXEL[7, 7] = CORNER_BESIDE_A_PIXEL[8, 5] = 1


@settings(deadline=None, max_examples=60)
@example(index_hw=CORNER_BESIDE_A_PIXEL)
@given(index_hw=INDEX_MAPS)
def test_segments_to_shared_rings_any_map_has_no_gap_and_no_overlap(index_hw):
    present = [segment for segment in _segments(index_hw) if segment is not None]
    masks = [rings_to_mask(parts, index_hw.shape) for parts in _rings(present, index_hw.shape)]
    assert (np.sum(masks, axis=0) == 1).all()


def test_segments_to_shared_rings_overlap_is_the_first_ones():
    whole = mask_to_segment(np.ones(SIZE, dtype=bool), label="whole")
    corner = mask_to_segment(np.indices(SIZE).sum(axis=0) < 50, label="corner")
    first, second = _rings([corner, whole], SIZE)
    assert not (rings_to_mask(first, SIZE) & rings_to_mask(second, SIZE)).any()
    assert _rings([whole, corner], SIZE)[1] == []
    assert _rings([], SIZE) == []


def test_prediction_to_regions_with_shared_borders_cover_the_image():
    segments = tuple(_segments(_partition()))
    prediction = Prediction(segments=segments, size_hw=SIZE, confidence=0.5)
    config = parse_label_config(XML)
    regions = prediction_to_regions(
        prediction,
        map_labels(config, ["0", "1", "2"]),
        id_seed="v1/7",
        drawing=DrawingOptions(shared_borders=True),
    )
    found = annotation_to_segments(regions, config).segments
    assert [segment.label for segment in found] == ["0", "1", "2"]
    assert sum(segment.area for segment in found) == SIZE[0] * SIZE[1]
