"""Each number says what its name says, and the others stay."""

import cv2
import numpy as np
import pytest
import torch

from maskloop.lab.synthetic.shapes import make_image
from maskloop.segmentation.image_look import LOOK_SIZE, image_look

SHARP, SHARP_HALF, CONTRAST, LIGHT, RED_GREEN, YELLOW_BLUE, COLOUR, CLIPPED = range(LOOK_SIZE)


def _look(image_hwc):
    return image_look(torch.from_numpy(np.ascontiguousarray(image_hwc)).permute(2, 0, 1))


@pytest.fixture(scope="module")
def image():
    return make_image(3, size_hw=(96, 128)).image_hwc


def test_blur_lowers_sharpness_and_little_else(image):
    sharp, blurred = _look(image), _look(cv2.GaussianBlur(image, (0, 0), 2.0))
    assert blurred[SHARP] < sharp[SHARP] - 1
    assert blurred[[LIGHT, RED_GREEN, YELLOW_BLUE]] == pytest.approx(
        sharp[[LIGHT, RED_GREEN, YELLOW_BLUE]], abs=0.01
    )


def test_less_light_leaves_sharpness(image):
    bright, dim = _look(image), _look((image * 0.5).astype(np.uint8))
    assert dim[LIGHT] == pytest.approx(bright[LIGHT] / 2, abs=0.02)
    assert dim[SHARP] == pytest.approx(bright[SHARP], abs=0.1)


def test_colours_point_where_they_should():
    reddish = np.full((16, 16, 3), (200, 100, 100), np.uint8)
    bluish = np.full((16, 16, 3), (100, 100, 200), np.uint8)
    assert _look(reddish)[RED_GREEN] > 0.3
    assert _look(bluish)[YELLOW_BLUE] < -0.3


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (40, 3)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_images_of_one_colour_and_few_pixels_have_finite_numbers(size_hw, value):
    look = _look(np.full((*size_hw, 3), value, np.uint8))
    assert look.shape == (LOOK_SIZE,)
    assert np.isfinite(look).all()
    assert look[CLIPPED] == (value != 128)
