"""Bitmasks: what we write is what Label Studio's front end reads, and damaged or huge ones are refused."""

import base64
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from maskloop.errors import CodecError
from maskloop_studio.formats.bitmask import URL_START, decode_bitmask, encode_bitmask

SIZE = (33, 47)
RNG = np.random.default_rng(5)


def _read(url, max_pixels=10**6):
    return decode_bitmask(url, max_pixels=max_pixels, place="task 4")


@pytest.mark.parametrize(
    "mask_hw",
    [
        pytest.param(np.zeros(SIZE, dtype=bool), id="empty"),
        pytest.param(np.ones(SIZE, dtype=bool), id="full"),
        pytest.param(RNG.random(SIZE) > 0.5, id="noise"),
        pytest.param(np.ones((1, 1), dtype=bool), id="one pixel"),
    ],
)
def test_encode_bitmask_is_the_alpha_and_the_red_of_a_png(mask_hw):
    url = encode_bitmask(mask_hw, (0, 0), mask_hw.shape)
    data = np.frombuffer(base64.b64decode(url.removeprefix(URL_START)), dtype=np.uint8)
    bgra_hwc = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert np.array_equal(bgra_hwc[..., 3] > 0, mask_hw)
    assert np.array_equal(bgra_hwc[..., 2] > 127, mask_hw)
    assert np.array_equal(_read(url).mask_hw, mask_hw)


def test_encode_bitmask_crop_lies_where_it_belongs():
    crop_hw = np.ones((10, 20), dtype=bool)
    expected_hw = np.zeros(SIZE, dtype=bool)
    expected_hw[30:33, 40:47] = True
    assert np.array_equal(_read(encode_bitmask(crop_hw, (30, 40), SIZE)).mask_hw, expected_hw)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_decode_bitmask_every_mode_of_png(mode):
    mask_hw = RNG.random(SIZE) > 0.5
    grey = Image.fromarray(mask_hw.astype(np.uint8) * np.uint8(255), mode="L")
    picture = grey.convert("RGB").convert(mode) if mode == "P" else grey.convert(mode.replace(";16", ""))
    if mode == "I;16":
        picture = Image.fromarray(mask_hw.astype(np.uint16) * np.uint16(65535))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    url = "data:image/png;charset=utf-8;base64,\n" + base64.encodebytes(file.getvalue()).decode()
    assert np.array_equal(_read(url).mask_hw, mask_hw)


def _png_that_claims(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return URL_START + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param(None, "got NoneType", id="none"),
        pytest.param(7, "got int", id="number"),
        pytest.param("", "that begins with", id="empty"),
        pytest.param("data:image/svg+xml;base64,AAAA", "that begins with", id="svg"),
        pytest.param(URL_START, "a PNG in base64", id="nothing behind"),
        pytest.param(URL_START + "A", "a PNG in base64", id="cut base64"),
        pytest.param(URL_START + base64.b64encode(b"GIF89a").decode(), "a PNG in base64", id="gif"),
        pytest.param(_png_that_claims(30_000, 30_000), "a PNG", id="more pixels than Pillow opens"),
        pytest.param(_png_that_claims(2000, 2000), "at most 1000000 pixels, got 2000x2000", id="large"),
        pytest.param(_png_that_claims(100, 100), "a whole PNG", id="truncated"),
    ],
)
def test_decode_bitmask_damaged_or_huge_raises(url, words):
    with pytest.raises(CodecError, match=f"task 4: .*{words}"):
        _read(url)
