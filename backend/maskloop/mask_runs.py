"""Segments <-> COCO's compressed RLE of the whole image, without ever drawing the whole image.

Format: COCO API, `maskApi.c` (rleToString, rleFrString): run lengths down the columns, the first one of
background; from the fourth on as differences to the run before the last; base 32 digits from character 48 on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.types import Segment

__all__ = ["rle_to_segment", "runs_to_text", "segment_to_rle", "segment_to_runs", "text_to_runs"]

MAX_DIGITS = 9  # of one run: 45 bits
MAX_PIXELS = 2**31 - 1


def segment_to_rle(segment: Segment, size_hw: tuple[int, int]) -> str:
    """Return a segment as the `counts` of a compressed COCO RLE; what lies outside the image is cut off.

    Args:
        segment: any.
        size_hw: of the whole image.
    """
    return runs_to_text(segment_to_runs(segment, size_hw))


def segment_to_runs(segment: Segment, size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Return int64 (N,): lengths of alternating runs of the whole image, down its columns, background first.

    Args:
        segment: any.
        size_hw: of the whole image.
    """
    height, width = size_hw
    top, left = segment.offset_yx
    columns_wh = segment.mask_hw[: max(0, height - top), : max(0, width - left)].T
    changes = np.diff(columns_wh.astype(np.int8), axis=1, prepend=0, append=0)
    column, row = np.nonzero(changes == 1)
    starts = (column + left) * height + row + top
    column, row = np.nonzero(changes == -1)
    ends = (column + left) * height + row + top
    # A run that reaches the image's lower border goes on at the top of the next column.
    apart = starts[1:] != ends[:-1]
    starts, ends = starts[np.append(True, apart)[: len(starts)]], ends[np.append(apart, True)[: len(ends)]]
    edges = np.empty(2 * len(starts) + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, height * width
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    runs = np.diff(edges)
    return runs if runs[-1] or len(runs) == 1 else runs[:-1]


def runs_to_text(runs: NDArray[np.int64]) -> str:
    """Return run lengths as the text of a compressed RLE."""
    values = runs.copy()
    values[3:] -= runs[1:-2]
    digits: list[NDArray[np.uint8]] = []
    more = np.ones(len(values), dtype=np.bool_)
    counts = np.zeros(len(values), dtype=np.int64)
    while more.any():
        digit = (values & 31).astype(np.uint8)
        values = values >> 5
        counts += more
        # Ended once what is left is only the sign, and the digit's highest bit says the same sign.
        going_on = more & ~(((values == 0) & (digit & 16 == 0)) | ((values == -1) & (digit & 16 != 0)))
        digits.append(np.where(going_on, digit | 32, digit) + 48)
        more = going_on
    table = np.stack(digits, axis=1)
    used = np.arange(table.shape[1]) < counts[:, None]
    return table[used].astype(np.uint8).tobytes().decode("ascii")


def text_to_runs(text: str, *, place: str = "RLE") -> NDArray[np.int64]:
    """Return int64 (N,): the run lengths of a compressed RLE's text.

    Raises:
        CodecError: no such text.
    """
    try:
        digits = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as exc:
        raise _bad(place, text) from exc
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise _bad(place, text)
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > MAX_DIGITS:
        raise _bad(place, text)
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((digits & 31) << shifts, starts)
    values -= np.where(digits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def rle_to_segment(
    text: str, size_hw: tuple[int, int], *, label: str, score: float = 1.0, place: str = "RLE"
) -> Segment | None:
    """Return the segment of a compressed COCO RLE of a whole image, or None where it covers no pixel.

    Args:
        text: its `counts`.
        size_hw: of the whole image.
        label: the segment's.
        score: the segment's, 0..1.
        place: what an error names.

    Raises:
        CodecError: no RLE, or not one of an image of this size.
    """
    height, width = size_hw
    runs = text_to_runs(text, place=place)
    if not 0 < height * width <= MAX_PIXELS or runs.min() < 0 or int(runs.sum()) != height * width:
        raise CodecError(
            place,
            expected=f"runs that add up to {height}x{width} pixels",
            got=f"{len(runs)} runs of {int(runs.sum())}",
            remedy="make the snapshot or the export again",
        )
    edges = np.cumsum(runs)
    starts, ends = edges[: len(runs) // 2 * 2 : 2], edges[1::2]
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    if not len(starts):
        return None
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
    top, bottom = _rows(starts, ends, height)
    marks = np.zeros((right - left) * height + 1, dtype=np.int8)
    marks[starts - left * height] += 1
    marks[ends - left * height] -= 1
    columns_wh = np.cumsum(marks[:-1], dtype=np.int8).view(np.bool_).reshape(right - left, height)
    crop_hw = np.ascontiguousarray(columns_wh[:, top:bottom].T)
    return Segment(mask_hw=crop_hw, offset_yx=(top, left), label=label, score=score)


def _rows(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int) -> tuple[int, int]:
    """Return the first row that a run is in, and the one after the last."""
    if ((ends - 1) // height != starts // height).any():
        return 0, height  # a run that goes on in the next column has the last and the first row
    return int((starts % height).min()), int(((ends - 1) % height).max()) + 1


def _bad(place: str, text: str) -> CodecError:
    return CodecError(
        place,
        expected="a compressed RLE",
        got=repr(text[:40]),
        remedy="make the snapshot or the export again",
    )
