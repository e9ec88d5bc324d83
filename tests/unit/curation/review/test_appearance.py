import cv2
import numpy as np
import pytest
from tests.unit.curation.review.conftest import rectangle

from maskloop.curation.review.appearance import UNKNOWN, ColourModel, appearance_of, on_view
from maskloop.masks import paste_segment

GREEN, GREY = (40, 160, 60), (120, 120, 120)


def painted(objects: list[tuple[int, int, int, int]], size_hw: tuple[int, int] = (64, 64)) -> np.ndarray:
    image_hwc = np.full((*size_hw, 3), GREY, np.uint8)
    for top, left, height, width in objects:
        image_hwc[top : top + height, left : left + width] = GREEN
    return image_hwc


@pytest.fixture
def colours() -> ColourModel:
    """Three green objects on grey, of which two have a region."""
    image_hwc = painted([(5, 5, 14, 14), (5, 40, 14, 14), (40, 20, 14, 14)])
    regions = [rectangle(5, 5, 14, 14), rectangle(5, 40, 14, 14)]
    return ColourModel(appearance_of(image_hwc), regions, (64, 64))


@pytest.mark.parametrize(
    ("place", "inside"),
    [((5, 5), (0.9, 1.0)), ((40, 20), (0.9, 1.0)), ((25, 45), (0.0, 0.1))],
    ids=["its own region", "overlooked object", "nothing there"],
)
def test_colours_tell_objects_from_the_rest(
    colours: ColourModel, place: tuple[int, int], inside: tuple[float, float]
):
    assert inside[0] <= colours.numbers(rectangle(*place, 14, 14))["colour_inside"] <= inside[1]


def test_colours_of_the_only_region_are_not_judged_by_itself():
    image_hwc = painted([(10, 10, 20, 20)])
    only = ColourModel(appearance_of(image_hwc), [rectangle(10, 10, 20, 20)], (64, 64))
    assert only.numbers(rectangle(10, 10, 20, 20))["colour_inside"] < 0.6


def test_edges_are_strongest_on_the_true_outline(colours: ColourModel):
    true, shifted = (colours.numbers(rectangle(5, 5 + by, 14, 14)) for by in (0, 5))
    assert true["edge_gain"] > shifted["edge_gain"] + 1
    assert true["colour_band"] < shifted["colour_band"]


@pytest.mark.parametrize("size_hw", [(64, 64), (1, 1), (3, 700), (900, 5)], ids=str)
def test_on_view_is_the_mask_at_the_pixels_middle(size_hw: tuple[int, int]):
    view_hw = appearance_of(np.zeros((*size_hw, 3), np.uint8)).colours_hw.shape
    assert max(view_hw) <= 320
    height, width = max(1, size_hw[0] // 2), max(1, size_hw[1] // 2)
    segment = rectangle(size_hw[0] - height, size_hw[1] - width, height, width)
    (top, left), mask_hw = on_view(segment, size_hw, view_hw)
    shown_hw = np.zeros(view_hw, np.bool_)
    shown_hw[top : top + mask_hw.shape[0], left : left + mask_hw.shape[1]] = mask_hw
    rows, columns = (
        np.floor((np.arange(seen) + 0.5) * size / seen).astype(int)
        for seen, size in zip(view_hw, size_hw, strict=True)
    )
    assert np.array_equal(shown_hw, paste_segment(segment, size_hw)[np.ix_(rows, columns)])


def test_a_region_of_few_pixels_is_unknown(colours: ColourModel):
    assert colours.numbers(rectangle(0, 0, 1, 3)) == UNKNOWN


def test_appearance_is_the_same_each_time():
    image_hwc = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 255, (50, 90, 3), np.uint8), (5, 5), 2)
    first, second = appearance_of(image_hwc), appearance_of(image_hwc)
    assert np.array_equal(first.colours_hw, second.colours_hw)
    assert float(first.edges_hw.astype(np.float64).mean()) == pytest.approx(1, abs=0.01)
