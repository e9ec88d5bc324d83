"""Brush masks as Label Studio stores them: the rle-pack bit stream of a flattened RGBA image.

A mask is written with 0 or 255 in all four channels and read from the alpha channel at >= 128, because the
browser draws anti-aliased strokes. Polygons live in `polygon.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.types import BoolMask

__all__ = ["decode_brush", "encode_brush"]

CHANNELS = 4
COUNT_BITS, WORD_SIZE_BITS, RUN_SIZE_BITS = 32, 5, 4
HEADER_BITS = COUNT_BITS + WORD_SIZE_BITS + 4 * RUN_SIZE_BITS
WORD_BITS = 8
RUN_SIZES_BITS = (3, 4, 8, 16)  # what the SDK writes
MAX_RUN_VALUES = 2**16
MAX_PADDING_BYTES = 8  # the SDK writes up to one; more means that the stream is not what its header says
FOREGROUND_ALPHA = 128
MAX_PIXELS = (2**COUNT_BITS - 1) // CHANNELS


def encode_brush(mask_hw: BoolMask) -> list[int]:
    """Return the mask as the bytes of a brush region's `value.rle`.

    Args:
        mask_hw: bool (H, W), the whole image, at least one pixel.

    Raises:
        CodecError: not bool (H, W), or without pixels, or with more pixels than the format can count.

    Source:
        https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
    """
    if mask_hw.dtype != np.bool_ or mask_hw.ndim != 2 or not 0 < mask_hw.size <= MAX_PIXELS:
        raise CodecError(
            "brush mask",
            expected=f"bool (H, W) of 1 to {MAX_PIXELS} pixels",
            got=f"{mask_hw.dtype} {mask_hw.shape}",
            remedy="pass the whole image's boolean mask",
        )
    lengths, foreground = _mask_to_runs(mask_hw.ravel())
    header = (mask_hw.size * CHANNELS) << WORD_SIZE_BITS | (WORD_BITS - 1)
    for size in RUN_SIZES_BITS:
        header = header << RUN_SIZE_BITS | (size - 1)
    header_bits = np.frombuffer(f"{header:0{HEADER_BITS}b}".encode(), dtype=np.uint8) - ord("0")
    encoded: list[int] = np.packbits(
        np.concatenate([header_bits, _runs_to_bits(lengths, foreground)])
    ).tolist()
    return encoded


def decode_brush(rle: Sequence[int], size_hw: tuple[int, int], *, place: str = "brush mask") -> BoolMask:
    """Return the mask of a brush region.

    Args:
        rle: the bytes 0..255 of `value.rle`: a list, tuple, bytes or bytearray.
        size_hw: the image's height and width in pixels, from `original_height` and `original_width`.
        place: what an error names, such as "Task 42, region r7".

    Returns:
        bool (H, W); True where alpha is at least 128.

    Raises:
        CodecError: not a list of bytes, of another image size, of another word size, truncated or over-long.
            The size is checked before memory for the mask is taken.

    Source:
        https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
    """
    data = _to_bytes(rle, place)
    run_sizes = _read_header(data, size_hw, place)
    count = size_hw[0] * size_hw[1] * CHANNELS
    starts, ends, bits, repeated = _scan_runs(data, count, run_sizes, place)
    alpha = _expand_alpha(data, starts, ends, bits, repeated)
    mask_hw: BoolMask = alpha.reshape(size_hw)
    return mask_hw


def _mask_to_runs(flat: BoolMask) -> tuple[NDArray[np.int64], BoolMask]:
    """Return lengths in channel values (at most MAX_RUN_VALUES each) and whether each run is foreground."""
    last = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    values = np.diff(last, prepend=-1) * CHANNELS
    pieces = -(-values // MAX_RUN_VALUES)
    lengths = np.full(int(pieces.sum()), MAX_RUN_VALUES, dtype=np.int64)
    lengths[np.cumsum(pieces) - 1] = values - (pieces - 1) * MAX_RUN_VALUES
    return lengths, np.repeat(flat[last], pieces)


def _runs_to_bits(lengths: NDArray[np.int64], foreground: BoolMask) -> NDArray[np.uint8]:
    """Return each run's bits one after another: 1, two bits of size index, length - 1, value."""
    kinds = np.searchsorted(2 ** np.array(RUN_SIZES_BITS), lengths)
    widths = np.array(RUN_SIZES_BITS)[kinds]
    words = (((0b100 | kinds) << widths | (lengths - 1)) << WORD_BITS) | np.where(foreground, 255, 0)
    used = 3 + widths + WORD_BITS
    longest = 3 + max(RUN_SIZES_BITS) + WORD_BITS
    left_aligned = (words << (32 - used)).astype(">u4")
    bits_rb = np.unpackbits(left_aligned.view(np.uint8).reshape(-1, 4), axis=1, count=longest)
    flat: NDArray[np.uint8] = bits_rb[np.arange(longest) < used[:, None]]
    return flat


def _to_bytes(rle: Sequence[int], place: str) -> bytes:
    remedy = "save the region again in Label Studio"
    # bytes(n) of a bare number would take n bytes, so the type comes first.
    if not isinstance(rle, list | tuple | bytes | bytearray):
        raise CodecError(place, expected="a list of bytes", got=type(rle).__name__, remedy=remedy)
    try:
        return bytes(rle)
    except (TypeError, ValueError) as exc:
        raise CodecError(place, expected="whole numbers 0..255", got=str(exc), remedy=remedy) from exc


def _read_header(data: bytes, size_hw: tuple[int, int], place: str) -> tuple[int, ...]:
    """Check what the stream says of itself and return its four run sizes in bits."""
    if len(data) * 8 < HEADER_BITS:
        raise _broken(place, f"a header of {HEADER_BITS} bits", f"{len(data)} bytes")
    header = int.from_bytes(data[: HEADER_BITS // 8 + 1], "big") >> (8 - HEADER_BITS % 8)
    height, width = size_hw
    count, expected = header >> (HEADER_BITS - COUNT_BITS), height * width * CHANNELS
    if min(size_hw) < 1 or count != expected:
        raise CodecError(
            place,
            expected=f"a mask of {width}x{height} pixels ({expected} values)",
            got=f"{count} values",
            remedy="the image was replaced or resized; annotate it again",
        )
    word_bits = (header >> (4 * RUN_SIZE_BITS) & 0b11111) + 1
    if word_bits != WORD_BITS:
        raise _broken(place, f"words of {WORD_BITS} bits", f"{word_bits} bits")
    return tuple((header >> shift & 0b1111) + 1 for shift in (12, 8, 4, 0))


def _scan_runs(
    data: bytes, count: int, run_sizes: tuple[int, ...], place: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], BoolMask]:
    """Return each run's first and last + 1 value, the bit its values start at, and whether it repeats one.

    Where a run starts depends on the one before: this loop only finds the runs, `_expand_alpha` reads them.
    """
    windows = data + bytes(4)
    total_bits = len(data) * 8
    ends: list[int] = []
    bits: list[int] = []
    repeated: list[bool] = []
    at, bit = 0, HEADER_BITS
    while at < count:
        start = bit >> 3
        window = int.from_bytes(windows[start : start + 4], "big") << (bit & 7)
        size = run_sizes[window >> 29 & 0b11]
        at += (window >> (29 - size) & ((1 << size) - 1)) + 1
        bit += 3 + size
        bits.append(bit)
        if window >> 31 & 1:
            repeated.append(True)
            bit += WORD_BITS
        else:
            repeated.append(False)
            bit += WORD_BITS * (at - (ends[-1] if ends else 0))
        ends.append(at)
        if bit > total_bits:
            raise _broken(place, f"{count} values", f"{len(data)} bytes, which end before that")
    if at > count:
        raise _broken(place, f"{count} values", f"{at}")
    if total_bits - bit >= 8 * (MAX_PADDING_BYTES + 1) or any(data[-(-bit // 8) :]):
        raise _broken(place, f"an end after {-(-bit // 8)} bytes", f"{len(data)} bytes")
    ends_r = np.array(ends, dtype=np.int64)
    return (
        np.append(0, ends_r[:-1]),
        ends_r,
        np.array(bits, dtype=np.int64),
        np.array(repeated, dtype=np.bool_),
    )


def _expand_alpha(
    data: bytes,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    bits: NDArray[np.int64],
    repeated: BoolMask,
) -> BoolMask:
    """Return bool (H*W,), reading only the fourth value of each pixel."""
    pixels = ends // CHANNELS - starts // CHANNELS  # alpha values inside each run
    entries = np.where(repeated, np.minimum(pixels, 1), pixels)
    first_alpha = starts // CHANNELS * CHANNELS + CHANNELS - 1
    base = np.where(repeated, bits, bits + WORD_BITS * (first_alpha - starts))
    within = np.arange(int(entries.sum())) - np.repeat(np.cumsum(entries) - entries, entries)
    position = np.repeat(base, entries) + WORD_BITS * CHANNELS * within
    raw = np.frombuffer(data + bytes(1), dtype=np.uint8).astype(np.uint16)
    pairs = raw[position >> 3] << 8 | raw[(position >> 3) + 1]
    alpha = (pairs >> (8 - (position & 7)).astype(np.uint16)) & 0xFF
    times = np.where(np.repeat(repeated, entries), np.repeat(pixels, entries), 1)
    mask: BoolMask = np.repeat(alpha >= FOREGROUND_ALPHA, times)
    return mask


def _broken(place: str, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="save the region again in Label Studio")
