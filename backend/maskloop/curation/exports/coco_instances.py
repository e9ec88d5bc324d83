"""COCO instances: `annotations/instances_SPLIT.json`, one annotation an object, as RLE or as polygons.

Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from maskloop.curation.exports.format import (
    ExportJob,
    ExportPlan,
    Record,
    Records,
    objects_only,
    split_name,
    write_json_lists,
)
from maskloop.curation.snapshots.rows import Category, ImageRow, ObjectKind, ObjectRow, SnapshotImage
from maskloop.polygons.rings import segments_to_rings

__all__ = ["CocoFormat", "coco_categories", "coco_head", "coco_image"]


class CocoFormat:
    """See the module."""

    name: ClassVar[str] = "coco"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "An object is one annotation, whatever its parts and holes; crowds have `iscrowd` 1.",
        "Areas to ignore stand under `ignored_areas`, which COCO's readers pass over and maskloop reads.",
        "Polygons (with --polygons) follow the pixels' outlines; a hole is cut in by a bridge of zero width.",
    )

    def check(self, job: ExportJob) -> None:
        """Accept all."""

    def image_path(self, image: ImageRow) -> str:
        """Return `images/NAME`."""
        return f"images/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write nothing: all is in the record."""
        size_hw = one.image.size_hw
        least: dict[str, float] = {}
        annotations = []
        polygons = _polygons(objects_only(one), size_hw) if job.plan.polygons else {}
        for row in one.drawn:
            segmentation: Any = _rle(row, size_hw)
            if row.position in polygons:
                segmentation, iou = polygons[row.position]
                least["IoU of a polygon with its mask"] = min(
                    iou, least.get("IoU of a polygon with its mask", 1.0)
                )
            annotations.append(
                {
                    "id": row.number,
                    "image_id": one.image.number,
                    "category_id": row.category_id,
                    "iscrowd": int(row.kind == ObjectKind.CROWD),
                    "area": row.area,
                    "bbox": [row.left, row.top, row.box_width, row.box_height],
                    "segmentation": segmentation,
                    **({"score": row.score} if row.score < 1 else {}),
                    **({"kind": row.kind} if row.kind == ObjectKind.BOX else {}),
                }
            )
        ignored = [
            {
                "id": row.number,
                "image_id": one.image.number,
                "label": row.label,
                "kind": row.kind,
                "segmentation": _rle(row, size_hw),
            }
            for row in one.ignored
        ]
        data = {"image": coco_image(one.image), "annotations": annotations, "ignored": ignored}
        return Record(item=one.image.item, split=one.image.split, data=data, least=least)

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write a file for each split."""
        for split in job.plan.splits:

            def images(split: str = split) -> Iterator[Any]:
                return (record.data["image"] for record in records() if record.split == split)

            def listed(name: str, split: str = split) -> Iterator[Any]:
                return (one for record in records() if record.split == split for one in record.data[name])

            write_json_lists(
                folder / "annotations" / f"instances_{split_name(split)}.json",
                {**coco_head(job.plan), "categories": coco_categories(job.categories)},
                {
                    "images": images,
                    "annotations": lambda listed=listed: listed("annotations"),  # type: ignore[misc]
                    "ignored_areas": lambda listed=listed: listed("ignored"),  # type: ignore[misc]
                },
            )


def coco_head(plan: ExportPlan) -> dict[str, Any]:
    """Return the fields of a COCO file about the whole."""
    licence = {"id": 1, "name": plan.licence, "url": ""}
    return {"info": {"description": "exported by maskloop"}, "licenses": [licence]}


def coco_categories(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Return the categories as COCO has them; `isthing` as its panoptic files have it."""
    return [
        {"id": one.id, "name": one.name, "supercategory": "", "isthing": int(one.is_thing)}
        for one in categories
    ]


def coco_image(image: ImageRow) -> dict[str, Any]:
    """Return an image as COCO has it, and where it comes from."""
    known = {
        "task_id": image.task_id,
        "annotation_id": image.annotation_id,
        "version_id": image.version_id,
        "sha256": image.image_key,
    }
    return {
        "id": image.number,
        "file_name": image.file_name,
        "height": image.height,
        "width": image.width,
        "license": 1,
        "maskloop": {name: value for name, value in known.items() if value is not None},
    }


def _rle(row: ObjectRow, size_hw: tuple[int, int]) -> dict[str, Any]:
    return {"size": list(size_hw), "counts": row.rle}


def _polygons(
    objects: Sequence[ObjectRow], size_hw: tuple[int, int]
) -> dict[int, tuple[list[list[float]], float]]:
    """Return position -> rings of an object, and the IoU of what the COCO API makes of them with the mask."""
    from faster_coco_eval import mask as coco_api

    segments = [row.segment(size_hw) for row in objects]
    found = {}
    for row, rings in zip(objects, segments_to_rings(segments, tolerance_px=0.0), strict=True):
        flat = [[float(value) for value in ring.ravel()] for ring in rings]
        drawn = coco_api.merge(coco_api.frPyObjects(flat, *size_hw))
        (iou,) = coco_api.iou([drawn], [_rle(row, size_hw)], [0]).ravel()
        found[row.position] = (flat, float(iou))
    return found
