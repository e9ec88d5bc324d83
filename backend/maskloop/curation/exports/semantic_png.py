"""Class maps as PNG: a semantic one as MMSegmentation and torchvision read it, or Cityscapes' two.

Formats: https://mmsegmentation.readthedocs.io (custom datasets) and
https://github.com/mcordts/cityscapesScripts (labelIds, instanceIds).
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from maskloop.curation.exports.format import (
    ExportJob,
    Record,
    Records,
    bare_name,
    refuse_categories,
    split_name,
)
from maskloop.curation.exports.label_maps import LabelMap, draw_objects, write_png
from maskloop.curation.snapshots.rows import Category, ImageRow, ObjectKind, SnapshotImage
from maskloop.errors import CodecError

__all__ = ["CityscapesFormat", "SemanticFormat", "class_values"]

IGNORED_8, IGNORED_16 = 255, 65535
MAX_CITY_CLASS, CITY_STEP = 65, 1000  # 16 bits hold class * 1000 + object


class SemanticFormat:
    """A PNG an image whose values are category numbers."""

    name: ClassVar[str] = "semantic-png"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "0 is background, other values are category numbers (classes.json), 255 is to be ignored; with "
        "category numbers above 254 the PNG files have 16 bits and 65535 is to be ignored.",
        "A pixel has one class: where objects overlap, the smallest is on top.",
    )

    def check(self, job: ExportJob) -> None:
        """Refuse numbers beyond 16 bits."""
        refuse_categories(self.name, job.categories, IGNORED_16 - 1)

    def image_path(self, image: ImageRow) -> str:
        """Return `images/SPLIT/NAME`."""
        return f"images/{split_name(image.split)}/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write the PNG."""
        drawn = draw_objects(one)
        path = folder / "annotations" / split_name(one.image.split) / bare_name(one.image, ".png")
        write_png(path, class_values(drawn, is_wide=job.highest_id >= IGNORED_8))
        return Record(item=one.image.item, split=one.image.split, counts=drawn.counts)

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write classes.json."""
        _write_classes(
            job.categories, folder, ignored=IGNORED_16 if job.highest_id >= IGNORED_8 else IGNORED_8
        )


class CityscapesFormat:
    """`gtFine` with labelIds and instanceIds, `leftImg8bit` with the images."""

    name: ClassVar[str] = "cityscapes"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "instanceIds: number of the class * 1000 + number of the object from 0; the class alone for crowds "
        "and for classes without objects. labelIds: the class. 0 is background or to be ignored.",
        "A pixel belongs to one object: where objects overlap, the smallest is on top.",
        "An image with over 1000 objects of a class is left out and named.",
    )

    def check(self, job: ExportJob) -> None:
        """Refuse classes whose objects do not fit into 16 bits."""
        refuse_categories(self.name, job.categories, MAX_CITY_CLASS)

    def image_path(self, image: ImageRow) -> str:
        """Return `leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.SUFFIX`."""
        stem = _city_stem(image)
        suffix = PurePosixPath(image.file_name).suffix
        return f"leftImg8bit/{split_name(image.split)}/{stem}_leftImg8bit{suffix}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write both PNG files."""
        drawn = draw_objects(one)
        objects: Counter[int] = Counter()
        values = []
        for row in drawn.rows:
            category = row.category_id or 0
            if row.kind == ObjectKind.CROWD or category in job.stuff_ids:
                values.append(category)
                continue
            values.append(category * CITY_STEP + objects[category])
            objects[category] += 1
        if values and (max(values) > IGNORED_16 or max(objects.values(), default=0) > CITY_STEP):
            category, count = objects.most_common(1)[0]
            raise CodecError(
                f"{one.image.item} as Cityscapes",
                expected=f"at most {CITY_STEP} objects of a class",
                got=f"{count} of class {category}",
                remedy="export as coco, or split the image",
            )
        base = folder / "gtFine" / split_name(one.image.split) / _city_stem(one.image)
        write_png(Path(f"{base}_gtFine_instanceIds.png"), drawn.values(values, ignored=0, kind=np.uint16))
        ids = [row.category_id or 0 for row in drawn.rows]
        write_png(Path(f"{base}_gtFine_labelIds.png"), drawn.values(ids, ignored=0, kind=np.uint8))
        return Record(item=one.image.item, split=one.image.split, counts=drawn.counts)

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write classes.json."""
        _write_classes(job.categories, folder, ignored=0)


def class_values(drawn: LabelMap, *, is_wide: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.integer]]:
    """Return (H, W) of category numbers, uint8 with 255 or uint16 with 65535 where nothing counts.

    Args:
        drawn: the image's objects.
        is_wide: whether 16 bits are needed.
    """
    ids = [row.category_id or 0 for row in drawn.rows]
    if is_wide:
        return drawn.values(ids, ignored=IGNORED_16, kind=np.uint16)
    return drawn.values(ids, ignored=IGNORED_8, kind=np.uint8)


def _city_stem(image: ImageRow) -> str:
    path = PurePosixPath(image.file_name).with_suffix("")
    city = "_".join(path.parent.parts) or "data"
    if len(path.parent.parts) > 1:  # a/b and a_b are two cities
        city += f"_{zlib.crc32(str(path.parent).encode()):08x}"
    return f"{city}/{path.name}"


def _write_classes(categories: Sequence[Category], folder: Path, *, ignored: int) -> None:
    content = {
        "background": 0,
        "ignored": ignored,
        "classes": [{"id": one.id, "name": one.name, "is_thing": one.is_thing} for one in categories],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / "classes.json").write_text(text + "\n", encoding="utf-8")
