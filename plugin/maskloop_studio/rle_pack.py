"""The rle-pack bit stream of a flattened RGBA mask: runs -> bytes, bytes -> mask; `brush.py` knows regions.

A header of 53 bits (values in all, bits of a value, four sizes of run lengths), then runs one after another:
1 for a repeated value or 0 for single ones, two bits of size index, length - 1, the value or the values.
Source: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.types import BoolMask
from maskloop_studio.run_chain import NO_ITEM, follow_chain

__all__ = ["MAX_PIXELS", "pack_runs", "unpack_mask"]

CHANNELS = 4
COUNT_BITS, WORD_SIZE_BITS, RUN_SIZE_BITS = 32, 5, 4
HEADER_BITS = COUNT_BITS + WORD_SIZE_BITS + 4 * RUN_SIZE_BITS
KIND_BITS = 3  # of a run: repeated or not, and which size
STEP_WINDOW_BITS = 8 + KIND_BITS - 1  # that say a run's kind at each of a byte's bits
WORD_BITS = 8
RUN_SIZES_BITS = (3, 4, 8, 16)  # what the SDK writes
MAX_RUN_VALUES = 2**16
FIELDS_AT_ONCE = 1 << 14  # they stay in the processor's cache
MAX_PADDING_BYTES = 8  # the SDK writes up to one; more means that the stream is not what its header says
FOREGROUND_ALPHA = 128
MAX_PIXELS = (2**COUNT_BITS - 1) // CHANNELS


def pack_runs(pixels: NDArray[np.int64], *, first_is_foreground: bool) -> bytes:
    """Return the stream of a mask whose runs are background and foreground in turn.

    Args:
        pixels: int64 (R,), how long each run is, at least 1; at least one run, at most MAX_PIXELS in all.
        first_is_foreground: what the first run is.
    """
    lengths = pixels * CHANNELS
    header = int(lengths.sum()) << WORD_SIZE_BITS | (WORD_BITS - 1)
    for size in RUN_SIZES_BITS:
        header = header << RUN_SIZE_BITS | (size - 1)
    values: NDArray[np.uint64] = np.zeros(len(lengths), dtype=np.uint64)
    values[0 if first_is_foreground else 1 :: 2] = 2**WORD_BITS - 1
    if int(lengths.max()) > MAX_RUN_VALUES:
        lengths, values = _split_long(lengths, values)
    kinds = np.full(len(lengths), 0b100, dtype=np.uint64)  # of repeated values
    widths = np.full(len(lengths), RUN_SIZES_BITS[0], dtype=np.uint64)
    for size, wider in zip(RUN_SIZES_BITS[:-1], np.diff(RUN_SIZES_BITS), strict=True):
        longer = lengths > 1 << size
        kinds += longer
        widths += longer * np.uint64(wider)
    fields = (kinds << widths | (lengths - 1).view(np.uint64)) << np.uint64(WORD_BITS) | values
    return _join_fields(header, fields, widths + np.uint64(KIND_BITS + WORD_BITS))


def unpack_mask(data: bytes, size_hw: tuple[int, int], place: str) -> BoolMask:
    """Return bool (H, W): where the stream's alpha is at least 128.

    Args:
        data: the whole stream.
        size_hw: the image's height and width in pixels.
        place: what an error names.

    Raises:
        CodecError: of another image size, of another word size, truncated or over-long. The size is checked
            before memory for the mask is taken.
    """
    run_sizes = _read_header(data, size_hw, place)
    count = size_hw[0] * size_hw[1] * CHANNELS
    flat = _unpack_repeated(data, count, run_sizes)
    if flat is None:
        flat = _expand_alpha(data, *_scan_runs(data, count, run_sizes, place))
    mask_hw: BoolMask = flat.reshape(size_hw)
    return mask_hw


def _split_long(
    lengths: NDArray[np.int64], values: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return runs of at most MAX_RUN_VALUES; only the last piece of a run is shorter."""
    pieces = -(-lengths // MAX_RUN_VALUES)
    split = np.full(int(pieces.sum()), MAX_RUN_VALUES, dtype=np.int64)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * MAX_RUN_VALUES
    return split, np.repeat(values, pieces)


def _join_fields(header: int, fields: NDArray[np.uint64], widths: NDArray[np.uint64]) -> bytes:
    """Return header and fields, each of less than 64 bits, as one string of whole bytes."""
    word = np.uint64(64)
    stops = np.cumsum(widths) + np.uint64(HEADER_BITS)
    starts = stops - widths
    words, shifts = starts >> np.uint64(6), starts & np.uint64(63)
    aligned = fields << (word - widths)
    # A field is shorter than a word, so that one begins in every word: the groups are words 0, 1, 2 ...
    firsts = np.append(0, np.flatnonzero(words[1:] != words[:-1]) + 1)
    lasts = np.append(firsts[1:], len(fields)) - 1
    joined = np.zeros(len(firsts) + 1, dtype=np.uint64)
    joined[:-1] = np.bitwise_or.reduceat(aligned >> shifts, firsts)
    joined[1:] |= aligned[lasts] << (word - shifts[lasts])  # the rest of the last one; by 64 it gives 0
    joined[0] |= np.uint64(header << (64 - HEADER_BITS))
    return joined.astype(">u8").tobytes()[: -(-int(stops[-1]) // 8)]


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


def _unpack_repeated(data: bytes, count: int, run_sizes: tuple[int, ...]) -> BoolMask | None:
    """Return bool (H*W,) of a stream of repeated values only, as every encoder writes a mask.

    None for any other, and for one that is broken: `_scan_runs` reads it or says what is wrong.
    """
    steps = _steps(data, run_sizes)
    positions = follow_chain(steps, HEADER_BITS)
    fields, ends = _read_fields(data, positions, run_sizes)
    last = int(np.searchsorted(ends, count))
    if last == len(ends) or ends[last] != count or (steps.take(positions[: last + 1]) == NO_ITEM).any():
        return None
    if _wrong_end(data, int(positions[last]) + int(steps[positions[last]])) is not None:
        return None
    ends, foreground = ends[: last + 1], (fields[: last + 1] & np.uint64(1)).astype(np.bool_)
    # Along soft rims many runs are the same to a mask.
    lasts = np.append(np.flatnonzero(foreground[1:] != foreground[:-1]), last)
    mask: BoolMask = np.repeat(
        foreground[lasts], np.diff(ends[lasts] >> 2, prepend=0)
    )  # one of four is alpha
    return mask


def _read_fields(
    data: bytes, positions: NDArray[np.int64], run_sizes: tuple[int, ...]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return of each repeated run length - 1 with the value's highest bit behind it, and where it ends.

    That bit says whether the value is at least FOREGROUND_ALPHA.
    """
    windows: NDArray[np.uint64] = np.ndarray((len(data),), ">u8", data + bytes(8), strides=(1,))
    sizes = np.array(run_sizes, dtype=np.uint64)
    shifts, masks = np.uint64(60) - sizes, (np.uint64(2) << sizes) - np.uint64(1)
    fields = np.empty(len(positions), dtype=np.uint64)
    for start in range(0, len(positions), FIELDS_AT_ONCE):
        part = positions[start : start + FIELDS_AT_ONCE]
        bits = windows[part >> 3].astype(np.uint64) << (part & 7).view(np.uint64)
        kinds = (bits >> np.uint64(61) & np.uint64(0b11)).view(np.int64)
        np.bitwise_and(bits >> shifts.take(kinds), masks.take(kinds), out=fields[start : start + len(part)])
    return fields, np.cumsum((fields >> np.uint64(1)).view(np.int64) + 1)


def _steps(data: bytes, run_sizes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return for each bit of the stream how many bits a repeated run that begins there has."""
    windows: NDArray[np.uint16] = np.ndarray((len(data),), ">u2", data + bytes(1), strides=(1,))
    return _step_table(run_sizes).take(windows >> (16 - STEP_WINDOW_BITS)).view(np.uint8)


@lru_cache(maxsize=4)
def _step_table(run_sizes: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return for each window of bits the steps at the first eight of them, one byte each."""
    kinds_wb = np.arange(1 << STEP_WINDOW_BITS)[:, None] >> np.arange(7, -1, -1) & 0b111
    run_bits = KIND_BITS + np.array(run_sizes) + WORD_BITS
    steps_wb = np.where(kinds_wb & 0b100, run_bits[kinds_wb & 0b11], NO_ITEM).astype(np.uint8)
    return steps_wb.view(np.uint64)[:, 0]


def _wrong_end(data: bytes, bit: int) -> tuple[str, str] | None:
    """Return what was expected and what came where the runs end at this bit; None where all is well."""
    used = -(-bit // 8)
    if used > len(data) or len(data) - used > MAX_PADDING_BYTES or any(data[used:]):
        return f"an end after {used} bytes", f"{len(data)} bytes"
    return None


def _scan_runs(
    data: bytes, count: int, run_sizes: tuple[int, ...], place: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], BoolMask]:
    """Return each run's first and last + 1 value, the bit its values start at, and whether it repeats one.

    Any stream, one run after the other: this loop only finds the runs, `_expand_alpha` reads them.
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
        bit += KIND_BITS + size
        bits.append(bit)
        if window >> 31 & 1:
            repeated.append(True)
            bit += WORD_BITS
        else:
            repeated.append(False)
            bit += WORD_BITS * (at - (ends[-1] if ends else 0))
        ends.append(at)
        if bit > total_bits:  # in here, so that a lying header costs no more than its stream
            raise _broken(place, f"{count} values", f"{len(data)} bytes, which end before that")
    if at > count:
        raise _broken(place, f"{count} values", f"{at}")
    wrong = _wrong_end(data, bit)
    if wrong is not None:
        raise _broken(place, *wrong)
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
