"""An annotation's `result` -> the segments of one image, and what of it could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from maskloop.errors import CodecError
from maskloop.types import Segment
from maskloop_studio.formats.annotation_content import AnnotationContent, RegionRefusal
from maskloop_studio.formats.controls import LabelConfig, TaskImage
from maskloop_studio.formats.objects import Piece, pieces_to_segments
from maskloop_studio.formats.region_masks import RASTER_KINDS
from maskloop_studio.formats.region_reader import RegionReader
from maskloop_studio.formats.result_items import ResultItems, sort_items

__all__ = ["annotation_to_segments"]

MAX_REGIONS = 10_000
MAX_IMAGE_PIXELS = 100_000_000
MAX_CROP_PIXELS = 400_000_000  # of all regions of one annotation together; each takes a byte
MAX_DECODED_PIXELS = 100_000_000_000  # of the brushes and bitmasks of one annotation together
NO_RENAMES: Mapping[str, str] = MappingProxyType({})


def annotation_to_segments(
    result: Sequence[Any],
    config: LabelConfig,
    *,
    size_hw: tuple[int, int] | None = None,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    place: str = "annotation",
    image: TaskImage | None = None,
    label_renames: Mapping[str, str] = NO_RENAMES,
    keep_unknown: bool = False,
) -> AnnotationContent:
    """Return the segments of an annotation's `result` on one image, and what of it could not be read.

    Brushes, bitmasks, polygons, closed vectors, rectangles and ellipses are read, also where a `<Labels>`
    names them; a key point has no mask and gives a note. Regions of other images and answers of other
    controls (choices, texts) are left out. Of several labels of one region the first that the config has
    counts; a label is found exactly, in another case, by its `predicted_values`, or by `label_renames`.

    A region whose area is known but not what it is (an unknown label, control or type) becomes an UNLABELLED
    segment. Where not even its area is known, the annotation is set aside.

    Every ring adds to its object: a hole is what the ring itself leaves out (a keyhole, by the nonzero
    winding rule); a smaller polygon inside a larger one is no hole, since Label Studio has no
    mark for one. Which regions are one object: see `pieces_to_segments`.

    Args:
        result: the annotation's regions.
        config: the project's label config, for configs with dynamic labels that of the task.
        size_hw: the upright image's size where it is known, otherwise the first region's size counts. A
            region drawn at another size is scaled where the aspect ratio is the same within 1 %, with a note,
            and refused otherwise.
        max_image_pixels: regions of larger images are refused.
        place: what refusals name, such as "task 42, annotation 7".
        image: the image that is wanted; None for the first one that a control draws on.
        label_renames: old label -> new label.
        keep_unknown: a label that the config does not have stays on its segment, for a caller that matches
            labels later; False makes the segment UNLABELLED.

    Raises:
        CodecError: not a list, more than 10000 regions, or masks of too many pixels in all.

    Source:
        https://labelstud.io/guide/task_format
    """
    if not isinstance(result, list | tuple) or len(result) > MAX_REGIONS:
        got = f"{len(result)} regions" if isinstance(result, list | tuple) else type(result).__name__
        raise CodecError(
            place, expected=f"a list of at most {MAX_REGIONS} regions", got=got, remedy="split the annotation"
        )
    items = sort_items(result, config, image=image, place=place)
    reader = RegionReader(
        config=config,
        labels_of=items.labels_of,
        label_renames=label_renames,
        keep_unknown=keep_unknown,
        max_image_pixels=max_image_pixels,
    )
    pieces: list[Piece] = []
    refusals = dict(items.refusals)
    notes: list[str] = []
    unknown_labels: Counter[str] = Counter()
    decoded = cropped = 0
    for item in items.drawn:
        region = reader.read(item, size_hw)
        size_hw = size_hw or region.size_hw
        notes.extend(region.notes)
        if region.refusal is not None:
            refusals[item.index] = region.refusal
        if region.unknown_label is not None:
            unknown_labels[region.unknown_label] += 1
        if region.piece is not None:
            pieces.append(region.piece)
            cropped += region.piece.crop_hw.size
        if item.kind in RASTER_KINDS and size_hw is not None:
            decoded += size_hw[0] * size_hw[1]
        _demand_bounded(decoded, cropped, place)
    segments: list[Segment] = []
    joined = 0
    for segment in pieces_to_segments(pieces, items.mappings):
        segments.append(segment)
        joined += segment.mask_hw.size
        _demand_bounded(0, joined, place)
    ordered = tuple(refusals[index] for index in sorted(refusals))
    regions_here = len(items.drawn) + len(items.refusals)
    return AnnotationContent(
        segments=tuple(segments),
        size_hw=size_hw,
        refusals=ordered,
        notes=tuple(notes),
        set_aside=_set_aside(items, ordered, pieces, notes),
        unknown_labels=MappingProxyType(dict(unknown_labels)),
        other_answers=bool(result) and regions_here == 0,
        regions_here=regions_here,
    )


def _set_aside(
    items: ResultItems, refusals: Sequence[RegionRefusal], pieces: Sequence[Piece], notes: Sequence[str]
) -> str | None:
    """Return why nothing may be learnt from the annotation, nor judged by it; None where it may."""
    for refusal in refusals:
        if not refusal.area_known:
            return str(refusal)
    # A brush or bitmask without a pixel was erased on purpose, a shape without one was not.
    if not pieces and any(item.kind not in RASTER_KINDS for item in items.drawn):
        return f"{notes[0]}; no other region covers a pixel either"
    return None


def _demand_bounded(decoded: int, cropped: int, place: str) -> None:
    if decoded > MAX_DECODED_PIXELS or cropped > MAX_CROP_PIXELS:
        raise CodecError(
            place,
            expected=f"masks of at most {MAX_CROP_PIXELS} pixels, read from at most {MAX_DECODED_PIXELS}",
            got="more",
            remedy="split the annotation",
        )
