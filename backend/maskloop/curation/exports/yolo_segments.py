"""YOLO segmentation: `labels/SPLIT/NAME.txt`, a line an object: class x1 y1 x2 y2 ..., each 0..1.

Format: https://docs.ultralytics.com/datasets/segment
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from maskloop.curation.exports.format import (
    ExportJob,
    Record,
    Records,
    bare_name,
    objects_only,
    split_name,
)
from maskloop.curation.snapshots.rows import Category, ImageRow, ObjectRow, SnapshotImage
from maskloop.polygons.outlines import Ring
from maskloop.polygons.rings import join_holes, rings_to_mask, segments_to_rings
from maskloop.types import Segment

__all__ = ["YoloFormat"]

DIGITS = 7
LEAST_IOU = 0.98  # under it the exact outline is written
IOU_NAME = "IoU of a polygon with its mask"


class YoloFormat:
    """See the module."""

    name: ClassVar[str] = "yolo-seg"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "An object is one line: its parts, and the holes in them, are joined by bridges of zero width.",
        "Outlines are simplified by at most a pixel, and exact where the IoU would fall under .98.",
        "A class's index is its category number, less one where numbers begin at 1; indexes without a class "
        "are named unused-N, so that indexes stay the same in every export.",
        "YOLO has no crowds and no areas to ignore: they are left out.",
    )

    def check(self, job: ExportJob) -> None:
        """Accept all."""

    def image_path(self, image: ImageRow) -> str:
        """Return `images/SPLIT/NAME`."""
        return f"images/{split_name(image.split)}/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write the text file; an image without an object has an empty one."""
        size_hw = one.image.size_hw
        shift = _first(job.categories)
        lines, ious = [], [1.0]
        objects = objects_only(one)
        for row, (ring, iou) in zip(objects, _rings(objects, size_hw), strict=True):
            ious.append(iou)
            points = (ring / (size_hw[1], size_hw[0])).clip(0, 1).ravel()
            numbers = " ".join(f"{value:.{DIGITS}g}" for value in points)
            lines.append(f"{(row.category_id or 0) - shift} {numbers}\n")
        path = folder / "labels" / split_name(one.image.split) / bare_name(one.image, ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="ascii")
        return Record(
            item=one.image.item,
            split=one.image.split,
            counts={"crowds and areas to ignore left out": len(one.objects) - len(objects)},
            least={IOU_NAME: min(ious)},
        )

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write data.yaml."""
        shift = _first(job.categories)
        names = {one.id - shift: one.name for one in job.categories}
        lines = ["path: .", "train: images/train", "val: images/val", "names:"]
        for index in range(max(names, default=-1) + 1):
            # A string of JSON is one of YAML.
            lines.append(f"  {index}: {json.dumps(names.get(index, f'unused-{index}'), ensure_ascii=False)}")
        (folder / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for split in ("train", "val"):
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)


def _first(categories: Sequence[Category]) -> int:
    """Return the number that is index 0."""
    return 0 if any(one.id == 0 for one in categories) else 1


def _rings(objects: Sequence[ObjectRow], size_hw: tuple[int, int]) -> list[tuple[Ring, float]]:
    """Return for each object one ring for all its parts, and its IoU with the mask by pixel centres."""
    segments = [row.segment(size_hw) for row in objects]
    found = [
        _judged(segment, rings)
        for segment, rings in zip(segments, segments_to_rings(segments, tolerance_px=1.0), strict=True)
    ]
    poor = [index for index, (_, iou) in enumerate(found) if iou < LEAST_IOU]
    exact = segments_to_rings([segments[index] for index in poor], tolerance_px=0.0)
    for index, rings in zip(poor, exact, strict=True):
        found[index] = _judged(segments[index], rings)
    return found


def _judged(segment: Segment, rings: Sequence[Ring]) -> tuple[Ring, float]:
    ring = join_holes(rings[0], rings[1:])
    top, left = segment.offset_yx
    drawn_hw = rings_to_mask([ring - (left, top)], (segment.mask_hw.shape[0], segment.mask_hw.shape[1]))
    shared = int(np.count_nonzero(drawn_hw & segment.mask_hw))
    return ring, shared / (int(drawn_hw.sum()) + segment.area - shared)
