"""Folders in COCO's form, of instances or panoptic: which files there are, and their images one by one.

Formats: https://cocodataset.org/#format-data. Found are `instances.json` or `panoptic.json` beside `images/`,
else `annotations/instances_SPLIT.json` or `annotations/panoptic_SPLIT.json`, as COCO and our exports have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from maskloop.curation.snapshots.rows import Category, ObjectKind
from maskloop.errors import CodecError
from maskloop.lab.synthetic.coco import coco_field, coco_mask, coco_records, load_coco
from maskloop.mask_runs import rle_to_segment
from maskloop.masks import mask_to_segment
from maskloop.types import UNLABELLED, Segment

__all__ = ["CocoFolder", "FolderImage", "FolderObject", "open_coco_folder"]

SPLIT_FILE = re.compile(r"(instances|panoptic)_(.+)\.json\Z")
TURNED = range(5, 9)  # EXIF orientations with width and height exchanged
ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderObject:
    """One annotation."""

    segment: Segment
    kind: ObjectKind
    category_id: int | None  # None for areas to ignore
    number: int  # COCO's annotation id; in a panoptic file the segment's id


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderImage:
    """One image and what is annotated on it."""

    item: str  # its file name; with its split in front where two splits have the name
    file_name: str
    path: Path
    size_hw: tuple[int, int]  # of the upright image
    split: str  # train or validation
    number: int  # COCO's image id
    objects: tuple[FolderObject, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Source:
    file: Path
    split: str
    content: Mapping[str, Any]
    annotations: Mapping[int, list[Mapping[str, Any]]]  # image id -> its records
    ignored: Mapping[int, list[Mapping[str, Any]]]  # image id -> areas to ignore, of our own exports
    image_folders: Sequence[Path]
    png_folders: Sequence[Path]  # of a panoptic file


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoFolder:
    """A folder whose JSON files are read; masks are decoded image by image."""

    folder: Path
    is_panoptic: bool
    categories: tuple[Category, ...]
    sources: tuple[_Source, ...]

    def __len__(self) -> int:
        return sum(len(source.content["images"]) for source in self.sources)

    def images(self) -> Iterator[FolderImage]:
        """Yield the images, sorted by item.

        Raises:
            CodecError: a record is not as COCO has it, or an image file is missing or of another size.
        """
        names = {category.id: category.name for category in self.categories}
        listed = [
            (str(coco_field(record, "file_name", str, f"{source.file}, image {index}")), source, record)
            for source in self.sources
            for index, record in enumerate(source.content["images"])
        ]
        counts = Counter(name for name, _, _ in listed)

        def item_of(name: str, source: _Source) -> str:
            return name if counts[name] == 1 else f"{source.split}/{name}"

        for name, source, record in sorted(listed, key=lambda one: item_of(*one[:2])):
            yield _read_image(item_of(name, source), source, record, names)


def open_coco_folder(folder: Path, *, panoptic: bool | None = None) -> CocoFolder:
    """Read the JSON files of a folder.

    Args:
        folder: of images and annotations.
        panoptic: True: only panoptic files count; None: they count where there are no others.

    Raises:
        CodecError: there are none, or one is not as COCO has it.
    """
    kinds = ("panoptic",) if panoptic else ("instances",) if panoptic is False else ("instances", "panoptic")
    for kind in kinds:
        files = _find_files(folder, kind)
        if files:
            sources = tuple(_open_source(file, split, folder, kind) for file, split in files)
            return CocoFolder(
                folder=folder,
                is_panoptic=kind == "panoptic",
                categories=_categories(sources),
                sources=sources,
            )
    raise _bad(
        str(folder),
        " or ".join(f"{kind}.json or annotations/{kind}_SPLIT.json" for kind in kinds),
        "no such file" if folder.is_dir() else "no such folder",
    )


def _find_files(folder: Path, kind: str) -> list[tuple[Path, str]]:
    single = folder / f"{kind}.json"
    if single.is_file():
        return [(single, "train")]
    matches = (
        (path, SPLIT_FILE.match(path.name)) for path in sorted((folder / "annotations").glob("*.json"))
    )
    return [
        (path, "train" if match[2].startswith("train") else "validation")
        for path, match in matches
        if match and match[1] == kind
    ]


def _open_source(file: Path, split: str, folder: Path, kind: str) -> _Source:
    content = load_coco(file)
    coco_records(content, "images", file)
    own = file.stem.partition("_")[2]
    return _Source(
        file=file,
        split=split,
        content=content,
        annotations=_by_image(content, "annotations", file),
        ignored=_by_image(content, "ignored_areas", file) if "ignored_areas" in content else {},
        image_folders=[folder / "images", *([folder / own, folder / "images" / own] if own else [])],
        png_folders=[file.with_suffix(""), folder / "panoptic", folder / file.stem]
        if kind == "panoptic"
        else [],
    )


def _by_image(content: Mapping[str, Any], name: str, file: Path) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for index, record in enumerate(coco_records(content, name, file)):
        number = coco_field(record, "image_id", int, f"{file}, {name} {index}")
        found.setdefault(number, []).append(record)
    return found


def _categories(sources: Sequence[_Source]) -> tuple[Category, ...]:
    found: dict[int, Category] = {}
    for source in sources:
        for index, record in enumerate(coco_records(source.content, "categories", source.file)):
            place = f"{source.file}, category {index}"
            one = Category(
                id=coco_field(record, "id", int, place),
                name=coco_field(record, "name", str, place),
                is_thing=bool(record.get("isthing", 1)),
            )
            if found.setdefault(one.id, one).name != one.name:
                raise _bad(place, f"the name {found[one.id].name!r} for the id {one.id}", repr(one.name))
    names = Counter(one.name for one in found.values())
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None or any(one.id < 0 or not one.name for one in found.values()):
        raise _bad(str(sources[0].file), "categories with a name of their own and an id from 0", repr(twice))
    return tuple(found[number] for number in sorted(found))


def _read_image(
    item: str, source: _Source, record: Mapping[str, Any], names: Mapping[int, str]
) -> FolderImage:
    name = str(record["file_name"])
    place = f"{source.file}, image {name[:200]}"
    size_hw = (coco_field(record, "height", int, place), coco_field(record, "width", int, place))
    if min(size_hw) < 1:
        raise _bad(place, "a size of at least one pixel", f"{size_hw[0]}x{size_hw[1]}")
    number = coco_field(record, "id", int, place)
    path = _find_file(name, source.image_folders, place)
    _check_size(path, size_hw, place)
    records = source.annotations.get(number, [])
    if source.png_folders:
        objects = _panoptic_objects(records, source, size_hw, names, place)
    else:
        objects = tuple(_instance_objects(records, size_hw, names, place))
        objects += tuple(_ignored_objects(source.ignored.get(number, ()), size_hw, place))
    return FolderImage(
        item=item,
        file_name=name,
        path=path,
        size_hw=size_hw,
        split=str(record.get("split", source.split)),
        number=number,
        objects=objects,
    )


def _instance_objects(
    records: Sequence[Mapping[str, Any]], size_hw: tuple[int, int], names: Mapping[int, str], place: str
) -> Iterator[FolderObject]:
    for record in records:
        where = f"{place}, annotation {record.get('id')}"
        category_id = coco_field(record, "category_id", int, where)
        if category_id not in names:
            raise _bad(where, "a category of the file", f"category_id {category_id}")
        mask_hw = coco_mask(record.get("segmentation"), size_hw, where)
        segment = mask_to_segment(mask_hw, label=names[category_id])
        if segment is not None:
            yield FolderObject(
                segment=segment,
                kind=_kind(record),
                category_id=category_id,
                number=coco_field(record, "id", int, where),
            )


def _kind(record: Mapping[str, Any]) -> ObjectKind:
    if record.get("iscrowd"):
        return ObjectKind.CROWD
    return ObjectKind.BOX if record.get("kind") == "box" else ObjectKind.OBJECT  # as our own exports write


def _ignored_objects(
    records: Sequence[Mapping[str, Any]], size_hw: tuple[int, int], place: str
) -> Iterator[FolderObject]:
    """Yield the areas to ignore, which our own exports keep apart from COCO's annotations."""
    for record in records:
        label = coco_field(record, "label", str, place)
        counts = coco_field(dict(record.get("segmentation") or {}), "counts", str, place)
        segment = rle_to_segment(counts, size_hw, label=label or UNLABELLED, place=place)
        if segment is not None:
            kind = ObjectKind.IGNORED if record.get("kind") == "ignored" else ObjectKind.UNLABELLED
            number = coco_field(record, "id", int, place)
            yield FolderObject(segment=segment, kind=kind, category_id=None, number=number)


def _panoptic_objects(
    records: Sequence[Mapping[str, Any]],
    source: _Source,
    size_hw: tuple[int, int],
    names: Mapping[int, str],
    place: str,
) -> tuple[FolderObject, ...]:
    if not records:
        return ()
    png = _find_file(coco_field(records[0], "file_name", str, place), source.png_folders, place)
    try:
        with Image.open(png) as opened:
            rgb = np.asarray(opened.convert("RGB"), dtype=np.int64)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as exc:
        raise _bad(f"{place}, {png}", "a PNG", f"{type(exc).__name__}: {exc}") from exc
    if rgb.shape[:2] != size_hw:
        raise _bad(f"{place}, {png}", f"{size_hw[0]}x{size_hw[1]} pixels", f"{rgb.shape[0]}x{rgb.shape[1]}")
    ids, inverse = np.unique(rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2], return_inverse=True)
    index_hw = inverse.reshape(size_hw).astype(np.int32) + 1
    boxes = ndimage.find_objects(index_hw)
    place_of = {int(number): index for index, number in enumerate(ids)}
    objects = []
    for info in records[0].get("segments_info") or ():
        where = f"{place}, segment {info.get('id')}"
        number, category_id = (coco_field(info, key, int, where) for key in ("id", "category_id"))
        if category_id not in names or number not in place_of or number == 0:
            raise _bad(where, "a category of the file and an id of the PNG", f"category {category_id}")
        box = boxes[place_of[number]]
        segment = Segment(
            mask_hw=index_hw[box] == place_of[number] + 1,
            offset_yx=(box[0].start, box[1].start),
            label=names[category_id],
        )
        kind = ObjectKind.CROWD if info.get("iscrowd") else ObjectKind.OBJECT
        objects.append(FolderObject(segment=segment, kind=kind, category_id=category_id, number=number))
    return tuple(objects)


def _find_file(name: str, folders: Sequence[Path], place: str) -> Path:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
        raise _bad(place, "a file name inside the folder", repr(name[:200]))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise _bad(place, f"the file {name[:200]} in {', '.join(str(folder) for folder in folders)}", "none")


def _check_size(path: Path, size_hw: tuple[int, int], place: str) -> None:
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if opened.getexif().get(ORIENTATION) in TURNED:
                width, height = height, width
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as exc:
        raise _bad(place, "an image file", f"{type(exc).__name__}: {exc}"[:200]) from exc
    if (height, width) != size_hw:
        raise _bad(place, f"an image of {size_hw[0]}x{size_hw[1]}", f"{height}x{width}, upright")


def _bad(place: str, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="export the data set again in COCO's form")
