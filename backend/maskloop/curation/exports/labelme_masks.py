"""Labelme: a JSON file beside each image, with its objects as shapes of the type "mask".

Format: https://github.com/wkentaro/labelme (label_file.py; a mask shape is a PNG of its box)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import cv2
import numpy as np

from maskloop.curation.exports.format import ExportJob, Record, Records, bare_name
from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, SnapshotImage

__all__ = ["LabelmeFormat"]

VERSION = "5.4.1"  # of Labelme: the first ones with masks were 5.2


class LabelmeFormat:
    """See the module."""

    name: ClassVar[str] = "labelme"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "Shapes are masks, so that holes and parts stay; `flags` names crowds and areas to ignore.",
        "The JSON files lie beside the images; without images they name files that are not there.",
    )

    def check(self, job: ExportJob) -> None:
        """Accept all."""

    def image_path(self, image: ImageRow) -> str:
        """Return `SPLIT/NAME`."""
        return f"{image.split}/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write the JSON file."""
        image = one.image
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": [_shape(row, image.size_hw) for row in one.objects],
            "imagePath": PurePosixPath(image.file_name).name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        path = folder / image.split / bare_name(image, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        return Record(item=image.item, split=image.split)

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write the labels as `labelme --labels labels.txt` takes them."""
        text = "".join(f"{one.name}\n" for one in job.categories)
        (folder / "labels.txt").write_text(text, encoding="utf-8")


def _shape(row: ObjectRow, size_hw: tuple[int, int]) -> dict[str, Any]:
    _, data = cv2.imencode(".png", row.segment(size_hw).mask_hw.view(np.uint8) * 255)
    return {
        "label": row.label or "unlabelled",
        "points": [
            [row.left, row.top],
            [row.left + row.box_width - 1, row.top + row.box_height - 1],
        ],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {} if row.kind == "object" else {row.kind: True},
        "mask": base64.b64encode(data.tobytes()).decode("ascii"),
    }
