"""Sizes, padding and normalisation, against transformers' own processor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import EomtImageProcessorPil, Mask2FormerImageProcessorPil

from maskloop.errors import ImageError
from maskloop.segmentation.preprocess import (
    MASK_STRIDE,
    Preprocessing,
    config_to_preprocessing,
    images_to_batch,
    preprocessing_to_config,
    resized_size,
)
from maskloop.types import RgbImage

CPU = torch.device("cpu")
SMALL = Preprocessing(shortest_edge=64, longest_edge=128)


def test_images_to_batch_equals_transformers_pixels(make_image: Callable[..., RgbImage]) -> None:
    image = make_image(100, 150)
    batch = images_to_batch([image], Preprocessing(shortest_edge=64, longest_edge=96), CPU)
    theirs = Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}, size_divisor=32)(
        images=[image], return_tensors="pt"
    )
    torch.testing.assert_close(
        batch.pixel_values_bchw, theirs["pixel_values"], atol=0.02, rtol=0
    )  # 1/255/std
    assert batch.pixel_values_bchw.dtype == torch.float32


@pytest.mark.parametrize("size_hw", [(100, 200), (200, 100), (64, 64)], ids=["wide", "tall", "square"])
def test_images_to_batch_of_a_square_equals_eomts_pixels(
    size_hw: tuple[int, int], make_image: Callable[..., RgbImage]
) -> None:
    image = make_image(*size_hw)
    square = Preprocessing(shortest_edge=None, longest_edge=None, box_hw=(64, 64), pad_hw=(64, 64))
    batch = images_to_batch([image], square, CPU)
    theirs = EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)(
        images=[image], return_tensors="pt"
    )
    torch.testing.assert_close(batch.pixel_values_bchw, theirs["pixel_values"], atol=0.02, rtol=0)
    assert batch.pixel_mask_bhw.sum() == batch.valid_sizes_hw[0][0] * batch.valid_sizes_hw[0][1]


def test_preprocessing_padding_off_the_grid_of_masks_raises() -> None:
    with pytest.raises(ValueError, match="expected a multiple of 8, got 12"):
        Preprocessing(size_divisor=12, mask_stride=8)


def test_resized_size_other_mask_stride_ends_on_its_grid() -> None:
    assert resized_size((50, 100), Preprocessing(shortest_edge=None, box_hw=(128, 128), mask_stride=16)) == (
        64,
        128,
    )


RESIZED = {
    "landscape": (SMALL, (480, 640), (64, 84)),
    "portrait": (SMALL, (640, 480), (84, 64)),
    "capped": (SMALL, (100, 1000), (12, 128)),
    "strip": (SMALL, (1, 5000), (MASK_STRIDE, 128)),
    "one pixel": (SMALL, (1, 1), (64, 64)),
    "box": (Preprocessing(shortest_edge=None, box_hw=(64, 64)), (50, 100), (32, 64)),
    "kept": (Preprocessing(shortest_edge=None), (50, 101), (48, 100)),
}


@pytest.mark.parametrize(("preprocessing", "size_hw", "expected_hw"), RESIZED.values(), ids=RESIZED.keys())
def test_resized_size_follows_the_rule(
    preprocessing: Preprocessing, size_hw: tuple[int, int], expected_hw: tuple[int, int]
) -> None:
    assert resized_size(size_hw, preprocessing) == expected_hw


def test_images_to_batch_pads_only_right_and_bottom(make_image: Callable[..., RgbImage]) -> None:
    batch = images_to_batch([make_image(60, 90), make_image(90, 61)], SMALL, CPU)
    assert batch.pixel_values_bchw.shape == (2, 3, 96, 96)
    assert batch.valid_sizes_hw == ((64, 96), (96, 64))
    assert batch.image_sizes_hw == ((60, 90), (90, 61))
    for index, (height, width) in enumerate(batch.valid_sizes_hw):
        assert batch.pixel_mask_bhw[index].sum() == height * width
        assert batch.pixel_mask_bhw[index, :height, :width].all()
        assert not batch.pixel_values_bchw[index, :, height:].any()
        assert not batch.pixel_values_bchw[index, :, :, width:].any()


CONFIGS = {
    "edges": ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, (800, 1333, None)),
    "old number": ({"size": 512, "max_size": 2048}, (512, 2048, None)),
    "no cap": ({"size": {"shortest_edge": 800}}, (800, 1333, None)),
    "fixed": ({"size": {"height": 384, "width": 512}}, (None, None, (384, 512))),
    "box": ({"size": {"max_height": 384, "max_width": 512}}, (None, None, (384, 512))),
    "not resized": ({"do_resize": False, "size": {"shortest_edge": 8}}, (None, 13, None)),
    "nothing said": ({}, (800, 1333, None)),
}


@pytest.mark.parametrize(("config", "expected"), CONFIGS.values(), ids=CONFIGS.keys())
def test_config_to_preprocessing_reads_every_form_of_size(config: dict, expected: tuple) -> None:
    found = config_to_preprocessing(config)
    assert (found.shortest_edge, found.longest_edge, found.box_hw) == expected


@pytest.mark.parametrize(
    "preprocessing",
    [SMALL, Preprocessing(shortest_edge=None, longest_edge=None, box_hw=(8, 9), size_divisor=4)],
    ids=["edges", "box"],
)
def test_preprocessing_to_config_round_trip_is_equal(preprocessing: Preprocessing) -> None:
    assert config_to_preprocessing(preprocessing_to_config(preprocessing)) == preprocessing


def test_config_to_preprocessing_switched_off_steps_change_nothing(
    make_image: Callable[..., RgbImage],
) -> None:
    config = {"do_resize": False, "do_rescale": False, "do_normalize": False, "size_divisor": 4}
    image = make_image(8, 12)
    batch = images_to_batch([image], config_to_preprocessing(config), CPU)
    assert np.array_equal(batch.pixel_values_bchw[0].permute(1, 2, 0).numpy(), image)


BAD = {
    "grey": ((4, 4), np.uint8),
    "alpha": ((4, 4, 4), np.uint8),
    "float": ((4, 4, 3), np.float32),
    "none": ((0, 4, 3), np.uint8),
}


@pytest.mark.parametrize(("shape", "dtype"), BAD.values(), ids=BAD.keys())
def test_images_to_batch_not_rgb_raises(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(ImageError, match="image 0 of the batch: expected uint8"):
        images_to_batch([np.zeros(shape, dtype=dtype)], SMALL, CPU)
