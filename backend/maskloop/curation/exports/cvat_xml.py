"""CVAT for images 1.1: `annotations.xml` with one `<mask>` an object.

Format: https://docs.cvat.ai/docs/manual/advanced/xml_format/ (run lengths along the rows of the box, the
first one of background)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from maskloop.curation.exports.format import ExportJob, Record, Records, split_name
from maskloop.curation.snapshots.rows import ImageRow, SnapshotImage

__all__ = ["CvatFormat"]


class CvatFormat:
    """See the module."""

    name: ClassVar[str] = "cvat"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "Masks are exact, with holes and parts. CVAT has no crowds: they are masks of their class.",
        "Areas to ignore have the label maskloop-ignored.",
    )

    def check(self, job: ExportJob) -> None:
        """Accept all."""

    def image_path(self, image: ImageRow) -> str:
        """Return `images/NAME`."""
        return f"images/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write nothing: all is in the record."""
        image = one.image
        masks = [
            {
                "label": row.label if row.category_id is not None else "maskloop-ignored",
                "source": "manual",
                "occluded": "0",
                "rle": ", ".join(map(str, _row_runs(row.segment(image.size_hw).mask_hw))),
                "left": row.left,
                "top": row.top,
                "width": row.box_width,
                "height": row.box_height,
                "z_order": row.position,
            }
            for row in one.objects
        ]
        frame = {
            "id": image.number,
            "name": image.file_name,
            "subset": split_name(image.split),
            "width": image.width,
            "height": image.height,
        }
        return Record(item=image.item, split=image.split, data={"image": frame, "masks": masks})

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write the XML file."""
        labels = [one.name for one in job.categories] + ["maskloop-ignored"]
        with (folder / "annotations.xml").open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
            file.write("  <meta><task><labels>\n")
            for label in labels:
                file.write(f"    <label><name>{escape(_plain(label))}</name><type>mask</type></label>\n")
            file.write("  </labels></task></meta>\n")
            for record in records():
                file.write(f"  <image{_attributes(record.data['image'])}>\n")
                for mask in record.data["masks"]:
                    file.write(f"    <mask{_attributes(mask)}></mask>\n")
                file.write("  </image>\n")
            file.write("</annotations>\n")


def _row_runs(mask_hw: NDArray[np.bool_]) -> list[int]:
    """Return run lengths along the rows, the first one of background."""
    flat = mask_hw.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0)) if flat.size else np.zeros(0, int)
    runs: list[int] = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return runs


def _attributes(values: dict[str, Any]) -> str:
    return "".join(f" {name}={quoteattr(_plain(str(value)))}" for name, value in values.items())


def _plain(text: str) -> str:
    """Return the text without characters that XML 1.0 does not have."""
    return "".join(char if char >= " " or char in "\t\n" else "\ufffd" for char in text)
