"""The brush codec against label-studio-sdk's own converter, and against damaged bytes."""

import contextlib
import json
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.paths import SHARED

from maskloop.errors import CodecError
from maskloop.masks import paste_segment
from maskloop.types import Segment
from maskloop_studio.formats.brush import PIXELS_AT_ONCE, decode_brush, encode_brush, encode_brush_crop


def _ring(size_hw):
    mask_hw = np.zeros(size_hw, dtype=bool)
    mask_hw[1:-1, 1:-1] = True
    mask_hw[3:-3, 3:-3] = False
    return mask_hw


def _pixel(size_hw, y, x):
    mask_hw = np.zeros(size_hw, dtype=bool)
    mask_hw[y, x] = True
    return mask_hw


MASKS = [
    pytest.param(np.zeros((5, 7), dtype=bool), id="empty"),
    pytest.param(np.ones((5, 7), dtype=bool), id="full"),
    pytest.param(np.ones((1, 1), dtype=bool), id="one pixel image"),
    pytest.param(_pixel((6, 9), 0, 0), id="first pixel"),
    pytest.param(_pixel((6, 9), 5, 8), id="last pixel"),
    pytest.param(_ring((20, 31)), id="hole"),
    pytest.param(np.indices((13, 17)).sum(axis=0) % 2 == 0, id="checkerboard"),
    pytest.param(np.ones((200, 301), dtype=bool), id="run of more than 65536 values"),
    pytest.param(np.random.default_rng(0).random((64, 257)) > 0.7, id="noise"),
]


@pytest.fixture(scope="module")
def sdk():
    return pytest.importorskip("label_studio_sdk.converter.brush")


def _encode_words(values, *, word_bits=8, count=None):
    """rle-pack with runs of one length size, written bit by bit: an array, or (value, length) pairs."""
    bits = f"{sum(n for _, n in values) if count is None else count:032b}{word_bits - 1:05b}"
    bits += "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for value, length in values:
        bits += f"111{length - 1:016b}" + f"{value:0{word_bits}b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def _browser_rle(alpha_hw):
    """Every channel holds the alpha ramp, written as literals, as a browser's anti-aliased stroke is."""
    values = np.repeat(alpha_hw.ravel(), 4).tolist()
    bits = f"{len(values):032b}00111" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for at in range(0, len(values), 8):
        chunk = values[at : at + 8]
        bits += f"000{len(chunk) - 1:03b}" + "".join(f"{value:08b}" for value in chunk)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


@pytest.mark.parametrize("mask_hw", MASKS)
def test_encode_brush_equals_sdk_but_for_padding(sdk, mask_hw):
    ours, theirs = encode_brush(mask_hw), sdk.mask2rle(mask_hw.astype(np.uint8) * 255)
    assert ours == theirs[: len(ours)]
    assert theirs[len(ours) :] in ([], [0])
    assert np.array_equal(decode_brush(theirs, mask_hw.shape), mask_hw)


@pytest.mark.parametrize("mask_hw", MASKS)
def test_encode_brush_read_by_sdk_fills_all_channels(sdk, mask_hw):
    rgba = sdk.decode_rle(encode_brush(mask_hw)).reshape(*mask_hw.shape, 4)
    assert np.array_equal(rgba, np.repeat(mask_hw[..., None] * np.uint8(255), 4, axis=2))


@given(mask_hw=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_brush_round_trip_keeps_every_pixel(mask_hw):
    assert np.array_equal(decode_brush(encode_brush(mask_hw), mask_hw.shape), mask_hw)


@settings(deadline=None)
@given(mask_hw=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)))
def test_brush_any_mask_agrees_with_the_sdk_both_ways(mask_hw):
    sdk = pytest.importorskip("label_studio_sdk.converter.brush")
    theirs = sdk.mask2rle(mask_hw.astype(np.uint8) * 255)
    assert np.array_equal(decode_brush(theirs, mask_hw.shape), mask_hw)
    alpha_hw = sdk.decode_rle(encode_brush(mask_hw)).reshape(*mask_hw.shape, 4)[..., 3]
    assert np.array_equal(alpha_hw >= 128, mask_hw)


@pytest.mark.parametrize("rim", [0, 3], ids=["hard", "soft"])
def test_brush_busy_mask_of_many_runs_agrees_with_the_sdk_both_ways(sdk, rim):
    noise_hw = np.random.default_rng(1).standard_normal((600, 800)).astype(np.float32)
    alpha_hw = (cv2.GaussianBlur(noise_hw, (0, 0), 3) > 0).astype(np.uint8) * np.uint8(255)
    if rim:
        alpha_hw = cv2.GaussianBlur(alpha_hw, (rim, rim), 0)
    theirs = sdk.encode_rle(np.repeat(alpha_hw.ravel(), 4))
    assert len(theirs) > 20_000
    assert np.array_equal(decode_brush(theirs, (600, 800)), alpha_hw >= 128)
    if not rim:
        ours = encode_brush(alpha_hw > 0)
        assert (ours, theirs[len(ours) :]) in [(theirs[: len(ours)], []), (theirs[: len(ours)], [0])]


@pytest.mark.parametrize("more", range(-2, 3))
def test_encode_brush_change_where_pixels_are_parted_agrees_with_the_sdk(sdk, more):
    mask_hw = np.zeros((2, PIXELS_AT_ONCE + 2), dtype=bool)
    mask_hw.ravel()[PIXELS_AT_ONCE + more : 2 * PIXELS_AT_ONCE - more] = True
    ours, theirs = encode_brush(mask_hw), sdk.mask2rle(mask_hw.astype(np.uint8) * 255)
    assert (ours, theirs[len(ours) :]) in [(theirs[: len(ours)], []), (theirs[: len(ours)], [0])]
    assert np.array_equal(decode_brush(ours, mask_hw.shape), mask_hw)


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 63, 64, 65, 16_383, 16_384, 16_385, 32_768, 32_769])
def test_encode_brush_run_at_the_end_of_its_size_agrees_with_the_sdk(sdk, pixels):
    flat = np.repeat([True, False, True, False, True], [pixels, 5, pixels, pixels, 1])
    ours, theirs = encode_brush(flat[None]), sdk.mask2rle(flat[None].astype(np.uint8) * 255)
    assert (ours, theirs[len(ours) :]) in [(theirs[: len(ours)], []), (theirs[: len(ours)], [0])]
    assert np.array_equal(decode_brush(ours, (1, flat.size)), flat[None])


def test_decode_brush_long_stream_broken_raises():
    noise_hw = np.random.default_rng(1).random((400, 500)) > 0.5
    rle = encode_brush(noise_hw)
    for broken, words in (
        (rle[:-5], "which end before that"),
        ([*rle, 7], "an end after"),
        ([*rle, *[0] * 20], "an end after"),
    ):
        with pytest.raises(CodecError, match=words):
            decode_brush(broken, (400, 500))


@given(
    mask_hw=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)),
    offset_yx=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    size_hw=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_encode_brush_crop_equals_the_whole_image(mask_hw, offset_yx, size_hw):
    segment = Segment(mask_hw=mask_hw, offset_yx=offset_yx, label="disc")
    assert encode_brush_crop(mask_hw, offset_yx, size_hw) == encode_brush(paste_segment(segment, size_hw))


@pytest.mark.parametrize("mask_hw", MASKS)
def test_encode_brush_crop_at_every_border_equals_the_whole_image(mask_hw):
    height, width = mask_hw.shape
    for top in (0, 2):
        for left in (0, 3):
            for more in (0, 1):
                size_hw = (top + height + more, left + width + more)
                segment = Segment(mask_hw=mask_hw, offset_yx=(top, left), label="disc")
                expected = encode_brush(paste_segment(segment, size_hw))
                assert encode_brush_crop(mask_hw, (top, left), size_hw) == expected


@settings(deadline=None)
@given(mask_hw=hnp.arrays(bool, (23, 29), fill=st.booleans()))
def test_brush_round_trip_sparse_keeps_every_pixel(mask_hw):
    assert np.array_equal(decode_brush(bytes(encode_brush(mask_hw)), mask_hw.shape), mask_hw)


def test_decode_brush_antialiased_reads_alpha_from_128():
    alpha_hw = np.zeros((33, 47), dtype=np.uint8)
    cv2.line(alpha_hw, (3, 5), (40, 28), 255, 3, cv2.LINE_AA)
    assert len(np.unique(alpha_hw)) > 10
    assert np.array_equal(decode_brush(_browser_rle(alpha_hw), alpha_hw.shape), alpha_hw >= 128)


def test_decode_brush_colour_reads_only_alpha():
    # RGB 255 with alpha 0 is background, RGB 0 with alpha 200 is foreground.
    pixels = [(255, 3), (0, 1), (0, 3), (200, 1)]
    assert decode_brush(_encode_words(pixels), (1, 2)).tolist() == [[False, True]]


def test_decode_brush_runs_across_pixels_keep_their_place():
    # Runs that begin and end inside a pixel: alphas are values 3, 7 and 11.
    assert decode_brush(_encode_words([(255, 5), (0, 3), (130, 4)]), (1, 3)).tolist() == [[True, False, True]]


def test_decode_brush_browser_annotation_equals_sdk(sdk):
    path = SHARED / "label-studio" / "browser-annotation.json"
    if not path.exists():
        pytest.skip("no browser-made annotation at hand")
    regions = [r for r in json.loads(path.read_text())[0]["result"] if r["type"] == "brushlabels"]
    for region in regions:
        size_hw = region["original_height"], region["original_width"]
        alpha_hw = sdk.decode_rle(region["value"]["rle"]).reshape(*size_hw, 4)[..., 3]
        assert np.array_equal(decode_brush(region["value"]["rle"], size_hw), alpha_hw >= 128)


GOOD = encode_brush(_ring((20, 31)))
BROKEN = [
    pytest.param([], "header of 53 bits", id="empty"),
    pytest.param(GOOD[:6], "header of 53 bits", id="half a header"),
    pytest.param(GOOD[:-3], "which end before that", id="truncated"),
    pytest.param(GOOD[:7], "which end before that", id="header only"),
    pytest.param([*GOOD, 7], "an end after", id="rest"),
    pytest.param([*GOOD, *[0] * 20], "an end after", id="too much padding"),
    pytest.param([*GOOD[:20], 256], "whole numbers 0..255", id="number over a byte"),
    pytest.param([*GOOD[:20], -1], "whole numbers 0..255", id="negative"),
    pytest.param([*GOOD[:20], 1.5], "whole numbers 0..255", id="float"),
    pytest.param([*GOOD[:20], None], "whole numbers 0..255", id="none inside"),
    pytest.param("abc", "list of bytes, got str", id="text"),
    pytest.param(10**9, "list of bytes, got int", id="bare number"),
    pytest.param(None, "list of bytes, got NoneType", id="none"),
    pytest.param(encode_brush(_ring((21, 31))), "31x20 pixels", id="another size"),
    pytest.param(_encode_words([(1, 2480)], word_bits=4), "words of 8 bits, got 4 bits", id="word size"),
    pytest.param(
        _encode_words([(255, 2481)], count=2480), "expected 2480 values, got 2481", id="run too long"
    ),
]


@pytest.mark.parametrize(("rle", "words"), BROKEN)
def test_decode_brush_broken_raises_with_place(rle, words):
    with pytest.raises(CodecError, match=words) as caught:
        decode_brush(rle, (20, 31), place="Task 42, region r7")
    assert caught.value.place == "Task 42, region r7"


@given(rle=st.binary(max_size=60))
def test_decode_brush_any_bytes_decode_or_raise(rle):
    header = bytes(GOOD[:7])
    with contextlib.suppress(CodecError):
        assert decode_brush(header + rle, (20, 31)).shape == (20, 31)


@pytest.mark.parametrize("size_hw", [(20, 31), (32_000, 32_000)], ids=["count lies", "size lies"])
def test_decode_brush_huge_claim_takes_no_memory(size_hw):
    rle = _encode_words([(255, 65536)], count=32_000 * 32_000 * 4)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode_brush(rle, size_hw)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "mask",
    [np.zeros((0, 4), bool), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), bool)],
    ids=["no pixels", "not bool", "three axes"],
)
def test_encode_brush_no_mask_raises(mask):
    with pytest.raises(CodecError, match=r"bool \(H, W\)"):
        encode_brush(mask)
