"""Files of every kind into upright RGB."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFile

from maskloop.errors import ImageError
from maskloop.segmentation.image import IMAGE_FORMATS, EncodedImage, decode_image
from maskloop.segmentation.upsample import Window

# 2 high, 3 wide; every pixel differs, so that any turn shows
PIXELS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(data: bytes, max_pixels: int = 1_000_000) -> np.ndarray:
    return decode_image(data, max_pixels=max_pixels)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_decode_image_lossless_format_keeps_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encode(Image.fromarray(PIXELS), kind, **options))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, PIXELS)


UPRIGHT = {  # EXIF orientation -> how the stored pixels have to be turned
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_decode_image_exif_orientation_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encode(Image.fromarray(PIXELS), "PNG", exif=exif))
    assert np.array_equal(decoded, UPRIGHT[orientation](PIXELS))


def test_decode_image_damaged_exif_is_ignored() -> None:
    data = encode(Image.fromarray(PIXELS), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert np.array_equal(decode(data), PIXELS)


def test_decode_image_grey_has_three_equal_channels() -> None:
    decoded = decode(encode(Image.fromarray(PIXELS[:, :, 0])))
    assert np.array_equal(decoded, np.repeat(PIXELS[:, :, :1], 3, axis=2))


def test_decode_image_transparency_shows_white() -> None:
    alpha = np.zeros((2, 3, 1), dtype=np.uint8)
    alpha[0] = 255
    decoded = decode(encode(Image.fromarray(np.concatenate([PIXELS, alpha], axis=2))))
    assert np.array_equal(decoded[0], PIXELS[0])
    assert (decoded[1] == 255).all()


def test_decode_image_palette_keeps_colours_and_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    decoded = decode(encode(image, "PNG", transparency=2))
    assert decoded.tolist() == [[[255, 0, 0], [0, 255, 0], [255, 255, 255]]]


def test_decode_image_sixteen_bits_keeps_upper_byte() -> None:
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encode(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([-10.0, 0.0, 10.0], [0, 128, 255]), ([7.0, 7.0, 7.0], [0, 0, 0])],
    ids=["unit range", "stretched", "constant"],
)
def test_decode_image_float_tiff_is_scaled(values: list[float], expected: list[int]) -> None:
    decoded = decode(encode(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF"))
    assert decoded[0, :, 1].tolist() == expected


def test_decode_image_cmyk_jpeg_is_rgb() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode(encode(image, "JPEG", quality=95))[4, 4].tolist() == pytest.approx([255, 0, 0], abs=6)


def test_decode_image_animated_gif_is_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


def test_decode_image_one_pixel() -> None:
    assert decode(encode(Image.new("L", (1, 1), 9))).tolist() == [[[9, 9, 9]]]


NOISE = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_decode_image_truncated_raises(kind: str) -> None:
    data = encode(Image.fromarray(NOISE), kind)
    with pytest.raises(ImageError, match="expected a whole PNG"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("cut_bytes", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_decode_image_jpeg_without_its_end_marker_is_whole(cut_bytes: int, progressive: bool) -> None:
    data = encode(Image.fromarray(NOISE), "JPEG", progressive=progressive)
    assert np.array_equal(decode(data[:-cut_bytes]), decode(data))


def test_decode_image_jpeg_cut_off_keeps_what_is_there_and_grey_below() -> None:
    data = encode(Image.fromarray(NOISE), "JPEG")
    decoded, whole = decode(data[: int(len(data) * 0.8)]), decode(data)
    assert np.array_equal(decoded[:80], whole[:80])
    assert (decoded[-8:] == decoded[-1, -1]).all()


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_decode_image_jpeg_mostly_missing_raises(share: float) -> None:
    data = encode(Image.fromarray(NOISE), "JPEG")
    with pytest.raises(ImageError, match=r"most of one, got \d+ bytes that end after \d+% of its rows"):
        decode(data[: int(len(data) * share)])


def chunked(data: bytes, kind: bytes, content: bytes, *, valid: bool) -> bytes:
    """Return a PNG with one chunk more after its header."""
    checksum = zlib.crc32(kind + content) ^ (0 if valid else 1)
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("kind", [b"tEXt", b"gAMA", b"tIME", b"zzZz"], ids=bytes.decode)
def test_decode_image_png_optional_chunk_with_bad_checksum_is_left_out(kind: bytes) -> None:
    data = chunked(encode(Image.fromarray(PIXELS)), kind, b"\x00\x00\xb1\x8f", valid=False)
    assert np.array_equal(decode(data), PIXELS)


def test_decode_image_png_pixels_with_bad_checksum_raises() -> None:
    data = bytearray(encode(Image.fromarray(PIXELS)))
    data[29] ^= 1  # of the header's checksum
    with pytest.raises(ImageError, match="do not decode"):
        decode(bytes(data))


@pytest.mark.skipif("AVIF" not in IMAGE_FORMATS, reason="this Pillow has no AVIF")
def test_decode_image_avif_is_shown() -> None:
    blocks = np.kron(PIXELS, np.ones((16, 16, 1), dtype=np.uint8))
    decoded = decode(encode(Image.fromarray(blocks), "AVIF", quality=95))
    assert decoded.shape == blocks.shape
    assert np.abs(decoded.astype(int) - blocks).mean() < 6


def ftyp(brand: bytes) -> bytes:
    return struct.pack(">I", 20) + b"ftyp" + brand + bytes(4) + b"mif1" + bytes(64)


BAD = {
    "empty": (b"", "upload it again"),
    "text": (b"not found", "upload it again"),
    "magic only": (b"\x89PNG\r\n\x1a\n", "upload it again"),
    "web page": (b"<!DOCTYPE html><html>log in</html>", "got a web page.*leads to a page"),
    "xml": (b"<?xml version='1.0'?><Error/>", "got an XML document"),
    "json": (b'{"detail": "no"}', "got JSON"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "got SVG.*render it to PNG"),
    "svg with head": (b"\xef\xbb\xbf<?xml version='1.0'?><!-- a --><svg/>", "got SVG"),
    "heic": (ftyp(b"heic"), "got HEIC"),
    "broken avif": (ftyp(b"avif"), "do not decode"),
    "video": (struct.pack(">I", 20) + b"ftypisom" + bytes(64), "got a video.*frames"),
    "jpeg 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "got JPEG 2000.*convert it to PNG"),
    "jpeg xl": (b"\xff\x0a" + bytes(9), "got JPEG XL"),
    "pdf": (b"%PDF-1.7", "got PDF"),
    "dicom": (bytes(128) + b"DICM", "got DICOM"),
    "zip": (b"PK\x03\x04" + bytes(9), "got a ZIP archive.*unpack"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_decode_image_not_an_image_raises_with_its_kind_and_remedy(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_decode_image_other_format_raises() -> None:
    with pytest.raises(ImageError, match="expected a whole PNG, JPEG, WEBP, BMP, TIFF"):
        decode(encode(Image.fromarray(PIXELS), "PPM"))


BOMBS = {
    "one pixel wide": (
        lambda: png(1, 70_000, zlib.compress(bytes(140_000))),
        "sides of at most 65535 pixels",
    ),
    "one pixel high": (lambda: png(70_000, 1, zlib.compress(bytes(70_001))), "sides of at most 65535 pixels"),
    "float": (lambda: encode(Image.new("F", (900, 900)), "TIFF"), "900x900 of mode F, .* counts double"),
    "32 bits": (lambda: encode(Image.new("I", (900, 900)), "TIFF"), "900x900 of mode I, .* counts double"),
}


@pytest.mark.parametrize(("make", "message"), BOMBS.values(), ids=BOMBS.keys())
def test_decode_image_too_large_for_its_kind_raises_before_decoding(
    make: Callable[[], bytes], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make()

    def refuse(self: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_decode_image_too_many_pixels_raises_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("L", (200, 100)))

    def refuse(self: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", refuse)
    with pytest.raises(ImageError, match="expected at most 19999 pixels, got 200x100"):
        decode(data, max_pixels=19_999)


def test_decode_image_beyond_pillows_own_guard_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    data = encode(Image.new("L", (200, 100)))
    with pytest.raises(ImageError, match="expected at most 100 pixels"):
        decode(data, max_pixels=100)
    assert decode(data, max_pixels=20_000).shape == (100, 200, 3)


MODES = {  # every mode that files come in, and the colour that a lone pixel of it shows
    "1": (1, [255, 255, 255]),
    "L": (9, [9, 9, 9]),
    "LA": ((9, 0), [255, 255, 255]),
    "P": (0, [10, 20, 30]),
    "RGB": ((1, 2, 3), [1, 2, 3]),
    "RGBA": ((100, 100, 100, 255), [100, 100, 100]),
    "I;16": (0x1234, [0x12, 0x12, 0x12]),
}


def one_pixel(mode: str) -> Image.Image:
    image = Image.new(mode, (1, 1), MODES[mode][0])
    if mode == "P":
        image.putpalette([10, 20, 30])
    return image


@pytest.mark.parametrize("mode", MODES)
def test_decode_image_one_pixel_of_any_mode_is_its_colour(mode: str) -> None:
    assert decode(encode(one_pixel(mode))).tolist() == [[MODES[mode][1]]]


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_decode_image_exif_orientation_of_other_modes_is_upright(mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(PIXELS).convert(mode)
    plain = decode(encode(stored))
    assert np.array_equal(decode(encode(stored, exif=exif)), UPRIGHT[orientation](plain))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_decode_image_exif_orientation_of_other_formats_is_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    blocks = np.kron(PIXELS, np.ones((16, 16, 1), dtype=np.uint8))  # large enough to survive JPEG
    decoded = decode(encode(Image.fromarray(blocks), kind, quality=95, exif=exif))
    expected = UPRIGHT[orientation](blocks)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_decode_image_unknown_orientation_stays_as_stored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert np.array_equal(decode(encode(Image.fromarray(PIXELS), exif=exif)), PIXELS)


def test_decode_image_cmyk_tiff_is_rgb() -> None:
    image = Image.new("CMYK", (3, 2), (255, 0, 255, 0))
    assert decode(encode(image, "TIFF"))[1, 2].tolist() == pytest.approx([0, 255, 0], abs=2)


def test_decode_image_half_transparent_is_blended_with_white() -> None:
    assert decode(encode(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))[0, 0].tolist() == [127, 127, 127]


def test_decode_image_sixteen_bit_colour_keeps_upper_byte() -> None:
    rows = b"\x00" + b"".join(value.to_bytes(2, "big") for value in (0x1234, 0x00FF, 0xFFFF))
    decoded = decode(png(1, 1, zlib.compress(rows), depth=16, colour=2))
    assert decoded.tolist() == [[[0x12, 0x00, 0xFF]]]


def png(width: int, height: int, pixels: bytes, *, depth: int = 8, colour: int = 0) -> bytes:
    """Return a PNG written by hand: its header may claim anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1)], ids=str)
def test_decode_image_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(ImageError, match=r"expected at most 1000000 pixels, got .*\d"):
        decode(png(width, height, zlib.compress(b"")))


def test_decode_image_more_data_than_its_header_says_is_cut_off() -> None:
    pixels = zlib.compress(bytes(5_000_000))
    assert decode(png(2, 2, pixels)).tolist() == [[[0] * 3] * 2] * 2


def test_decode_image_text_bomb_beside_the_pixels_is_an_error() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "x" * 80_000_000, zip=True)
    data = encode(Image.fromarray(PIXELS), pnginfo=info)
    assert len(data) < 200_000
    with pytest.raises(ImageError, match="upload it again"):
        decode(data)


@pytest.mark.parametrize(("top", "left", "side"), [(0, 0, 4), (1, 2, 3), (0, 0, 1)])
def test_encoded_image_window_is_that_part_of_the_upright_image(top, left, side) -> None:
    image = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    turned = np.rot90(PIXELS, k=-1)
    window = Window(top=top, left=left, bottom=top + side, right=left + side)
    for data, shown in ((encode(image), PIXELS), (encode(image, exif=exif), turned)):
        part = EncodedImage(data=data, max_pixels=10**6, window=window)()
        assert (part == shown[top : top + side, left : left + side]).all()
        assert part.base is None, "the whole image is not kept alive"


def test_encoded_image_work_is_known_from_the_head_without_a_warning():
    file = io.BytesIO()
    Image.new("1", (10_000, 9_999)).save(file, "PNG")
    head = EncodedImage(data=file.getvalue()[:100], max_pixels=10**8)
    assert head.work_bytes == 10_000 * 9_999 * 12
    assert EncodedImage(data=b"no image", max_pixels=10**8).work_bytes == 0
