"""Segments <-> text for the database: JSON with one COCO RLE per crop (COCO API, `mask.py`)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from maskloop.errors import StoreError
from maskloop.types import Segment

__all__ = ["segments_from_text", "segments_to_text"]


def segments_to_text(segments: tuple[Segment, ...]) -> str:
    """Return the segments as compact JSON; masks as compressed COCO RLE of the crop."""
    from faster_coco_eval import mask as coco_mask

    rows = []
    for segment in segments:
        rle = coco_mask.encode(np.asfortranarray(segment.mask_hw, dtype=np.uint8))
        rows.append(
            {
                "label": segment.label,
                "score": segment.score,
                "offset": list(segment.offset_yx),
                "size": list(segment.mask_hw.shape),
                "counts": rle["counts"].decode("ascii"),
            }
            | ({"box": True} if segment.is_box else {})
        )
    return json.dumps(rows, separators=(",", ":"))


def segments_from_text(text: str, *, place: str = "stored segments") -> tuple[Segment, ...]:
    """Return the segments that `segments_to_text` wrote.

    Raises:
        StoreError: the text is not what was written.
    """
    try:
        return tuple(_segment(row) for row in json.loads(text))
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise StoreError(
            place,
            expected="segments as maskloop writes them",
            got=f"{type(exc).__name__}: {exc}",
            remedy="restore the database from a backup, or run `maskloop sync` to read the annotation again",
        ) from exc


def _segment(row: dict[str, Any]) -> Segment:
    from faster_coco_eval import mask as coco_mask

    height, width = (int(side) for side in row["size"])
    top, left = (int(side) for side in row["offset"])
    mask_hw = coco_mask.decode({"size": [height, width], "counts": row["counts"].encode("ascii")})
    return Segment(
        mask_hw=np.ascontiguousarray(mask_hw, dtype=np.bool_),
        offset_yx=(top, left),
        label=str(row["label"]),
        score=float(row["score"]),
        is_box=bool(row.get("box", False)),
    )
