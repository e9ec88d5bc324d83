"""Readable regions -> segments: which regions are parts or other forms of one object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskloop.types import BoolMask, Segment
from maskloop_studio.formats.controls import GEOMETRY_KINDS, ControlKind

__all__ = ["Piece", "is_own_id", "object_id_of", "pieces_to_segments"]

ID_PATTERN = re.compile(r"(m[0-9a-f]{14})(?:-(?:v?\d+|[berk]))?\Z")  # as `prediction_writer` makes them


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """One readable region: an object, or one part of it."""

    region_id: str | None
    object_id: str
    kind: ControlKind
    label: str
    score: float  # 0..1
    changed: bool  # drawn or edited by the annotator
    is_box: bool  # its object is somewhere inside
    crop_hw: BoolMask
    offset_yx: tuple[int, int]


def is_own_id(region_id: object) -> bool:
    """Return whether `prediction_writer` made this region id."""
    return ID_PATTERN.match(str(region_id)) is not None


def object_id_of(region: Mapping[str, Any], index: int) -> str:
    """Return the id of the predicted object that a region belongs to, else one of its own."""
    match = ID_PATTERN.match(str(region.get("id")))
    return match[1] if match else f"#{index}"


def pieces_to_segments(pieces: Sequence[Piece], items: Iterable[Mapping[str, Any]]) -> Iterator[Segment]:
    """Yield the segments that the pieces are, in the order of their first piece.

    Regions of one label become one segment where they are parts of one predicted object, where a relation
    joins them, or where one is the other's parent in a group. Where a predicted object is there in several
    forms, the one that the annotator edited counts, else the one that follows the mask best.

    Args:
        pieces: the readable regions, in the order of the `result`.
        items: the whole `result`, for its relations and groups.
    """
    joined = _join_objects(items, pieces)
    kinds: dict[str, ControlKind] = {}
    for piece in sorted(pieces, key=lambda piece: (not piece.changed, GEOMETRY_KINDS.index(piece.kind))):
        kinds.setdefault(piece.object_id, piece.kind)
    groups: dict[tuple[str, str], list[Piece]] = {}
    for piece in pieces:
        if kinds[piece.object_id] == piece.kind:
            groups.setdefault((joined[piece.object_id, piece.label], piece.label), []).append(piece)
    for (_, label), group in groups.items():
        crop_hw, offset_yx = _union(group)
        yield Segment(
            mask_hw=crop_hw,
            offset_yx=offset_yx,
            label=label,
            score=min(piece.score for piece in group),
            is_box=any(piece.is_box for piece in group),
        )


def _join_objects(
    items: Iterable[Mapping[str, Any]], pieces: Sequence[Piece]
) -> Mapping[tuple[str, str], str]:
    """Return (object id, label) -> the id of the object that relations and groups make of it."""
    object_of: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    for piece in pieces:
        labels.setdefault(piece.object_id, set()).add(piece.label)
        if piece.region_id is not None:
            object_of.setdefault(piece.region_id, piece.object_id)
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


def _union(group: Sequence[Piece]) -> tuple[BoolMask, tuple[int, int]]:
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
