"""A model's segments of an image -> a prediction's `result`, in every form that a control can draw.

An object's id is made from the task, the model version and the object itself. Its brush region carries that
id, its bitmask `<id>-b`, its polygon parts `<id>-0`, `<id>-1` ..., its vector parts `<id>-v0`, `<id>-v1` ...,
its rectangle `<id>-r`, its ellipse `<id>-e`, its key point `<id>-k`: `objects.py` recognizes them by these
ids. Ids that Label Studio makes itself never look like that.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from maskloop.masks import drop_specks
from maskloop.polygons.coverage import segments_to_shared_rings
from maskloop.polygons.outlines import Ring
from maskloop.polygons.rings import ring_to_percent, segments_to_rings
from maskloop.types import Prediction, Segment
from maskloop_studio.formats.bitmask import encode_bitmask
from maskloop_studio.formats.brush import encode_brush_crop
from maskloop_studio.formats.controls import ControlKind, TaskImage
from maskloop_studio.formats.label_map import ControlPreference, LabelMap, LabelTarget
from maskloop_studio.formats.shapes import segment_to_ellipse, segment_to_key_point, segment_to_rectangle
from maskloop_studio.formats.vector import ring_to_vertices

__all__ = [
    "DEFAULT_DRAWING",
    "DrawingOptions",
    "Region",
    "object_id_of",
    "prediction_to_regions",
    "segment_to_regions",
]

RING_KINDS: tuple[ControlKind, ...] = ("polygon", "vector")
Region: TypeAlias = dict[str, Any]  # one item of a `result`, as Label Studio spells it


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    """How segments are drawn."""

    tolerance_px: float = 1.0  # how far a polygon's outline may move; 0 keeps every corner of every pixel
    max_vertices: int = 200  # of one polygon, where its IoU with the mask stays at 0.98
    min_part_share: float = 0.0  # 0..1 of a segment's area; smaller separate parts of it are not drawn
    prefer: ControlPreference = "first"  # for `map_labels`: which control wins
    shared_borders: bool = False  # neighbouring polygons without gaps: for semantic and panoptic segments

    def __post_init__(self) -> None:
        if not (
            0.0 <= self.tolerance_px <= 1e6 and self.max_vertices >= 4 and 0.0 <= self.min_part_share <= 1
        ):
            raise ValueError(
                "DrawingOptions: expected tolerance_px >= 0, max_vertices >= 4 and min_part_share 0..1, got "
                f"{self.tolerance_px}, {self.max_vertices}, {self.min_part_share}"
            )


DEFAULT_DRAWING = DrawingOptions()


def prediction_to_regions(
    prediction: Prediction,
    label_map: LabelMap,
    *,
    id_seed: str,
    drawing: DrawingOptions = DEFAULT_DRAWING,
    image: TaskImage | None = None,
    displayed_score: Callable[[float], float] | None = None,
) -> list[Region]:
    """Return the `result` of a Label Studio prediction.

    A brush region or a bitmask is the mask itself. A polygon or vector region is one ring, so a segment of
    several parts becomes several regions, one object by their ids, and a hole is cut into its part by a
    bridge of zero width (a keyhole) along which the ring walks in and out again; simplified, but with an IoU
    of at least 0.98. A rectangle is the tight upright box, an ellipse the one of the same area and axes, a
    key point the point deepest inside. A control with a `<Labels>` of its own gets two items with one id: the
    geometry, and the geometry with the label.

    Args:
        prediction: the model's segments of the image.
        label_map: where each class is drawn; segments of other classes are left out, and those less sure
            than their control's `model_score_threshold`.
        id_seed: the model version and the task, such as "pets-v3/42"; with the segment it decides the id.
        drawing: tolerance, budget and the like; ids do not depend on it.
        image: the image of the task; None for the first one that a control draws on. With a second image or
            page, name it in `id_seed` too, so that no two regions of a task share an id.
        displayed_score: from a segment's score to the region's; None for the same.

    Raises:
        CodecError: an image with more pixels than the brush format can count.
    """
    drawn: list[_Object] = []
    taken: set[str] = set()
    for segment in prediction.segments:
        found_targets = label_map.targets_of(
            segment.label, image_name=image.to_name if image is not None else None
        )
        targets = tuple(_sure_targets(found_targets, segment.score))
        if targets:
            object_id = object_id_of(id_seed, segment, taken)
            if drawing.min_part_share > 0:
                segment = drop_specks(segment, drawing.min_part_share)
            if displayed_score is not None:
                segment = dataclasses.replace(segment, score=displayed_score(segment.score))
            drawn.append(_Object(object_id=object_id, segment=segment, targets=targets))
    size_hw = prediction.size_hw
    rings = _draw_polygons(drawn, size_hw, drawing)
    regions: list[Region] = []
    for found in drawn:
        regions.extend(_object_to_items(found, size_hw, rings))
    if image is not None and image.item_index is not None:
        for region in regions:
            region["item_index"] = image.item_index
    return regions


def segment_to_regions(
    segment: Segment,
    target: LabelTarget,
    size_hw: tuple[int, int],
    *,
    object_id: str,
    drawing: DrawingOptions = DEFAULT_DRAWING,
) -> list[Region]:
    """Return the items of a `result` that show one segment with one control; its neighbours play no part.

    Args:
        segment: any, also one that no model predicted.
        target: the control and its label.
        size_hw: of the upright image.
        object_id: what the regions' ids begin with.
        drawing: tolerance and budget of polygons.

    Raises:
        CodecError: an image with more pixels than the brush format can count.
    """
    found = _Object(object_id=object_id, segment=segment, targets=(target,))
    rings = _draw_polygons([found], size_hw, dataclasses.replace(drawing, shared_borders=False))
    return list(_object_to_items(found, size_hw, rings))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Object:
    """One segment that is drawn."""

    object_id: str
    segment: Segment
    targets: tuple[LabelTarget, ...]  # of different kinds, at least one


def _sure_targets(targets: Sequence[LabelTarget], score: float) -> Iterator[LabelTarget]:
    kinds: set[str] = set()
    for target in targets:
        threshold = target.control.score_threshold
        # Of two controls of one kind the first draws it, since a region's id holds only the kind.
        if target.control.kind not in kinds and (threshold is None or score >= threshold):
            kinds.add(target.control.kind)
            yield target


def object_id_of(seed: str, segment: Segment, taken: set[str]) -> str:
    """Return what the ids of a segment's regions begin with, and add it to those that are taken."""
    digest = hashlib.blake2b(seed.encode(), digest_size=7)
    digest.update(f"|{segment.label}|{segment.offset_yx}|{segment.mask_hw.shape}|".encode())
    digest.update(np.packbits(segment.mask_hw).tobytes())
    number = int(digest.hexdigest(), 16)
    # Equal segments of one image still need ids of their own.
    while (object_id := f"m{number:014x}") in taken:
        number = (number + 1) % 2**56
    taken.add(object_id)
    return object_id


def _draw_polygons(
    drawn: Sequence[_Object], size_hw: tuple[int, int], drawing: DrawingOptions
) -> Mapping[str, list[Ring]]:
    """Return the rings of those objects that are drawn as polygons or vectors, by object id."""
    wanted = [found for found in drawn if any(t.control.kind in RING_KINDS for t in found.targets)]
    segments = [found.segment for found in wanted]
    if drawing.shared_borders:
        rings = segments_to_shared_rings(
            segments, size_hw, tolerance_px=drawing.tolerance_px, max_vertices=drawing.max_vertices
        )
    else:
        rings = segments_to_rings(
            segments, tolerance_px=drawing.tolerance_px, max_vertices=drawing.max_vertices
        )
    return {found.object_id: drawn_rings for found, drawn_rings in zip(wanted, rings, strict=True)}


def _object_to_items(
    found: _Object, size_hw: tuple[int, int], rings: Mapping[str, list[Ring]]
) -> Iterator[Region]:
    for target in found.targets:
        for region_id, value in _values(found, target.control.kind, size_hw, rings):
            yield from _to_items(region_id, value, found.segment.score, target, size_hw)


def _values(
    found: _Object, kind: ControlKind, size_hw: tuple[int, int], rings: Mapping[str, list[Ring]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id and geometry of each region that shows the object in one form."""
    match kind:
        case "brush":
            rle = encode_brush_crop(found.segment.mask_hw, found.segment.offset_yx, size_hw)
            yield found.object_id, {"format": "rle", "rle": rle}
        case "bitmask":
            url = encode_bitmask(found.segment.mask_hw, found.segment.offset_yx, size_hw)
            yield f"{found.object_id}-b", {"imageDataURL": url}
        case "vector":
            for part, ring in enumerate(rings[found.object_id]):
                part_id = f"{found.object_id}-v{part}"
                yield (
                    part_id,
                    {"vertices": ring_to_vertices(ring, size_hw, region_id=part_id), "closed": True},
                )
        case "polygon":
            for part, ring in enumerate(rings[found.object_id]):
                yield f"{found.object_id}-{part}", {"points": ring_to_percent(ring, size_hw), "closed": True}
        case "rectangle":
            yield f"{found.object_id}-r", segment_to_rectangle(found.segment, size_hw)
        case "ellipse":
            yield f"{found.object_id}-e", segment_to_ellipse(found.segment, size_hw)
        case "keypoint":
            yield f"{found.object_id}-k", segment_to_key_point(found.segment, size_hw)


def _to_items(
    region_id: str, value: Mapping[str, Any], score: float, target: LabelTarget, size_hw: tuple[int, int]
) -> Iterator[Region]:
    control = target.control
    frame: Region = {
        "id": region_id,
        "to_name": target.to_name,
        "original_width": size_hw[1],
        "original_height": size_hw[0],
        "image_rotation": 0,
        "score": round(score, 4),
    }
    labelled = {**value, control.labels_key: [target.label]}
    if control.labels_name is None:
        yield {**frame, "from_name": control.name, "type": control.region_type, "value": labelled}
    else:
        yield {**frame, "from_name": control.name, "type": control.region_type, "value": dict(value)}
        yield {**frame, "from_name": control.labels_name, "type": "labels", "value": labelled}
