"""Objects -> one map of an image in which each pixel belongs to one of them, and PNG files of such maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.curation.snapshots.rows import ObjectKind, ObjectRow, SnapshotImage
from maskloop.errors import CodecError

__all__ = ["LabelMap", "draw_objects", "write_png"]

IGNORED = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelMap:
    """Which object each pixel belongs to."""

    index_hw: NDArray[np.int32]  # 0: none; -1: an area to ignore; else 1 + the index in `rows`
    rows: tuple[ObjectRow, ...]  # in the order in which they were drawn
    areas: tuple[int, ...]  # pixels of each that are seen
    hidden: int  # pixels of objects under other objects
    vanished: int  # objects without a pixel that is seen

    @property
    def counts(self) -> dict[str, int]:
        """What is lost, for the card."""
        return {"pixels under another object": self.hidden, "objects hidden entirely": self.vanished}

    def values(self, value_of_row: list[int], *, ignored: int, kind: type[np.integer]) -> NDArray[np.integer]:
        """Return (H, W) with a value for each object, 0 where nothing is.

        Args:
            value_of_row: of each of `rows`.
            ignored: the value of areas to ignore.
            kind: the array's dtype.
        """
        table = np.array([0, *value_of_row, ignored], dtype=kind)
        return np.asarray(table[self.index_hw])  # -1 is the last

    def colours(self, colour_of_row: list[tuple[int, int, int]]) -> NDArray[np.uint8]:
        """Return (H, W, 3) with a colour for each object, black where nothing is and for areas to ignore.

        Args:
            colour_of_row: of each of `rows`, 0..255.
        """
        black = (0, 0, 0)
        return np.take(np.array([black, *colour_of_row, black], dtype=np.uint8), self.index_hw, axis=0)


def draw_objects(one: SnapshotImage, *, crowds: bool = True) -> LabelMap:
    """Return the map of an image: areas to ignore lowest, then crowds, then objects, smaller ones on top.

    Args:
        one: the image.
        crowds: whether crowds are drawn as objects are; else they are areas to ignore.
    """
    size_hw = one.image.size_hw
    drawn = [row for row in one.drawn if crowds or row.kind != ObjectKind.CROWD]
    rows = sorted(drawn, key=lambda row: (row.kind != ObjectKind.CROWD, -row.area, row.position))
    above = {row.position for row in rows}
    below = [row for row in one.objects if row.position not in above]
    index_hw = np.zeros(size_hw, dtype=np.int32)
    for index, row in [(IGNORED, row) for row in below] + list(enumerate(rows, start=1)):
        top, left, bottom, right = row.box_yxyx
        np.copyto(index_hw[top:bottom, left:right], index, where=row.segment(size_hw).mask_hw)
    areas = tuple(_seen(index_hw, index, row) for index, row in enumerate(rows, start=1))
    return LabelMap(
        index_hw=index_hw,
        rows=tuple(rows),
        areas=areas,
        hidden=sum(row.area for row in rows) - sum(areas),
        vanished=areas.count(0),
    )


def _seen(index_hw: NDArray[np.int32], index: int, row: ObjectRow) -> int:
    top, left, bottom, right = row.box_yxyx
    return int(np.count_nonzero(index_hw[top:bottom, left:right] == index))


def write_png(path: Path, values: NDArray[np.integer]) -> None:
    """Write a map as PNG: (H, W) of 8 or 16 bits, or (H, W, 3) of 8 bits in the order red, green, blue.

    Raises:
        CodecError: it cannot be encoded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = cv2.cvtColor(values, cv2.COLOR_RGB2BGR) if values.ndim == 3 else values
    encoded, data = cv2.imencode(".png", turned)
    if not encoded:
        raise CodecError(
            str(path), expected="a map of 8 or 16 bits", got=str(values.dtype), remedy="report this error"
        )
    path.write_bytes(data.tobytes())
