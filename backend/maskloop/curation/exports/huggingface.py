"""Folders that `datasets.load_dataset` reads and transformers' training examples take as they are.

`hf`: `annotation` with red = class and green = object (run_instance_segmentation.py, which takes the number
of an object for unique in its image). `hf-semantic`: `label` with the class (run_semantic_segmentation.py).
Format: https://huggingface.co/docs/datasets/image_dataset (metadata.jsonl, several images a row)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from maskloop.curation.exports.format import (
    ExportJob,
    Record,
    Records,
    bare_name,
    refuse_categories,
)
from maskloop.curation.exports.label_maps import draw_objects, write_png
from maskloop.curation.exports.semantic_png import class_values
from maskloop.curation.snapshots.rows import ImageRow, SnapshotImage
from maskloop.errors import CodecError, ConfigurationError

__all__ = ["HfInstanceFormat", "HfSemanticFormat"]

MAX_OBJECTS = 255  # green has 8 bits, 0 is background
BACKGROUND = "background"


class HfInstanceFormat:
    """For run_instance_segmentation.py."""

    name: ClassVar[str] = "hf"
    needs_images: ClassVar[bool] = True
    notes: ClassVar[Sequence[str]] = (
        "annotation: red is the category number, green the number of the object in its image; both are 0 "
        "where nothing is, and in crowds and areas to ignore, which the form cannot hold. Train with "
        "`--do_reduce_labels`, so that 0 is no class.",
        "A pixel belongs to one object: where objects overlap, the smallest is on top.",
        "An image with over 255 objects is left out and named.",
    )

    def check(self, job: ExportJob) -> None:
        """Refuse category numbers that 8 bits cannot hold, and 0, which is the background."""
        _check_numbers(self.name, job, 255)

    def image_path(self, image: ImageRow) -> str:
        """Return `SPLIT/images/NAME`."""
        return f"{image.split}/images/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write the PNG."""
        drawn = draw_objects(one, crowds=False)
        if len(drawn.rows) > MAX_OBJECTS:
            raise CodecError(
                f"{one.image.item} as hf",
                expected=f"at most {MAX_OBJECTS} objects an image",
                got=str(len(drawn.rows)),
                remedy="export as coco, or split the image",
            )
        colours = drawn.colours(
            [(row.category_id or 0, number, 0) for number, row in enumerate(drawn.rows, start=1)]
        )
        name = bare_name(one.image, ".png")
        write_png(
            folder / one.image.split / "annotations" / name,
            colours,
        )
        left_out = {"crowds and areas to ignore left out": len(one.objects) - len(drawn.rows)}
        return Record(
            item=one.image.item,
            split=one.image.split,
            data={
                "file_name": f"images/{one.image.file_name}",
                "annotation_file_name": f"annotations/{name}",
            },
            counts={**drawn.counts, **left_out},
        )

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write a metadata.jsonl for each split that has images."""
        _write_rows(records, job, folder, {"semantic_class_to_id": _class_ids(job)})
        _write_id2label(job, folder)


class HfSemanticFormat:
    """For run_semantic_segmentation.py."""

    name: ClassVar[str] = "hf-semantic"
    needs_images: ClassVar[bool] = True
    notes: ClassVar[Sequence[str]] = (
        "label: the category number; 0 is background, 255 is to be ignored. id2label.json names the classes.",
        "A pixel has one class: where objects overlap, the smallest is on top.",
    )

    def check(self, job: ExportJob) -> None:
        """Refuse category numbers that 8 bits cannot hold, and 0, which is the background."""
        _check_numbers(self.name, job, 254)

    def image_path(self, image: ImageRow) -> str:
        """Return `SPLIT/images/NAME`."""
        return f"{image.split}/images/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write the PNG."""
        drawn = draw_objects(one)
        name = bare_name(one.image, ".png")
        write_png(folder / one.image.split / "labels" / name, class_values(drawn, is_wide=False))
        return Record(
            item=one.image.item,
            split=one.image.split,
            data={"file_name": f"images/{one.image.file_name}", "label_file_name": f"labels/{name}"},
            counts=drawn.counts,
        )

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write a metadata.jsonl for each split that has images, and id2label.json."""
        _write_rows(records, job, folder, {})
        _write_id2label(job, folder)


def _check_numbers(name: str, job: ExportJob, most: int) -> None:
    refuse_categories(name, job.categories, most)
    if any(one.id == 0 for one in job.categories):
        raise ConfigurationError(
            f"export as {name}",
            expected="category numbers from 1: 0 is the background",
            got="a category with the number 0",
            remedy="leave it out with --labels, or number the categories of the COCO folder from 1",
        )


def _class_ids(job: ExportJob) -> dict[str, int]:
    names = {one.name for one in job.categories}
    background = next(name for name in (BACKGROUND, "no object", "maskloop: none") if name not in names)
    return {background: 0, **{one.name: one.id for one in job.categories}}


def _write_rows(records: Records, job: ExportJob, folder: Path, more: dict[str, Any]) -> None:
    for split in job.plan.splits:

        def rows(split: str = split) -> Iterator[Record]:
            return (record for record in records() if record.split == split and record.data)

        if next(rows(), None) is None:
            continue  # a folder without images is no split
        with (folder / split / "metadata.jsonl").open("w", encoding="utf-8") as file:
            for record in rows():
                file.write(json.dumps({**record.data, **more}, ensure_ascii=False) + "\n")


def _write_id2label(job: ExportJob, folder: Path) -> None:
    names = {str(number): name for name, number in _class_ids(job).items()}
    text = json.dumps(names, indent=1, ensure_ascii=False)
    (folder / "id2label.json").write_text(text + "\n", encoding="utf-8")
