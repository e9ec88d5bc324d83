import cv2
import numpy as np
import pytest
from tests.unit.curation.review.conftest import rectangle

from maskloop.curation.review.appearance import appearance_of
from maskloop.curation.review.local_colours import NOTHING_LOCAL, LocalColours
from maskloop.masks import mask_to_segment, segment_iou
from maskloop.types import Segment

GREEN, GREY = (40, 160, 60), (120, 120, 120)


def disc(row: int, column: int, radius: int, size_hw: tuple[int, int]) -> Segment:
    drawn_hw = np.zeros(size_hw, np.uint8)
    cv2.circle(drawn_hw, (column, row), radius, 1, -1)
    segment = mask_to_segment(drawn_hw > 0, label="disc")
    assert segment is not None
    return segment


def painted(objects: list[Segment], size_hw: tuple[int, int] = (64, 64), noise: float = 4.0) -> np.ndarray:
    image_hwc = np.full((*size_hw, 3), GREY, np.float64)
    for one in objects:
        top, left, bottom, right = one.box_yxyx
        image_hwc[top:bottom, left:right][one.mask_hw] = GREEN
    image_hwc += np.random.default_rng(5).normal(0, noise, image_hwc.shape)
    return np.clip(image_hwc, 0, 255).astype(np.uint8)


def numbers(image_hwc: np.ndarray, regions: list[Segment], chosen: Segment) -> dict[str, float]:
    size_hw = image_hwc.shape[:2]
    return LocalColours(appearance_of(image_hwc).lab_hwc, regions, size_hw).numbers(chosen)


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param(disc(30, 30, 9, (64, 64)), id="two pixels too large"),
        pytest.param(disc(30, 30, 5, (64, 64)), id="two pixels too small"),
        pytest.param(disc(32, 29, 7, (64, 64)), id="two pixels beside"),
    ],
)
def test_local_colours_see_a_border_that_is_two_pixels_off(drawn: Segment):
    true = disc(30, 30, 7, (64, 64))
    image_hwc = painted([true])
    right, wrong = numbers(image_hwc, [true], true), numbers(image_hwc, [drawn], drawn)
    assert right["local_iou"] > 0.9
    assert wrong["local_iou"] == pytest.approx(segment_iou(true, drawn), abs=0.1)
    assert wrong["local_distance"] > 2 * right["local_distance"]
    assert wrong["local_band"] > 2 * right["local_band"]


def test_local_colours_neighbour_of_the_same_colour_belongs_to_its_own_region():
    objects = [disc(30, 24, 7, (64, 64)), disc(30, 40, 7, (64, 64))]
    image_hwc = painted(objects)
    found = numbers(image_hwc, objects, objects[0])
    alone = numbers(image_hwc, objects[:1], objects[0])
    assert found["local_iou"] > 0.9
    assert found["local_apart"] > alone["local_apart"]


def test_local_colours_plain_image_tells_nothing_apart():
    found = numbers(painted([], noise=6.0), [], disc(30, 30, 8, (64, 64)))
    assert found["local_apart"] < 1


@pytest.mark.parametrize(
    "segment",
    [
        pytest.param(rectangle(0, 0, 1, 3), id="few pixels"),
        pytest.param(rectangle(0, 0, 64, 64), id="whole image"),
    ],
)
def test_local_colours_where_nothing_is_around_are_unknown(segment: Segment):
    assert numbers(painted([]), [segment], segment) == NOTHING_LOCAL


def test_local_colours_large_object_is_read_in_steps():
    size_hw = (900, 700)
    true, drawn = disc(400, 300, 220, size_hw), disc(400, 300, 265, size_hw)
    image_hwc = painted([true], size_hw)
    found = numbers(image_hwc, [drawn], drawn)
    assert found["local_iou"] == pytest.approx(segment_iou(true, drawn), abs=0.05)


def test_local_colours_no_border_where_the_image_ends():
    true = rectangle(0, 0, 30, 20)
    found = numbers(painted([true]), [true], true)
    assert found["local_iou"] > 0.9
    assert found["local_distance"] < 0.06
