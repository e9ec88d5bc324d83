"""What every export format has in common: its images, its files for one image, its files for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Protocol

from maskloop.curation.snapshots.rows import Category, ImageRow, ObjectKind, ObjectRow, SnapshotImage
from maskloop.errors import ConfigurationError

__all__ = [
    "ExportFormat",
    "ExportJob",
    "ExportPlan",
    "ImagesMode",
    "Record",
    "Records",
    "bare_name",
    "objects_only",
    "refuse_categories",
    "split_name",
    "write_json_lists",
]

SPLITS = ("train", "validation")


class ImagesMode(StrEnum):
    """What becomes of the image files."""

    COPY = "copy"
    LINK = "link"  # hard links to the image cache; copies where that is on another disk
    NONE = "none"  # annotations only


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What is exported, and how."""

    format: str
    splits: tuple[str, ...] = SPLITS
    images: ImagesMode = ImagesMode.COPY
    labels: tuple[str, ...] = ()  # only of these categories; empty: of all
    polygons: bool = False  # coco: polygons in place of RLE
    licence: str = "unknown"  # of images and annotations, for the card

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "images": str(self.images)}


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """A plan, and what the snapshot says about all its images."""

    plan: ExportPlan
    digest: str  # of the snapshot
    categories: tuple[Category, ...]  # those that are exported, by number

    @property
    def stuff_ids(self) -> frozenset[int]:
        """Numbers of the categories of which an image has one area, not objects."""
        return frozenset(one.id for one in self.categories if not one.is_thing)

    @property
    def highest_id(self) -> int:
        """The highest category number, 0 where there is none."""
        return max((one.id for one in self.categories), default=0)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one image leaves behind for the files of all; kept as a line of JSON until then."""

    item: str
    split: str
    data: Mapping[str, Any] = field(default_factory=dict)  # the format's own
    counts: Mapping[str, int] = field(default_factory=dict)  # name -> amount, summed up for the card
    least: Mapping[str, float] = field(default_factory=dict)  # name -> value, of which the card has the least
    failure: str | None = None  # why the image was left out


Records = Callable[[], Iterator[Record]]  # reads them again from the start at each call


class ExportFormat(Protocol):
    """One form of a data set; no state, so that a run that was stopped can go on."""

    name: ClassVar[str]
    needs_images: ClassVar[bool]  # whether it is of no use without the image files
    notes: ClassVar[Sequence[str]]  # for the card: what readers have to know, and what is lost

    def check(self, job: ExportJob) -> None:
        """Refuse categories that the form cannot hold.

        Raises:
            ConfigurationError: with what to do instead.
        """
        ...

    def image_path(self, image: ImageRow) -> str:
        """Return where the image file goes, relative to the export's folder."""
        ...

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write the files of one image; its objects are of the job's categories.

        Raises:
            CodecError: the form cannot hold this image.
        """
        ...

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write the files of all images, from their records."""
        ...


def split_name(split: str) -> str:
    """Return the short name of a split: train or val."""
    return "val" if split == "validation" else split


def bare_name(image: ImageRow, suffix: str) -> str:
    """Return the image's relative name with another suffix."""
    return str(PurePosixPath(image.file_name).with_suffix(suffix))


def objects_only(one: SnapshotImage) -> tuple[ObjectRow, ...]:
    """Return the single objects, boxes too: no crowds, no areas to ignore."""
    return tuple(row for row in one.objects if row.kind in (ObjectKind.OBJECT, ObjectKind.BOX))


def refuse_categories(name: str, categories: Sequence[Category], most: int) -> None:
    """Refuse category numbers above what a form can hold.

    Raises:
        ConfigurationError: there is one.
    """
    over = [one for one in categories if one.id > most]
    if over:
        raise ConfigurationError(
            f"export as {name}",
            expected=f"category numbers up to {most}",
            got=f"{over[0].id} ({over[0].name})",
            remedy="name fewer classes with --labels, or choose another format",
        )


def write_json_lists(
    path: Path, head: Mapping[str, Any], lists: Mapping[str, Callable[[], Iterator[Any]]]
) -> None:
    """Write a JSON object with long lists, one value in memory at once.

    Args:
        path: the new file.
        head: its short fields.
        lists: name -> what yields the values of a list.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1])
        for index, (name, values) in enumerate(lists.items()):
            file.write(f"{', ' if head or index else ''}{json.dumps(name)}: [")
            for position, value in enumerate(values()):
                file.write(",\n" if position else "\n")
                file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
            file.write("]")
        file.write("}\n")
