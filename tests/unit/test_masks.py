"""Crops keep exactly what the full mask says."""

import numpy as np
import pytest

from maskloop.masks import (
    crop_mask,
    drop_duplicates,
    drop_pieces,
    drop_specks,
    mask_to_segment,
    paste_segment,
    segment_iou,
    segments_to_index_map,
    window_around,
)
from maskloop.types import Segment


def _mask(*pixels: tuple[int, int], size: tuple[int, int] = (6, 9)) -> np.ndarray:
    mask = np.zeros(size, dtype=np.bool_)
    for pixel in pixels:
        mask[pixel] = True
    return mask


CASES = [
    pytest.param(_mask((3, 4)), (3, 4), (1, 1), id="one pixel"),
    pytest.param(_mask((0, 0)), (0, 0), (1, 1), id="top left corner"),
    pytest.param(_mask((5, 8)), (5, 8), (1, 1), id="bottom right corner"),
    pytest.param(np.ones((6, 9), dtype=np.bool_), (0, 0), (6, 9), id="full"),
    pytest.param(_mask((1, 1), (4, 7)), (1, 1), (4, 7), id="two parts"),
]


@pytest.mark.parametrize(("mask", "offset", "size"), CASES)
def test_crop_mask_any_shape_is_tight(mask, offset, size):
    crop, found = crop_mask(mask)
    assert (found, crop.shape) == (offset, size)


@pytest.mark.parametrize(("mask", "offset", "size"), CASES)
def test_paste_segment_of_mask_gives_mask_back(mask, offset, size):
    segment = mask_to_segment(mask, label="disc")
    assert segment is not None
    np.testing.assert_array_equal(paste_segment(segment, mask.shape), mask)


def test_mask_to_segment_empty_mask_is_none():
    assert mask_to_segment(_mask(), label="disc") is None


def test_paste_segment_beyond_image_is_cut():
    segment = Segment(mask_hw=np.ones((4, 4), dtype=np.bool_), offset_yx=(4, 7), label="disc")
    pasted = paste_segment(segment, (6, 9))
    assert pasted.sum() == 4


def test_drop_specks_small_part_goes_and_crop_follows():
    mask = _mask((0, 0), size=(9, 12))
    mask[4:8, 5:11] = True
    segment = mask_to_segment(mask, label="disc")
    kept = drop_specks(segment, 0.1)
    assert (kept.area, kept.offset_yx, kept.mask_hw.shape) == (24, (4, 5), (4, 6))
    assert drop_specks(segment, 0.01) is segment


def test_drop_duplicates_better_one_stays_and_neighbour_too():
    def square(left, score, label="disc"):
        mask = np.ones((10, 10), dtype=np.bool_)
        return Segment(mask_hw=mask, offset_yx=(0, left), label=label, score=score)

    best, again, beside = square(0, 0.9), square(1, 0.8, label="ring"), square(6, 0.7)
    assert drop_duplicates((best, again, beside), 0.7) == (best, beside)
    assert drop_duplicates((best, again, beside), 0.9) == (best, again, beside)


def _box(box_yxyx, score, label="disc"):
    top, left, bottom, right = box_yxyx
    mask = np.ones((bottom - top, right - left), dtype=np.bool_)
    return Segment(mask_hw=mask, offset_yx=(top, left), label=label, score=score)


WHOLE = (0, 0, 20, 20)
PIECES = {  # name: segments best first, which of them stay
    "empty": ((), ()),
    "one": ((_box(WHOLE, 0.9),), (0,)),
    "piece inside": ((_box(WHOLE, 0.9), _box((2, 2, 8, 8), 0.8)), (0,)),
    "better piece inside a whole": ((_box((2, 2, 8, 8), 0.9), _box(WHOLE, 0.8)), (0, 1)),
    "part with another label": ((_box(WHOLE, 0.9), _box((2, 2, 8, 8), 0.8, "eye")), (0, 1)),
    "equal duplicates": ((_box(WHOLE, 0.9), _box(WHOLE, 0.9), _box(WHOLE, 0.9)), (0,)),
    "chain": ((_box(WHOLE, 0.9), _box((0, 0, 10, 10), 0.8), _box((0, 0, 4, 4), 0.7)), (0,)),
    "chain of overlaps": (
        (_box((0, 0, 9, 9), 0.9), _box((0, 4, 9, 13), 0.8), _box((0, 8, 9, 17), 0.7)),
        (0, 1, 2),
    ),
    "piece of a dropped piece stays": (
        (_box(WHOLE, 0.9), _box((0, 4, 18, 22), 0.8), _box((0, 19, 18, 22), 0.7)),
        (0, 2),
    ),
    "neighbours": ((_box((0, 0, 9, 9), 0.9), _box((0, 9, 9, 18), 0.8)), (0, 1)),
    "exactly the threshold": ((_box(WHOLE, 0.9), _box((0, 12, 10, 22), 0.8)), (0, 1)),
    "a little over it": ((_box(WHOLE, 0.9), _box((0, 11, 10, 21), 0.8)), (0,)),
}


@pytest.mark.parametrize(("segments", "stay"), PIECES.values(), ids=PIECES)
def test_drop_pieces_of_a_better_larger_segment_of_the_label_go(segments, stay):
    assert drop_pieces(segments, 0.8) == tuple(segments[index] for index in stay)
    assert drop_pieces(segments, 1.0) == segments


def plain_drop_pieces(segments, most_inside, size_hw):
    """Compare whole masks, pixel by pixel."""
    kept = []
    for segment in segments:
        mask_hw = paste_segment(segment, size_hw)
        wholes = [paste_segment(better, size_hw) for better in kept if better.label == segment.label]
        if not any(
            whole_hw.sum() >= mask_hw.sum() and (whole_hw & mask_hw).sum() > most_inside * mask_hw.sum()
            for whole_hw in wholes
        ):
            kept.append(segment)
    return tuple(kept)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("most_inside", [0.0, 0.5, 0.8])
def test_drop_pieces_random_masks_as_the_plain_version(seed, most_inside):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :50]
    segments = []
    for score in np.linspace(0.95, 0.5, 25):
        (cy, cx), (ry, rx) = rng.uniform(5, 35, 2), rng.uniform(1.5, 14, 2)
        mask = (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1) & (rng.random(y.shape) > 0.1)
        segments.append(mask_to_segment(mask, label=rng.choice(["disc", "ring"]), score=float(score)))
    found = tuple(segment for segment in segments if segment is not None)
    expected = plain_drop_pieces(found, most_inside, y.shape)
    assert drop_pieces(found, most_inside) == expected
    assert len(expected) < len(found)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("most_iou", [0.0, 0.3, 0.7])
def test_drop_duplicates_random_masks_as_the_plain_version(seed, most_iou):
    rng = np.random.default_rng(seed)
    places_yx, sizes_hw = rng.integers(0, 5, (25, 2)), rng.integers(7, 12, (25, 2))
    segments = [
        _box((*place_yx, *(place_yx + size_hw)), 0.5, label)
        for place_yx, size_hw, label in zip(places_yx, sizes_hw, rng.choice(["a", "b"], 25), strict=True)
    ]
    kept = []
    for segment in segments:
        if all(segment_iou(segment, better) <= most_iou for better in kept):
            kept.append(segment)
    assert drop_duplicates(tuple(segments), most_iou) == tuple(kept)
    assert len(kept) < len(segments)


def test_drop_specks_equal_parts_all_stay():
    segment = mask_to_segment(_mask((0, 0), (3, 4), (5, 8)), label="disc")
    assert drop_specks(segment, 0.9) is segment


def test_segment_iou_random_masks_equals_full_size_count():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = (rng.random((12, 15)) < rng.uniform(0.02, 0.6) for _ in range(2))
        a, b = mask_to_segment(first, label="a"), mask_to_segment(second, label="b")
        if a is None or b is None:
            continue
        expected = (first & second).sum() / (first | second).sum()
        assert segment_iou(a, b) == pytest.approx(expected)


def test_segments_to_index_map_overlap_last_wins():
    low = Segment(mask_hw=np.ones((3, 3), dtype=np.bool_), offset_yx=(0, 0), label="a")
    high = Segment(mask_hw=np.ones((3, 3), dtype=np.bool_), offset_yx=(2, 2), label="b")
    index = segments_to_index_map((low, high), (6, 9))
    assert (index[0, 0], index[2, 2], index[4, 4], index[5, 8]) == (1, 2, 2, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"mask_hw": np.ones((2, 2), dtype=np.uint8)}, id="not bool"),
        pytest.param({"mask_hw": np.ones((0, 2), dtype=np.bool_)}, id="empty"),
        pytest.param({"offset_yx": (-1, 0)}, id="outside"),
        pytest.param({"score": 1.5}, id="score over one"),
    ],
)
def test_segment_invalid_field_raises(wrong):
    values = {"mask_hw": np.ones((2, 2), dtype=np.bool_), "offset_yx": (0, 0), "label": "disc"}
    with pytest.raises(ValueError, match="expected"):
        Segment(**(values | wrong))


@pytest.mark.parametrize("top", [0, 3, 14], ids=["at the top", "inside", "at the bottom"])
def test_window_around_is_a_part_of_the_whole_mask(top):
    segment = Segment(mask_hw=np.eye(6, 4, dtype=bool), offset_yx=(top, 5), label="a")
    window_hw, (y, x) = window_around(segment, (20, 12), 3)
    whole_hw = paste_segment(segment, (20, 12))
    assert (y, x) == (max(0, top - 3), 2)
    assert window_hw.shape == (min(20, top + 9) - y, 10)
    np.testing.assert_array_equal(window_hw, whole_hw[y : y + window_hw.shape[0], x : x + 10])
