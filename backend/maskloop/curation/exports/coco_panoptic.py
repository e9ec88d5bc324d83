"""COCO panoptic: `annotations/panoptic_SPLIT.json` and a PNG an image with id = R + 256 G + 65536 B.

Format: https://cocodataset.org/#format-data, section 4; 0 is no segment, which panopticapi passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskloop.curation.exports.coco_instances import coco_categories, coco_head, coco_image
from maskloop.curation.exports.format import (
    ExportJob,
    Record,
    Records,
    bare_name,
    split_name,
    write_json_lists,
)
from maskloop.curation.exports.label_maps import LabelMap, draw_objects, write_png
from maskloop.curation.snapshots.rows import ImageRow, ObjectKind, SnapshotImage

__all__ = ["PanopticFormat"]

MAX_ID = 2**24 - 1


class PanopticFormat:
    """See the module."""

    name: ClassVar[str] = "coco-panoptic"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "A pixel belongs to one segment: where objects overlap, the smallest is on top.",
        "Background and areas to ignore are 0, which panopticapi passes over in judging.",
        "`isthing` follows `maskloop_kind` of the label config, else all classes are things.",
    )

    def check(self, job: ExportJob) -> None:
        """Accept all."""

    def image_path(self, image: ImageRow) -> str:
        """Return `images/NAME`."""
        return f"images/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write the PNG."""
        drawn = draw_objects(one)
        ids = _ids(drawn)
        name = bare_name(one.image, ".png")
        colours = drawn.colours([(number & 255, number >> 8 & 255, number >> 16) for number in ids])
        write_png(folder / "annotations" / f"panoptic_{split_name(one.image.split)}" / name, colours)
        segments = [
            {
                "id": number,
                "category_id": row.category_id,
                "iscrowd": int(row.kind == ObjectKind.CROWD),
                "area": area,
                "bbox": _box(drawn.index_hw, index, row.box_yxyx),
            }
            for index, (number, row, area) in enumerate(
                zip(ids, drawn.rows, drawn.areas, strict=True), start=1
            )
            if area
        ]
        annotation = {"image_id": one.image.number, "file_name": name, "segments_info": segments}
        return Record(
            item=one.image.item,
            split=one.image.split,
            data={"image": coco_image(one.image), "annotation": annotation},
            counts=drawn.counts,
        )

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write a file for each split."""
        for split in job.plan.splits:

            def values(name: str, split: str = split) -> Iterator[Any]:
                return (record.data[name] for record in records() if record.split == split)

            write_json_lists(
                folder / "annotations" / f"panoptic_{split_name(split)}.json",
                {**coco_head(job.plan), "categories": coco_categories(job.categories)},
                {
                    "images": lambda values=values: values("image"),  # type: ignore[misc]
                    "annotations": lambda values=values: values("annotation"),  # type: ignore[misc]
                },
            )


def _ids(drawn: LabelMap) -> list[int]:
    """Return the segments' ids: the objects' own numbers where these fit, else 1, 2, 3."""
    numbers = [row.number for row in drawn.rows]
    fit = len(set(numbers)) == len(numbers) and all(0 < number <= MAX_ID for number in numbers)
    return numbers if fit else list(range(1, len(numbers) + 1))


def _box(index_hw: Any, index: int, box_yxyx: tuple[int, int, int, int]) -> list[int]:
    """Return x, y, width and height of what is seen of an object."""
    top, left, bottom, right = box_yxyx
    rows, columns = np.nonzero(index_hw[top:bottom, left:right] == index)
    y, x = int(rows.min()), int(columns.min())
    return [left + x, top + y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]
