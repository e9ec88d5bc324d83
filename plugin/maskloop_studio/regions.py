"""Segments as Label Studio's regions and back, and what the annotator did to the predicted ones.

An object's id is made from the task, the model version and the object itself. Its brush region carries that
id; its polygon parts carry `<id>-0`, `<id>-1` ..., by which they come back as one segment. Ids that Label
Studio gives by itself never look like that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from maskloop.errors import CodecError
from maskloop.masks import crop_mask, paste_segment
from maskloop.types import BoolMask, EditCounts, Prediction, Segment
from maskloop_studio.brush import decode_brush, encode_brush
from maskloop_studio.label_config import Control, LabelConfig, LabelMap, LabelTarget
from maskloop_studio.polygon import percent_to_ring, ring_to_crop, ring_to_percent, segment_to_rings

__all__ = ["AnnotationContent", "Region", "annotation_to_segments", "count_edits", "prediction_to_regions"]

Region: TypeAlias = dict[str, Any]  # one item of a `result`, as Label Studio spells it

MAX_REGIONS = 10_000
MAX_IMAGE_PIXELS = 100_000_000
REGION_TYPES = ("brushlabels", "polygonlabels")
ID_PATTERN = re.compile(r"(m[0-9a-f]{14})(?:-(\d+))?\Z")


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotationContent:
    """What one annotation says about one image."""

    segments: tuple[Segment, ...]  # in the order of their first region
    size_hw: tuple[int, int] | None  # of the upright image; None where no region tells it
    problems: tuple[str, ...] = ()  # one sentence for each region that could not be read


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """One readable region: an object, or one part of it."""

    object_id: str
    kind: str
    label: str
    score: float
    changed: bool  # drawn or edited by the annotator
    crop_hw: BoolMask
    offset_yx: tuple[int, int]


def prediction_to_regions(prediction: Prediction, label_map: LabelMap, *, id_seed: str) -> list[Region]:
    """Return the `result` of a Label Studio prediction.

    Args:
        prediction: what the model says of the image.
        label_map: where each class is drawn; segments of other classes are left out.
        id_seed: the model version and the task, such as "pets-v3/42"; with the segment it decides the id.

    Raises:
        CodecError: an image with more pixels than the brush format can count.
    """
    regions: list[Region] = []
    taken: set[str] = set()
    for segment in prediction.segments:
        targets = label_map.targets_of(segment.label)
        if not targets:
            continue
        object_id = _object_id(id_seed, segment, taken)
        done: set[str] = set()
        for target in targets:
            # Of two controls of one kind the first draws it: a region's id says only the kind.
            if target.control.kind not in done:
                done.add(target.control.kind)
                regions.extend(_segment_to_regions(segment, target, prediction.size_hw, object_id))
    return regions


def annotation_to_segments(
    result: Sequence[Any],
    config: LabelConfig,
    *,
    size_hw: tuple[int, int] | None = None,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    place: str = "annotation",
) -> AnnotationContent:
    """Return the segments of an annotation's `result`; a region that cannot be read does not lose the others.

    Brush and polygon regions are read, all else (relations, choices, rectangles) is passed over. Parts of one
    predicted object with the same label become one segment. Where an object is there both as brush and as
    polygon, the one that the annotator edited counts, else the brush.

    Args:
        result: the annotation's regions.
        config: the project's label config.
        size_hw: the upright image's size where it is known; regions of another size are problems then.
            Otherwise the first region's size counts.
        max_image_pixels: regions of larger images are problems.
        place: what the problems name, such as "task 42, annotation 7".

    Raises:
        CodecError: not a list, or more than 10000 regions.
    """
    if not isinstance(result, list | tuple) or len(result) > MAX_REGIONS:
        got = f"{len(result)} regions" if isinstance(result, list | tuple) else type(result).__name__
        raise CodecError(
            place, expected=f"a list of at most {MAX_REGIONS} regions", got=got, remedy="split the annotation"
        )
    pieces: list[_Piece] = []
    problems: list[str] = []
    for index, region in enumerate(result):
        if not isinstance(region, Mapping) or region.get("type") not in REGION_TYPES:
            continue
        where = f"{place}, region {str(region.get('id', index))[:64]}"
        try:
            found_hw = _read_size(region, size_hw, max_image_pixels, where)
            piece = _read_region(region, index, config, found_hw, where)
        except CodecError as exc:
            problems.append(str(exc))
            continue
        size_hw = found_hw
        # A brush region that was erased to nothing says just that.
        if piece.crop_hw.size:
            pieces.append(piece)
    segments = tuple(_pieces_to_segments(pieces))
    return AnnotationContent(segments=segments, size_hw=size_hw, problems=tuple(problems))


def count_edits(result: Sequence[Any], predicted_ids: Collection[str]) -> EditCounts:
    """Return what became of the predicted regions; every brush and polygon region counts by itself.

    Args:
        result: the annotation's regions; `origin` says what the annotator did to each.
        predicted_ids: the ids of the regions of the prediction it started from.
    """
    kept = changed = added = 0
    seen: set[str] = set()
    for region in result:
        if not isinstance(region, Mapping) or region.get("type") not in REGION_TYPES:
            continue
        seen.add(str(region.get("id")))
        match region.get("origin"):
            case "prediction":
                kept += 1
            case "prediction-changed":
                changed += 1
            case _:
                added += 1
    return EditCounts(kept=kept, changed=changed, added=added, removed=len(set(predicted_ids) - seen))


def _object_id(seed: str, segment: Segment, taken: set[str]) -> str:
    digest = hashlib.blake2b(seed.encode(), digest_size=7)
    digest.update(f"|{segment.label}|{segment.offset_yx}|{segment.mask_hw.shape}|".encode())
    digest.update(np.packbits(segment.mask_hw).tobytes())
    number = int(digest.hexdigest(), 16)
    # Equal segments of one image still need ids of their own.
    while (object_id := f"m{number:014x}") in taken:
        number = (number + 1) % 2**56
    taken.add(object_id)
    return object_id


def _segment_to_regions(
    segment: Segment, target: LabelTarget, size_hw: tuple[int, int], object_id: str
) -> Iterator[Region]:
    values: list[tuple[str, dict[str, Any]]]
    if target.control.kind == "brush":
        values = [(object_id, {"format": "rle", "rle": encode_brush(paste_segment(segment, size_hw))})]
    else:
        values = [
            (f"{object_id}-{part}", {"points": ring_to_percent(ring, size_hw), "closed": True})
            for part, ring in enumerate(segment_to_rings(segment))
        ]
    for region_id, value in values:
        yield {
            "id": region_id,
            "from_name": target.control.name,
            "to_name": target.control.to_name,
            "type": target.control.region_type,
            "original_width": size_hw[1],
            "original_height": size_hw[0],
            "image_rotation": 0,
            "value": {**value, target.control.region_type: [target.label]},
            "score": round(segment.score, 4),
        }


def _read_size(
    region: Mapping[str, Any], expected_hw: tuple[int, int] | None, max_image_pixels: int, where: str
) -> tuple[int, int]:
    height, width = _to_length(region.get("original_height")), _to_length(region.get("original_width"))
    if not 0 < height * width <= max_image_pixels:
        raise CodecError(
            where,
            expected=f"an original width and height of at most {max_image_pixels} pixels",
            got=f"{str(region.get('original_width'))[:20]}x{str(region.get('original_height'))[:20]}",
            remedy="draw the region again in Label Studio",
        )
    if expected_hw is not None and (height, width) != expected_hw:
        raise CodecError(
            where,
            expected=f"an image of {expected_hw[1]}x{expected_hw[0]}",
            got=f"{width}x{height}",
            remedy="the image was replaced or resized; annotate it again",
        )
    if region.get("image_rotation") or region.get("item_index"):
        raise CodecError(
            where,
            expected="an upright single image",
            got=f"rotation {region.get('image_rotation')}, item {region.get('item_index')}",
            remedy="turn the image back in Label Studio before drawing",
        )
    return height, width


def _to_length(value: object) -> int:
    """Return a length in pixels, 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _read_region(
    region: Mapping[str, Any], index: int, config: LabelConfig, size_hw: tuple[int, int], where: str
) -> _Piece:
    control = _read_control(region, config, where)
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise CodecError(where, expected="a value", got=type(value).__name__, remedy="draw the region again")
    label = _read_label(value.get(control.region_type), control, where)
    if control.kind == "brush":
        crop_hw, offset_yx = crop_mask(decode_brush(value.get("rle", ()), size_hw, place=where))
    else:
        ring = percent_to_ring(value.get("points"), size_hw, place=where)
        ring_hw, (top, left) = ring_to_crop(ring, size_hw, place=where)
        crop_hw, (y, x) = crop_mask(ring_hw)
        offset_yx = (top + y, left + x)
    match = ID_PATTERN.match(str(region.get("id")))
    return _Piece(
        object_id=match[1] if match else f"#{index}",
        kind=control.kind,
        label=label,
        score=_read_score(region.get("score")),
        changed=region.get("origin") != "prediction",
        crop_hw=crop_hw,
        offset_yx=offset_yx,
    )


def _read_control(region: Mapping[str, Any], config: LabelConfig, where: str) -> Control:
    name = region.get("from_name")
    control = config.control(name) if isinstance(name, str) else None
    if control is None or control.region_type != region.get("type"):
        raise CodecError(
            where,
            expected=f"a control of the label config ({', '.join(c.name for c in config.controls)})",
            got=f"{str(name)[:64]} ({region.get('type')})",
            remedy="the label config has changed; put the control back or delete the region",
        )
    return control


def _read_label(labels: object, control: Control, where: str) -> str:
    label = labels[0] if isinstance(labels, list | tuple) and len(labels) == 1 else None
    if not isinstance(label, str) or label not in control.labels:
        raise CodecError(
            where,
            expected=f"one label out of {', '.join(control.labels)[:200]}",
            got=str(labels)[:100],
            remedy="give the region one label of the label config",
        )
    return label


def _read_score(score: object) -> float:
    if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1:
        return float(score)
    return 1.0


def _pieces_to_segments(pieces: Sequence[_Piece]) -> Iterator[Segment]:
    kinds: dict[str, str] = {}
    for piece in sorted(pieces, key=lambda piece: (not piece.changed, piece.kind != "brush")):
        kinds.setdefault(piece.object_id, piece.kind)
    groups: dict[tuple[str, str], list[_Piece]] = {}
    for piece in pieces:
        if kinds[piece.object_id] == piece.kind:
            groups.setdefault((piece.object_id, piece.label), []).append(piece)
    for (_, label), group in groups.items():
        crop_hw, offset_yx = _union(group)
        yield Segment(
            mask_hw=crop_hw, offset_yx=offset_yx, label=label, score=min(piece.score for piece in group)
        )


def _union(group: Sequence[_Piece]) -> tuple[BoolMask, tuple[int, int]]:
    if len(group) == 1:
        return group[0].crop_hw, group[0].offset_yx
    top, left = (min(piece.offset_yx[axis] for piece in group) for axis in (0, 1))
    bottom, right = (
        max(piece.offset_yx[axis] + piece.crop_hw.shape[axis] for piece in group) for axis in (0, 1)
    )
    union_hw = np.zeros((bottom - top, right - left), dtype=np.bool_)
    for piece in group:
        y, x = piece.offset_yx[0] - top, piece.offset_yx[1] - left
        union_hw[y : y + piece.crop_hw.shape[0], x : x + piece.crop_hw.shape[1]] |= piece.crop_hw
    return union_hw, (top, left)
