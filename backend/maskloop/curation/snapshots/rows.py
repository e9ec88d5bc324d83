"""The rows of a snapshot: images with the annotation that counts, and their objects."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from maskloop.errors import CodecError
from maskloop.mask_runs import rle_to_segment
from maskloop.types import Segment

__all__ = ["Category", "ImageRow", "ObjectKind", "ObjectRow", "Row", "SnapshotImage", "row_line"]


class ObjectKind(StrEnum):
    """What an area is."""

    OBJECT = "object"  # of a class
    BOX = "box"  # of a class, somewhere inside: the area is a rectangle or an ellipse around it
    CROWD = "crowd"  # of a class, with so many objects that they were not separated
    IGNORED = "ignored"  # its label marks what is neither object nor background
    UNLABELLED = "unlabelled"  # drawn without a label, or with one that the project does not have


@dataclass(frozen=True, kw_only=True)
class Category:
    """A class; its number stays the same in every snapshot and export."""

    id: int  # from 1; in a folder of elsewhere its own numbers, from 0
    name: str  # as the annotators see it
    is_thing: bool = True  # whether single objects count; False: one area an image


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One image, and the version of the annotation that counts on it."""

    item: str  # which image of which task, or its file name; rows are sorted by it
    number: int  # COCO's image id
    file_name: str  # in exports: relative, unique also where case does not count
    image_key: str  # SHA-256 of the file
    image_uri: str  # where it can be had again
    height: int  # of the upright image, in pixels
    width: int
    split: str  # train or validation
    source: str  # "annotation", "prediction:VERSION" or "folder"
    project_id: int | None = None
    task_id: int | None = None
    view: str = ""  # which of the task's images
    image_index: int = 0  # its page
    annotation_id: int | None = None
    version_id: int | None = None  # of the annotation in maskloop's database
    updated_at: str | None = None  # when it was saved: ISO 8601, UTC
    annotator: int | None = None  # user number
    model_version: str | None = None  # whose prediction was corrected
    lead_time_s: float | None = None
    ground_truth: bool = False
    approximate: bool = False  # some of it was given as boxes
    label_config: str | None = None  # SHA-256 of the one it was made under

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return self.height, self.width


@dataclass(frozen=True, kw_only=True)
class ObjectRow:
    """One object or area, with its mask at the image's full resolution."""

    item: str  # of its image
    position: int  # in its image, from 0
    number: int  # COCO's annotation id
    kind: str  # an ObjectKind
    category_id: int | None  # None for ignored and unlabelled areas
    label: str  # as drawn, also where it is no category
    area: int  # pixels
    top: int  # its tight box, in pixels
    left: int
    box_height: int
    box_width: int
    rle: str  # COCO's compressed RLE of the whole image
    score: float  # 0..1; 1 for what a person drew

    @property
    def box_yxyx(self) -> tuple[int, int, int, int]:
        """Its tight box as (top, left, bottom, right) in pixels; bottom and right are exclusive."""
        return self.top, self.left, self.top + self.box_height, self.left + self.box_width

    def segment(self, size_hw: tuple[int, int]) -> Segment:
        """Return it with its mask.

        Raises:
            CodecError: the RLE is damaged.
        """
        place = f"snapshot, object {self.position} of {self.item}"
        found = rle_to_segment(self.rle, size_hw, label=self.label, score=self.score, place=place)
        if found is None:
            raise CodecError(
                place, expected="a mask of at least one pixel", got="none", remedy="make the snapshot again"
            )
        return found


Row: TypeAlias = ImageRow | ObjectRow


@dataclass(frozen=True, kw_only=True)
class SnapshotImage:
    """An image with its objects."""

    image: ImageRow
    objects: tuple[ObjectRow, ...]  # as drawn, the first one lowest

    @property
    def drawn(self) -> tuple[ObjectRow, ...]:
        """The objects that have a class, crowds too."""
        return tuple(row for row in self.objects if row.category_id is not None)

    @property
    def ignored(self) -> tuple[ObjectRow, ...]:
        """The areas that are neither object nor background."""
        return tuple(row for row in self.objects if row.category_id is None)


def row_line(row: Row) -> str:
    """Return a row as one line of JSON: what a snapshot's digest is made of."""
    values: list[Any] = [getattr(row, field.name) for field in dataclasses.fields(row)]
    return json.dumps(values, separators=(",", ":"), ensure_ascii=True)
