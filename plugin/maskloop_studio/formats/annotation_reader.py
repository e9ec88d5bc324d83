"""An annotation's `result` -> segments: every form that an annotator can leave behind, one object once.

Regions are one object where their ids say so (`regions_out.py`), where a relation joins them, or where one
is the other's parent in a group; labels keep them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from maskloop.errors import CodecError
from maskloop.masks import crop_mask
from maskloop.types import UNLABELLED, BoolMask, Segment
from maskloop_studio.formats.brush import decode_brush
from maskloop_studio.formats.controls import GEOMETRY_KINDS, Control, ControlKind, LabelConfig
from maskloop_studio.formats.polygons.rings import percent_to_ring, ring_to_crop
from maskloop_studio.formats.shapes import ellipse_to_ring, rectangle_to_ring

__all__ = ["GEOMETRY_TYPES", "AnnotationContent", "annotation_to_segments"]

MAX_REGIONS = 10_000
MAX_IMAGE_PIXELS = 100_000_000
MAX_ASPECT_CHANGE = 0.01  # of a region drawn on the same image at another size
GEOMETRY_TYPES = frozenset(f"{kind}{ending}" for kind in GEOMETRY_KINDS for ending in ("", "labels"))
ID_PATTERN = re.compile(r"(m[0-9a-f]{14})(?:-(?:\d+|[rek]))?\Z")


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotationContent:
    """What one annotation says about one image."""

    segments: tuple[Segment, ...]  # in the order of their first region
    size_hw: tuple[int, int] | None  # of the upright image; None where no region tells it
    problems: tuple[str, ...] = ()  # one sentence for each region that could not be read
    notes: tuple[str, ...] = ()  # one sentence for each region that was read, but not as it stands


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """One readable region: an object, or one part of it."""

    object_id: str
    kind: ControlKind
    label: str
    score: float
    changed: bool  # drawn or edited by the annotator
    crop_hw: BoolMask
    offset_yx: tuple[int, int]


def annotation_to_segments(
    result: Sequence[Any],
    config: LabelConfig,
    *,
    size_hw: tuple[int, int] | None = None,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    place: str = "annotation",
) -> AnnotationContent:
    """Return the segments of an annotation's `result`; a region that cannot be read does not lose the others.

    Brushes, polygons, rectangles and ellipses are read, also where a `<Labels>` names them; a key point has
    no mask and only gives a note; all else (choices, texts) is passed over. Of several labels of one region
    the first that the config has counts.

    Regions of one label become one segment where they are parts of one predicted object, where a relation
    joins them, or where one is the other's parent in a group. Where a predicted object is there in several
    forms, the one that the annotator edited counts, else the one that follows the mask best. Every ring adds
    to its object: a hole is what the ring itself leaves out (a keyhole, by the nonzero winding rule); a
    smaller polygon inside a larger one is no hole, since nothing in Label Studio says that it is.

    Args:
        result: the annotation's regions.
        config: the project's label config.
        size_hw: the upright image's size where it is known, otherwise the first region's size counts. A
            region drawn at another size is scaled where the aspect ratio is the same within 1 %, with a note,
            and a problem otherwise.
        max_image_pixels: regions of larger images are problems.
        place: what the problems name, such as "task 42, annotation 7".

    Raises:
        CodecError: not a list, or more than 10000 regions.

    Source:
        https://labelstud.io/guide/task_format
    """
    if not isinstance(result, list | tuple) or len(result) > MAX_REGIONS:
        got = f"{len(result)} regions" if isinstance(result, list | tuple) else type(result).__name__
        raise CodecError(
            place, expected=f"a list of at most {MAX_REGIONS} regions", got=got, remedy="split the annotation"
        )
    items = [item for item in result if isinstance(item, Mapping)]
    labels_of = _collect_labels(items)
    pieces: list[_Piece] = []
    object_of: dict[str, str] = {}  # a region's id -> its object's
    problems: list[str] = []
    notes: list[str] = []
    for index, region in enumerate(result):
        if not isinstance(region, Mapping) or not _is_geometry(region):
            continue
        where = f"{place}, region {str(region.get('id', index))[:64]}"
        try:
            drawn_hw = _read_size(region, max_image_pixels, where)
            image_hw = size_hw or drawn_hw
            _demand_same_aspect(drawn_hw, image_hw, where)
            control, label = _read_control(region, config, labels_of, where)
            if control.kind == "keypoint":
                size_hw = image_hw
                notes.append(f"{where}: a key point has no mask, so it was left out")
                continue
            crop_hw, offset_yx = _read_mask(region, control.kind, drawn_hw, image_hw, where)
        except CodecError as exc:
            problems.append(str(exc))
            continue
        size_hw = image_hw
        if drawn_hw != image_hw:
            notes.append(f"{where}: scaled from {drawn_hw[1]}x{drawn_hw[0]} to {image_hw[1]}x{image_hw[0]}")
        object_id = _object_id(region, index)
        if region.get("id") is not None:
            object_of.setdefault(str(region["id"]), object_id)
        if label == UNLABELLED:
            notes.append(f"{where}: has no label, so nothing is learnt from its area")
        # A brush region that was erased to nothing says just that.
        if crop_hw.size:
            pieces.append(
                _Piece(
                    object_id=object_id,
                    kind=control.kind,
                    label=label,
                    score=_read_score(region.get("score")),
                    changed=region.get("origin") != "prediction",
                    crop_hw=crop_hw,
                    offset_yx=offset_yx,
                )
            )
    joined = _join_objects(items, object_of, pieces)
    return AnnotationContent(
        segments=tuple(_pieces_to_segments(pieces, joined)),
        size_hw=size_hw,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _is_geometry(region: Mapping[str, Any]) -> bool:
    region_type = region.get("type")
    return isinstance(region_type, str) and region_type in GEOMETRY_TYPES


def _object_id(region: Mapping[str, Any], index: int) -> str:
    match = ID_PATTERN.match(str(region.get("id")))
    return match[1] if match else f"#{index}"


def _collect_labels(items: Iterable[Mapping[str, Any]]) -> Mapping[str, list[tuple[object, object]]]:
    """Return region id -> (`from_name`, labels) of each `labels` item with this id."""
    collected: dict[str, list[tuple[object, object]]] = {}
    for item in items:
        value = item.get("value")
        if item.get("type") == "labels" and isinstance(value, Mapping):
            collected.setdefault(str(item.get("id")), []).append((item.get("from_name"), value.get("labels")))
    return collected


def _read_size(region: Mapping[str, Any], max_image_pixels: int, where: str) -> tuple[int, int]:
    height, width = _to_length(region.get("original_height")), _to_length(region.get("original_width"))
    if not 0 < height * width <= max_image_pixels:
        raise CodecError(
            where,
            expected=f"an original width and height of at most {max_image_pixels} pixels",
            got=f"{str(region.get('original_width'))[:20]}x{str(region.get('original_height'))[:20]}",
            remedy="draw the region again in Label Studio",
        )
    if region.get("image_rotation") or region.get("item_index"):
        raise CodecError(
            where,
            expected="an upright single image",
            got=f"rotation {region.get('image_rotation')}, item {region.get('item_index')}"[:80],
            remedy="turn the image back in Label Studio before drawing",
        )
    return height, width


def _demand_same_aspect(drawn_hw: tuple[int, int], image_hw: tuple[int, int], where: str) -> None:
    drawn, image = drawn_hw[1] * image_hw[0], image_hw[1] * drawn_hw[0]
    if abs(drawn - image) > MAX_ASPECT_CHANGE * image:
        raise CodecError(
            where,
            expected=f"an image of {image_hw[1]}x{image_hw[0]}",
            got=f"{drawn_hw[1]}x{drawn_hw[0]}",
            remedy="the image was replaced or cropped; annotate it again",
        )


def _to_length(value: object) -> int:
    """Return a length in pixels, 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _read_control(
    region: Mapping[str, Any],
    config: LabelConfig,
    labels_of: Mapping[str, list[tuple[object, object]]],
    where: str,
) -> tuple[Control, str]:
    """Return the control that drew the region, and the region's label; UNLABELLED where it has none."""
    name, region_type, value = region.get("from_name"), region.get("type"), region.get("value")
    controls = config.controls_of(name, str(region_type)) if isinstance(name, str) else ()
    if not controls:
        raise CodecError(
            where,
            expected=f"a control of the label config ({', '.join(c.name for c in config.controls)})"[:300],
            got=f"{str(name)[:64]} ({region_type})",
            remedy="the label config has changed; put the control back or delete the region",
        )
    if not isinstance(value, Mapping):
        raise CodecError(where, expected="a value", got=type(value).__name__, remedy="draw the region again")
    said: list[object] = []
    for control in controls:
        if control.labels_name is None:
            found = [value.get(control.labels_key)]
        else:
            named = labels_of.get(str(region.get("id")), [])
            found = [labels for from_name, labels in named if from_name == control.labels_name]
        for labels in found:
            said.append(labels)
            for label in labels if isinstance(labels, list | tuple) else ():
                if isinstance(label, str) and label in control.labels:
                    return control, label
    if not any(isinstance(labels, list | tuple) and labels for labels in said):
        return controls[0], UNLABELLED
    known = ", ".join(dict.fromkeys(label for control in controls for label in control.labels))
    raise CodecError(
        where,
        expected=f"at least one label out of {known[:200]}",
        got=str(said[0])[:100],
        remedy="give the region a label of the label config, or put its label back",
    )


def _read_mask(
    region: Mapping[str, Any],
    kind: ControlKind,
    drawn_hw: tuple[int, int],
    image_hw: tuple[int, int],
    where: str,
) -> tuple[BoolMask, tuple[int, int]]:
    """Return the region's crop and its (top, left) in the image; (0, 0) pixels where it covers none."""
    value = region["value"]
    if kind == "brush":
        mask_hw = decode_brush(value.get("rle", ()), drawn_hw, place=where)
        return crop_mask(mask_hw if drawn_hw == image_hw else _scale(mask_hw, image_hw))
    if kind == "polygon":
        ring = percent_to_ring(value.get("points"), image_hw, place=where)
    elif kind == "rectangle":
        ring = rectangle_to_ring(value, image_hw, place=where)
    else:
        ring = ellipse_to_ring(value, image_hw, place=where)
    ring_hw, (top, left) = ring_to_crop(ring, image_hw, place=where)
    crop_hw, (y, x) = crop_mask(ring_hw)
    return crop_hw, (top + y, left + x)


def _scale(mask_hw: BoolMask, size_hw: tuple[int, int]) -> BoolMask:
    """Return the mask at another size: the pixel whose middle is nearest decides."""
    scaled: BoolMask = cv2.resize(
        mask_hw.astype(np.uint8), (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST_EXACT
    ).astype(np.bool_)
    return scaled


def _read_score(score: object) -> float:
    if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1:
        return float(score)
    return 1.0


def _join_objects(
    items: Iterable[Mapping[str, Any]], object_of: Mapping[str, str], pieces: Sequence[_Piece]
) -> Mapping[tuple[str, str], str]:
    """Return (object id, label) -> the id of the object that relations and groups make of it."""
    labels: dict[str, set[str]] = {}
    for piece in pieces:
        labels.setdefault(piece.object_id, set()).add(piece.label)
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.get(node, node)) != node:
            parent[node] = parent.get(above, above)
            node = above
        return node

    for item in items:
        if item.get("type") == "relation":
            ends = item.get("from_id"), item.get("to_id")
        else:
            ends = item.get("id"), item.get("parentID")
        if any(end is None for end in ends):
            continue
        first, second = (object_of.get(str(end)) for end in ends)
        if first is None or second is None:
            continue
        for label in labels.get(first, set()) & labels.get(second, set()):
            parent[find((first, label))] = find((second, label))
    return {
        (piece.object_id, piece.label): "|".join(find((piece.object_id, piece.label))) for piece in pieces
    }


def _pieces_to_segments(pieces: Sequence[_Piece], joined: Mapping[tuple[str, str], str]) -> Iterator[Segment]:
    kinds: dict[str, ControlKind] = {}
    for piece in sorted(pieces, key=lambda piece: (not piece.changed, GEOMETRY_KINDS.index(piece.kind))):
        kinds.setdefault(piece.object_id, piece.kind)
    groups: dict[tuple[str, str], list[_Piece]] = {}
    for piece in pieces:
        if kinds[piece.object_id] == piece.kind:
            groups.setdefault((joined[piece.object_id, piece.label], piece.label), []).append(piece)
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
