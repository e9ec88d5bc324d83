"""The rle-pack bit stream of a flattened RGBA mask: runs -> bytes, bytes -> mask.

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
from maskloop_studio.formats.faint import FOREGROUND_LEVEL
from maskloop_studio.formats.run_chain import NO_ITEM, follow_chain

__all__ = ["MAX_PIXELS", "count_pixels", "pack_runs", "unpack_levels", "unpack_mask"]

CHANNELS = 4
COUNT_BITS, WORD_SIZE_BITS, RUN_SIZE_BITS = 32, 5, 4
HEADER_BITS = COUNT_BITS + WORD_SIZE_BITS + 4 * RUN_SIZE_BITS
KIND_BITS = 3  # of a run: repeated or not, and which size
STEP_WINDOW_BITS = 8 + KIND_BITS - 1  # that hold a run's kind at each of a byte's bits
WORD_BITS = 8
WINDOW_BYTES = 8  # that are read at once, also at the end of a stream
RUN_SIZES_BITS = (3, 4, 8, 16)  # what the SDK writes
MAX_RUN_PIXELS = 2**16 // CHANNELS
MAX_RUN_CODE = MAX_RUN_PIXELS << 1 | 1  # of foreground; see `pack_runs`
FIELDS_AT_ONCE = BYTES_AT_ONCE = 1 << 14  # they stay in the processor's cache
MAX_PADDING_BYTES = 8  # the SDK writes up to one; more means that the stream does not match its header
MAX_PIXELS = (2**COUNT_BITS - 1) // CHANNELS


def pack_runs(edges: NDArray[np.int64], *, first_is_foreground: bool) -> bytes:
    """Return the stream of a mask whose runs are background and foreground in turn.

    Args:
        edges: int64 (R + 1,), ascending: 0, where one run ends and the next begins, and the number of pixels,
            at most MAX_PIXELS; at least one run.
        first_is_foreground: what the first run is.
    """
    # Twice the pixels, and 1 for foreground: the place in the tables.
    codes = (edges[1:] - edges[:-1]) << 1
    codes[0 if first_is_foreground else 1 :: 2] |= 1
    if int(codes.max()) > MAX_RUN_CODE:
        codes = _split_long(codes)
    fields, widths = _field_tables()
    header = int(edges[-1]) * CHANNELS << WORD_SIZE_BITS | (WORD_BITS - 1)
    for size in RUN_SIZES_BITS:
        header = header << RUN_SIZE_BITS | (size - 1)
    aligned, stops = np.empty(len(codes) + 1, dtype=np.uint64), np.empty(len(codes) + 1, dtype=np.int64)
    aligned[0], stops[0] = header << (64 - HEADER_BITS), HEADER_BITS
    aligned[1:], stops[1:] = fields.take(codes), widths.take(codes)
    return _join_fields(aligned, stops.cumsum(out=stops))


def unpack_mask(data: bytearray, size_hw: tuple[int, int], place: str) -> BoolMask:
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
    flat = _unpack_repeated(data, size_hw[0] * size_hw[1] * CHANNELS, run_sizes)
    if flat is None:
        flat = unpack_levels(data, size_hw, place) >= FOREGROUND_LEVEL
    mask_hw: BoolMask = flat.reshape(size_hw)
    return mask_hw


def unpack_levels(data: bytearray, size_hw: tuple[int, int], place: str) -> NDArray[np.uint8]:
    """Return uint8 (H*W,): the alpha of every pixel. Slower than `unpack_mask`, which leaves most of it out.

    Raises:
        CodecError: as `unpack_mask`, or colours without any alpha.
    """
    run_sizes = _read_header(data, size_hw, place)
    runs = _scan_runs(data, size_hw[0] * size_hw[1] * CHANNELS, run_sizes, place)
    levels = _expand_alpha(data, *runs)
    if not levels.any() and _has_colours(data, *runs):
        raise CodecError(
            place,
            expected="the mask in the alpha channel",
            got="colours, and an alpha of 0 everywhere",
            remedy="write 255 in each of the four channels of the mask's pixels and import it again",
        )
    return levels


def count_pixels(data: bytearray) -> int:
    """Return the number of pixels in a stream's header; 0 where there is no such header."""
    values = int.from_bytes(data[:4], "big") if len(data) >= 4 else 0
    return values // CHANNELS if values % CHANNELS == 0 else 0


def _split_long(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes of runs that one field can hold; only the last piece of a run is shorter.

    That piece has a code behind the others: the SDK gives it the largest size, however short it is.
    """
    pixels = codes >> 1
    before = (pixels - 1) // MAX_RUN_PIXELS  # pieces of the full length
    split = np.repeat(MAX_RUN_PIXELS << 1 | codes & 1, before + 1)
    last_pieces = codes - before * (MAX_RUN_PIXELS << 1) + (before > 0) * (MAX_RUN_CODE + 1)
    split[np.arange(len(codes)) + before.cumsum()] = last_pieces
    return split


@lru_cache(maxsize=1)
def _field_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return the field of each code, its bits at the upper end of a word, and how many bits it has.

    Once for whole runs and once more for the last pieces of long ones.
    """
    codes = np.arange(MAX_RUN_CODE + 1)
    lengths = np.maximum(codes >> 1, 1) * CHANNELS
    smallest = np.searchsorted(np.left_shift(1, RUN_SIZES_BITS), lengths)
    sizes = np.append(smallest, np.full_like(smallest, len(RUN_SIZES_BITS) - 1))
    codes, lengths = np.tile(codes, 2), np.tile(lengths, 2)
    size_bits = np.take(RUN_SIZES_BITS, sizes)
    heads = (0b100 | sizes) << size_bits | (lengths - 1)  # of repeated values
    values = np.where(codes & 1, 2**WORD_BITS - 1, 0)
    widths = KIND_BITS + size_bits + WORD_BITS
    aligned = (heads << WORD_BITS | values).view(np.uint64) << (64 - widths).view(np.uint64)
    return aligned, widths.astype(np.uint8)


def _join_fields(aligned: NDArray[np.uint64], stops: NDArray[np.int64]) -> bytes:
    """Return the fields as one string of whole bytes.

    Args:
        aligned: each with its bits at the upper end of a word and zeros behind, fewer than 64 bits.
        stops: the bit after each.
    """
    starts = np.empty_like(stops)
    starts[0], starts[1:] = 0, stops[:-1]
    words, shifts = starts >> 6, (starts & 63).view(np.uint64)
    # A field is shorter than a word, so that one begins in every word: the groups are words 0, 1, 2 ...
    (lasts,) = np.append(words[1:] != words[:-1], True).nonzero()
    firsts = np.zeros_like(lasts)
    firsts[1:] = lasts[:-1] + 1
    joined = np.zeros(len(lasts) + 1, dtype=np.uint64)
    joined[:-1] = np.bitwise_or.reduceat(aligned >> shifts, firsts)
    # the rest of the last one; by 64 it gives 0
    joined[1:] |= aligned.take(lasts) << (np.uint64(64) - shifts.take(lasts))
    return joined.astype(">u8").tobytes()[: -(-int(stops[-1]) // 8)]


def _read_header(data: bytearray, size_hw: tuple[int, int], place: str) -> tuple[int, ...]:
    """Check the stream's header and return its four run sizes in bits."""
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
            remedy="the image was replaced or resized, or the mask was not made of four channels; "
            "annotate it again",
        )
    word_bits = (header >> (4 * RUN_SIZE_BITS) & 0b11111) + 1
    if word_bits != WORD_BITS:
        raise _broken(place, f"words of {WORD_BITS} bits", f"{word_bits} bits")
    return tuple((header >> shift & 0b1111) + 1 for shift in (12, 8, 4, 0))


def _unpack_repeated(data: bytearray, count: int, run_sizes: tuple[int, ...]) -> BoolMask | None:
    """Return bool (H*W,) of a stream of repeated values only, as every encoder writes a mask.

    None for any other, and for one that is broken: `_scan_runs` reads it or raises the error.
    """
    padded = data + bytes(WINDOW_BYTES)
    steps = _steps(padded, run_sizes)
    positions = follow_chain(steps, HEADER_BITS)
    repeated, ends, foreground = _read_fields(padded, positions, run_sizes)
    last = int(ends.searchsorted(count))
    if last == len(ends) or ends[last] != count or not repeated[: last + 1].all():
        return None
    if _wrong_end(data, int(positions[last]) + int(steps[positions[last]])) is not None:
        return None
    # Along soft rims many runs are the same to a mask.
    lasts = np.append(foreground[1 : last + 1] != foreground[:last], True).nonzero()[0]
    stops = ends.take(lasts) >> 2  # one of four is alpha
    stops[1:] -= stops[:-1].copy()
    mask: BoolMask = foreground.take(lasts).repeat(stops)
    return mask


def _read_fields(
    padded: bytearray, positions: NDArray[np.int64], run_sizes: tuple[int, ...]
) -> tuple[BoolMask, NDArray[np.int64], BoolMask]:
    """Return of each run whether it is repeated, where it ends, and whether it is foreground.

    The value's highest bit is set where it is at least FOREGROUND_LEVEL.
    """
    # 64 bits at every 32nd: from any bit on at least 33 of them, which hold the kind, the length and the bit.
    words = np.frombuffer(padded, dtype=">u4", count=len(padded) // 4).astype(np.uint64)
    windows = words[:-1] << np.uint64(32) | words[1:]
    _, shifts, masks = _tables(run_sizes)
    repeated, foreground = np.empty((2, len(positions)), dtype=np.bool_)
    ends = np.empty(len(positions), dtype=np.int64)
    for start in range(0, len(positions), FIELDS_AT_ONCE):
        here = slice(start, start + FIELDS_AT_ONCE)
        part = positions[here]
        bits = windows.take(part >> 5)
        bits <<= (part & 31).view(np.uint64)
        repeated[here] = bits.view(np.int64) < 0
        kinds = (bits >> np.uint64(61) & np.uint64(0b11)).view(np.int64)
        bits >>= shifts.take(kinds)
        bits &= masks.take(kinds)
        foreground[here] = bits & np.uint64(1)
        bits >>= np.uint64(1)
        np.add(bits.view(np.int64), 1, out=ends[here])
    return repeated, ends.cumsum(out=ends), foreground


def _steps(padded: bytearray, run_sizes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return for each bit before the padding how many bits a repeated run that begins there has."""
    values, size = np.frombuffer(padded, dtype=np.uint8), len(padded) - WINDOW_BYTES
    table, _, _ = _tables(run_sizes)
    steps = np.empty(size, dtype=np.uint64)
    for start in range(0, size, BYTES_AT_ONCE):
        stop = min(start + BYTES_AT_ONCE, size)
        windows = values[start:stop].astype(np.int64)
        windows <<= STEP_WINDOW_BITS - 8
        windows |= values[start + 1 : stop + 1] >> (16 - STEP_WINDOW_BITS)
        table.take(windows, out=steps[start:stop], mode="clip")  # other modes copy `out`
    return steps.view(np.uint8)


@lru_cache(maxsize=4)
def _tables(run_sizes: tuple[int, ...]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the steps at the first eight bits of each window, one byte each; then, by run size, by how much
    to shift and with what to mask a run to leave its length - 1 and the bit behind it."""
    kinds_wb = np.arange(1 << STEP_WINDOW_BITS)[:, None] >> np.arange(7, -1, -1) & 0b111
    run_bits = KIND_BITS + np.array(run_sizes) + WORD_BITS
    steps_wb = np.where(kinds_wb & 0b100, run_bits[kinds_wb & 0b11], NO_ITEM).astype(np.uint8)
    sizes = np.array(run_sizes, dtype=np.uint64)
    shifts, masks = np.uint64(60) - sizes, (np.uint64(2) << sizes) - np.uint64(1)
    return steps_wb.view(np.uint64)[:, 0], shifts, masks


def _wrong_end(data: bytearray, bit: int) -> tuple[str, str] | None:
    """Return what was expected and what came where the runs end at this bit; None where all is well."""
    used = -(-bit // 8)
    if used > len(data) or len(data) - used > MAX_PADDING_BYTES or any(data[used:]):
        return f"an end after {used} bytes", f"{len(data)} bytes"
    return None


def _scan_runs(
    data: bytearray, count: int, run_sizes: tuple[int, ...], place: str
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
    ends_r, bits_r = np.array(ends, dtype=np.int64), np.array(bits, dtype=np.int64)
    return np.append(0, ends_r[:-1]), ends_r, bits_r, np.array(repeated, dtype=np.bool_)


def _expand_alpha(
    data: bytearray,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    bits: NDArray[np.int64],
    repeated: BoolMask,
) -> NDArray[np.uint8]:
    """Return uint8 (H*W,), reading only the fourth value of each pixel."""
    pixels = ends // CHANNELS - starts // CHANNELS  # alpha values inside each run
    entries = np.where(repeated, np.minimum(pixels, 1), pixels)
    first_alpha = starts // CHANNELS * CHANNELS + CHANNELS - 1
    base = np.where(repeated, bits, bits + WORD_BITS * (first_alpha - starts))
    within = np.arange(int(entries.sum())) - np.repeat(np.cumsum(entries) - entries, entries)
    alpha = _values_at(data, np.repeat(base, entries) + WORD_BITS * CHANNELS * within)
    times = np.where(np.repeat(repeated, entries), np.repeat(pixels, entries), 1)
    levels: NDArray[np.uint8] = np.repeat(alpha, times)
    return levels


def _has_colours(
    data: bytearray,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    bits: NDArray[np.int64],
    repeated: BoolMask,
) -> bool:
    """Return whether any value of any channel is above 0."""
    entries = np.where(repeated, 1, ends - starts)
    within = np.arange(int(entries.sum())) - np.repeat(np.cumsum(entries) - entries, entries)
    return bool(_values_at(data, np.repeat(bits, entries) + WORD_BITS * within).any())


def _values_at(data: bytearray, position: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the values that begin at these bits."""
    raw = np.frombuffer(data + bytes(1), dtype=np.uint8).astype(np.uint16)
    pairs = raw[position >> 3] << 8 | raw[(position >> 3) + 1]
    values: NDArray[np.uint8] = (pairs >> (8 - (position & 7)).astype(np.uint16)).astype(np.uint8)
    return values


def _broken(place: str, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="save the region again in Label Studio")
