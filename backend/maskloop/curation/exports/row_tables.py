"""The snapshot's own rows, of some splits and classes only: `images.parquet`, `objects.parquet`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from maskloop.curation.exports.format import ExportJob, Record, Records
from maskloop.curation.snapshots.row_files import RowFileWriter
from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, SnapshotImage

__all__ = ["ParquetFormat"]


class ParquetFormat:
    """See the module."""

    name: ClassVar[str] = "parquet"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "Nothing is lost: masks are COCO's compressed RLE of the whole image (`rle`), `kind` tells objects "
        "from crowds and areas to ignore, and each image names its annotation, annotator and file.",
    )

    def check(self, job: ExportJob) -> None:
        """Accept all."""

    def image_path(self, image: ImageRow) -> str:
        """Return `images/NAME`."""
        return f"images/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write nothing: all is in the record."""
        data = {"image": vars(one.image), "objects": [vars(row) for row in one.objects]}
        return Record(item=one.image.item, split=one.image.split, data=data)

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write both tables, and the categories."""
        with (
            RowFileWriter(folder / "images.parquet", ImageRow) as images,
            RowFileWriter(folder / "objects.parquet", ObjectRow) as objects,
        ):
            for record in records():
                images.write(ImageRow(**record.data["image"]))
                for row in record.data["objects"]:
                    objects.write(ObjectRow(**row))
        text = json.dumps([vars(one) for one in job.categories], indent=1, ensure_ascii=False)
        (folder / "categories.json").write_text(text + "\n", encoding="utf-8")
