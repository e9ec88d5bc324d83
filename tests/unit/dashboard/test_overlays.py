"""Layers: their pixels against the masks."""

import io

import numpy as np
import pytest
from PIL import Image

from maskloop.types import Segment
from maskloop_studio.dashboard.overlays import COLOURS, LOSSLESS_PIXELS, draw_overlay, encode_image


def _pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.mark.parametrize("side", ["annotator", "champion", "challenger"])
def test_draw_overlay_colours_the_mask_and_nothing_else(side, make_segment):
    pixels = _pixels(draw_overlay([make_segment(size=(8, 10), offset=(2, 3))], (32, 48), side))
    inside = np.zeros((32, 48), np.bool_)
    inside[2:10, 3:13] = True
    assert ((pixels[..., 3] > 0) == inside).all()
    assert {tuple(colour) for colour in pixels[inside][:, :3].tolist()} == {COLOURS[side]}
    assert pixels[2, 3, 3] == 255, "the outline is opaque"
    assert 0 < pixels[5, 7, 3] < 255, "the area is half transparent"


def test_draw_overlay_hole_stays_open_and_border_is_an_outline():
    mask = np.ones((20, 20), np.bool_)
    mask[8:12, 8:12] = False
    pixels = _pixels(
        draw_overlay([Segment(mask_hw=mask, offset_yx=(0, 0), label="a")], (20, 20), "annotator")
    )
    assert (pixels[8:12, 8:12, 3] == 0).all()
    assert (pixels[0, :, 3] == 255).all()


def test_draw_overlay_without_segments_is_transparent():
    assert not _pixels(draw_overlay([], (5, 7), "champion"))[..., 3].any()


def test_draw_overlay_segment_beyond_the_image_is_cut(make_segment):
    pixels = _pixels(draw_overlay([make_segment(size=(8, 10), offset=(2, 3))], (4, 5), "champion"))
    assert pixels.shape == (4, 5, 4)


@pytest.mark.parametrize(("side", "kind"), [(100, "image/png"), (1000, "image/jpeg")])
def test_encode_image_keeps_size_and_small_ones_exactly(side, kind):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    content, made = encode_image(image)
    assert made == kind
    back = np.asarray(Image.open(io.BytesIO(content)))
    assert back.shape == image.shape
    assert (side * side > LOSSLESS_PIXELS) or (back == image).all()
