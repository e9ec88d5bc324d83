"""Read a folder of images with COCO instance annotations: polygons, RLE of both kinds, and crowds.

Format: https://cocodataset.org/#format-data; a segment is what one annotation covers, pixel for pixel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskloop.errors import CodecError
from maskloop.masks import mask_to_segment
from maskloop.types import BoolMask, Segment

__all__ = ["CocoImage", "coco_field", "coco_mask", "coco_records", "load_coco", "read_coco"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoImage:
    """One image of the folder and what is annotated on it."""

    path: Path  # the image file; not opened
    size_hw: tuple[int, int]  # by the annotations
    segments: tuple[Segment, ...]  # one per annotation with at least one pixel
    crowds: tuple[Segment, ...]  # areas with so many objects that they were not separated


def read_coco(folder: Path) -> list[CocoImage]:
    """Return the images that `folder/instances.json` names, in its order, with their segments.

    Args:
        folder: holds `images/` and `instances.json`.

    Raises:
        CodecError: a file is missing, or a record is not as COCO has it.
    """
    source = folder / "instances.json"
    content = load_coco(source)
    names = {
        coco_field(record, "id", int, f"{source}, category {index}"): coco_field(
            record, "name", str, f"{source}, category {index}"
        )
        for index, record in enumerate(coco_records(content, "categories", source))
    }
    annotations: dict[int, list[Mapping[str, Any]]] = {}
    for index, record in enumerate(coco_records(content, "annotations", source)):
        image_id = coco_field(record, "image_id", int, f"{source}, annotation {index}")
        annotations.setdefault(image_id, []).append(record)
    return [
        _read_image(record, annotations, names, folder, f"{source}, image {index}")
        for index, record in enumerate(coco_records(content, "images", source))
    ]


def _read_image(
    record: Mapping[str, Any],
    annotations: Mapping[int, list[Mapping[str, Any]]],
    names: Mapping[int, str],
    folder: Path,
    place: str,
) -> CocoImage:
    size_hw = (coco_field(record, "height", int, place), coco_field(record, "width", int, place))
    if min(size_hw) < 1:
        raise _bad(place, expected="a size of at least one pixel", got=f"{size_hw[0]}x{size_hw[1]}")
    path = folder / "images" / coco_field(record, "file_name", str, place)
    if not path.is_file():
        raise _bad(place, expected=f"the image file {path}", got="none")
    segments: list[Segment] = []
    crowds: list[Segment] = []
    for annotation in annotations.get(coco_field(record, "id", int, place), []):
        where = f"{place}, annotation {annotation.get('id')}"
        label = names.get(coco_field(annotation, "category_id", int, where))
        if label is None:
            raise _bad(
                where, expected="a category of the file", got=f"category_id {annotation['category_id']}"
            )
        mask_hw = coco_mask(annotation.get("segmentation"), size_hw, where)
        segment = mask_to_segment(mask_hw, label=label)
        if segment is not None:
            (crowds if annotation.get("iscrowd") else segments).append(segment)
    return CocoImage(path=path, size_hw=size_hw, segments=tuple(segments), crowds=tuple(crowds))


def coco_mask(value: Any, size_hw: tuple[int, int], place: str) -> BoolMask:
    """Return bool (H, W) of a list of polygons, or of an RLE whose counts are a list or a string.

    Raises:
        CodecError: neither, or an RLE of another size.
    """
    from faster_coco_eval import mask as coco_api

    height, width = size_hw
    if isinstance(value, list):
        well_formed = all(
            isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0 and _finite(ring)
            for ring in value
        )
        if not well_formed:
            raise _bad(place, expected="polygons of at least three x, y pairs", got=repr(value)[:80])
        if not value:
            return np.zeros(size_hw, dtype=np.bool_)
        rle = coco_api.merge(coco_api.frPyObjects(value, height, width))
    elif isinstance(value, Mapping) and isinstance(value.get("counts"), str | list):
        if list(value.get("size", [])) != [height, width]:
            raise _bad(place, expected=f"an RLE of {height}x{width}", got=f"size {value.get('size')}")
        rle = _checked_rle(value["counts"], size_hw, place, coco_api.frPyObjects)
    else:
        raise _bad(place, expected="polygons or an RLE", got=repr(value)[:80])
    return np.asarray(coco_api.decode(rle), dtype=np.bool_)


def _checked_rle(
    counts: str | list[int], size_hw: tuple[int, int], place: str, compress: Callable[..., Any]
) -> dict[str, Any]:
    # The library reads and writes beyond its buffer where runs do not add up, so they are added up first.
    runs = counts if isinstance(counts, list) else _string_runs(counts, place)
    whole = all(isinstance(run, int) and run >= 0 for run in runs)
    if not whole or sum(runs) != size_hw[0] * size_hw[1]:
        raise _bad(
            place,
            expected=f"runs that add up to {size_hw[0] * size_hw[1]} pixels",
            got=f"{len(runs)} runs of {sum(runs) if whole else 'other than whole'} pixels",
        )
    rle: dict[str, Any] = compress({"size": list(size_hw), "counts": runs}, *size_hw)
    return rle


def _string_runs(text: str, place: str) -> list[int]:
    """Return the run lengths of a compressed RLE: base 32 digits, from the fourth run on as differences."""
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            digit = ord(text[position]) - 48 if position < len(text) else -1
            if not 0 <= digit < 64:
                raise _bad(place, expected="a compressed RLE", got=f"{text[:40]!r}")
            value |= (digit & 0x1F) << shift
            more = bool(digit & 0x20)
            shift += 5
            position += 1
            if not more and digit & 0x10:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _finite(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and np.isfinite(value) for value in values)


def load_coco(source: Path) -> Mapping[str, Any]:
    """Return the content of a COCO file.

    Raises:
        CodecError: it cannot be read, or is no object.
    """
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise _bad(str(source), expected="a COCO file in JSON", got=f"{type(exc).__name__}: {exc}") from exc
    if not isinstance(content, Mapping):
        raise _bad(str(source), expected="an object", got=type(content).__name__)
    return content


def coco_records(content: Mapping[str, Any], name: str, source: Path) -> list[Mapping[str, Any]]:
    """Return the list of objects under a name.

    Raises:
        CodecError: it is missing or something else.
    """
    records = content.get(name)
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise _bad(str(source), expected=f"a list of objects under {name!r}", got=repr(records)[:80])
    return records


def coco_field(record: Mapping[str, Any], name: str, kind: type, place: str) -> Any:
    """Return a field of this kind; a truth value is no number.

    Raises:
        CodecError: it is missing or of another kind.
    """
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _bad(place, expected=f"{name!r} as {kind.__name__}", got=repr(value)[:80])
    return value


def _bad(place: str, *, expected: str, got: str) -> CodecError:
    return CodecError(place, expected=expected, got=got, remedy="export the data set again as COCO instances")
