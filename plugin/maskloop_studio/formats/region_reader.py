"""One drawn item of a `result` -> its mask, its label, or why it cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from maskloop.errors import CodecError
from maskloop.masks import crop_mask
from maskloop.types import UNLABELLED, BoolMask
from maskloop_studio.formats.annotation_content import RegionRefusal
from maskloop_studio.formats.brush import decode_brush
from maskloop_studio.formats.controls import Control, LabelConfig
from maskloop_studio.formats.label_match import match_label
from maskloop_studio.formats.objects import Piece, object_id_of
from maskloop_studio.formats.polygons.outlines import Ring
from maskloop_studio.formats.polygons.rings import percent_to_ring, ring_to_crop
from maskloop_studio.formats.result_items import DrawnItem
from maskloop_studio.formats.shapes import ellipse_to_ring, rectangle_to_ring

__all__ = ["ReadRegion", "RegionReader"]

MAX_ASPECT_CHANGE = 0.01  # of a region drawn on the same image at another size
Crop: TypeAlias = tuple[BoolMask, tuple[int, int]]  # a mask and where its (top, left) lies in the image


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadRegion:
    """What became of one drawn item."""

    piece: Piece | None = None  # None where it covers no pixel, or could not be read
    size_hw: tuple[int, int] | None = None  # of the upright image; None where it could not be read
    refusal: RegionRefusal | None = None
    notes: tuple[str, ...] = ()
    unknown_label: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionReader:
    """How the regions of one annotation are read."""

    config: LabelConfig
    labels_of: Mapping[str, Sequence[tuple[object, object]]]  # region id -> (`from_name`, labels) beside it
    label_renames: Mapping[str, str]  # old label -> new label
    max_image_pixels: int

    def read(self, item: DrawnItem, size_hw: tuple[int, int] | None) -> ReadRegion:
        """Return what became of an item; no error leaves this function for a region.

        Args:
            item: drawn on the image.
            size_hw: the upright image's height and width; None where only the region itself may give it.
        """
        notes: list[str] = []
        try:
            value = _read_value(item)
            drawn_hw, image_hw = self._read_sizes(item, size_hw)
            if drawn_hw != image_hw:
                notes.append(
                    f"{item.place}: scaled from {drawn_hw[1]}x{drawn_hw[0]} to {image_hw[1]}x{image_hw[0]}"
                )
            if item.kind == "keypoint":
                notes.append(f"{item.place}: a key point has no mask, so it was left out")
                return ReadRegion(size_hw=image_hw, notes=tuple(notes))
            crop_hw, offset_yx = _read_mask(item, value, drawn_hw, image_hw, notes.append)
        except CodecError as exc:
            return ReadRegion(refusal=_refuse(item, exc, area_known=False))
        refusal: RegionRefusal | None = None
        unknown: str | None = None
        label = UNLABELLED
        try:
            label, unknown = self._read_label(item, value)
        except CodecError as exc:
            refusal = _refuse(item, exc, area_known=True)
        if unknown is not None:
            notes.append(
                f"{item.place}: the label config has no label {unknown[:64]!r}; its area is not learnt from"
            )
        elif label == UNLABELLED and refusal is None:
            notes.append(f"{item.place}: has no label, so nothing is learnt from its area")
        piece = None
        # A brush region that was erased to nothing covers no pixel.
        if crop_hw.size:
            region_id = item.region.get("id")
            piece = Piece(
                region_id=None if region_id is None else str(region_id),
                object_id=object_id_of(item.region, item.index),
                kind=item.kind,
                label=label,
                score=_read_score(item.region.get("score")),
                changed=item.region.get("origin") != "prediction",
                crop_hw=crop_hw,
                offset_yx=offset_yx,
            )
        return ReadRegion(
            piece=piece, size_hw=image_hw, refusal=refusal, notes=tuple(notes), unknown_label=unknown
        )

    def _read_sizes(
        self, item: DrawnItem, size_hw: tuple[int, int] | None
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the size at which the region was drawn, and the image's."""
        region = item.region
        _demand_quarter_turn(region.get("image_rotation"), item.place)
        height, width = _to_length(region.get("original_height")), _to_length(region.get("original_width"))
        drawn_hw = (height, width) if 0 < height * width <= self.max_image_pixels else None
        if size_hw is None and drawn_hw is None:
            raise CodecError(
                item.place,
                expected=f"an original width and height of at most {self.max_image_pixels} pixels",
                got=f"{str(region.get('original_width'))[:20]}x{str(region.get('original_height'))[:20]}",
                remedy="draw the region again in Label Studio",
            )
        image_hw = size_hw or drawn_hw
        assert image_hw is not None
        drawn_hw = drawn_hw or image_hw
        _demand_same_aspect(drawn_hw, image_hw, item.place)
        return drawn_hw, image_hw

    def _read_label(self, item: DrawnItem, value: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return the region's label, and the one that is unknown; UNLABELLED where none is known."""
        given = self._labels_of(item, value)
        controls = [control for control, _ in given]
        texts: list[str] = []
        for control, labels in given:
            names = (
                [labels] if isinstance(labels, str) else labels if isinstance(labels, list | tuple) else ()
            )
            for name in names:
                if not isinstance(name, str) or not name:
                    known = ", ".join(dict.fromkeys(label for c in controls for label in c.labels))
                    raise CodecError(
                        item.place,
                        expected=f"at least one label out of {known[:200]}",
                        got=str(labels)[:100],
                        remedy="give the region a label of the label config",
                    )
                label = match_label(name, control.labels, aliases=control.aliases, renames=self.label_renames)
                if label is not None:
                    return label, None
                texts.append(name)
        return UNLABELLED, texts[0] if texts else None

    def _labels_of(self, item: DrawnItem, value: Mapping[str, Any]) -> list[tuple[Control, object]]:
        """Return each control that can have drawn the region, with the labels that it gave."""
        name, region_type = item.region.get("from_name"), item.region.get("type")
        controls = self._controls_of(item, name)
        if not controls or not item.known_type:
            known = ", ".join(f"{c.name} ({c.region_type})" for c in self.config.controls)
            raise CodecError(
                item.place,
                expected=f"a control of the label config: {known}"[:300],
                got=f"{str(name)[:64]} ({str(region_type)[:64]})",
                remedy="the label config has changed; put the control back or delete the region",
            )
        given: list[tuple[Control, object]] = []
        for control in controls:
            if control.labels_name is None:
                given.append((control, value.get(control.labels_key)))
            else:
                beside = self.labels_of.get(str(item.region.get("id")), ())
                given.extend(
                    (control, labels) for from_name, labels in beside if from_name == control.labels_name
                )
        return given or [(control, None) for control in controls]

    def _controls_of(self, item: DrawnItem, name: object) -> Sequence[Control]:
        if not isinstance(name, str):
            return ()
        if item.region.get("type") == "labels":  # without an item of its own for the geometry
            return [control for control in self.config.controls if control.labels_name == name]
        exact = self.config.controls_of(name, str(item.region.get("type")))
        return exact or [c for c in self.config.controls if c.name == name and c.kind == item.kind]


def _read_value(item: DrawnItem) -> Mapping[str, Any]:
    value = item.region.get("value")
    if not isinstance(value, Mapping):
        raise CodecError(
            item.place, expected="a value", got=type(value).__name__, remedy="draw the region again"
        )
    return value


def _demand_quarter_turn(rotation: object, place: str) -> None:
    """Refuse a rotation that no front end writes.

    A quarter turn only turns the view: Label Studio stores coordinates and masks of the upright image.
    """
    turn = _to_number(rotation)
    if rotation is not None and (turn is None or turn % 90 != 0):
        raise CodecError(
            place,
            expected="an image_rotation of 0, 90, 180 or 270",
            got=str(rotation)[:40],
            remedy="turn the image back in Label Studio and save again",
        )


def _demand_same_aspect(drawn_hw: tuple[int, int], image_hw: tuple[int, int], where: str) -> None:
    drawn, image = drawn_hw[1] * image_hw[0], image_hw[1] * drawn_hw[0]
    if abs(drawn - image) > MAX_ASPECT_CHANGE * image:
        raise CodecError(
            where,
            expected=f"an image of {image_hw[1]}x{image_hw[0]}",
            got=f"{drawn_hw[1]}x{drawn_hw[0]}",
            remedy="the image was replaced or cropped; annotate it again",
        )


def _to_number(value: object) -> float | None:
    """Return a finite number, also of a text that holds one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 32:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _to_length(value: object) -> int:
    """Return a length in pixels, also of 200.0 and "200"; 0 for what is none."""
    number = _to_number(value)
    return int(number) if number is not None and number > 0 and number == int(number) else 0


def _read_mask(
    item: DrawnItem,
    value: Mapping[str, Any],
    drawn_hw: tuple[int, int],
    image_hw: tuple[int, int],
    note: Callable[[str], None],
) -> Crop:
    """Return the region's crop and its (top, left) in the image; (0, 0) pixels where it covers none."""
    place = item.place
    if item.kind == "brush":
        mask_hw = decode_brush(value.get("rle", ()), drawn_hw, place=place)
        return crop_mask(mask_hw if drawn_hw == image_hw else _scale(mask_hw, image_hw))
    if item.kind == "polygon":
        ring = percent_to_ring(value.get("points"), image_hw, place=place)
    elif item.kind == "rectangle":
        ring = rectangle_to_ring(value, image_hw, place=place)
    elif item.kind == "ellipse":
        ring = ellipse_to_ring(value, image_hw, place=place)
    else:
        raise CodecError(
            place, expected="a form that can be read", got=item.kind, remedy="draw it with a brush"
        )
    return _fill(ring, image_hw, place)


def _fill(ring: Ring, image_hw: tuple[int, int], place: str) -> Crop:
    ring_hw, (top, left) = ring_to_crop(ring, image_hw, place=place)
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


def _refuse(item: DrawnItem, exc: CodecError, *, area_known: bool) -> RegionRefusal:
    return RegionRefusal(
        place=item.place,
        expected=exc.expected,
        got=exc.got,
        remedy=exc.remedy,
        region_type=str(item.region.get("type"))[:64],
        region_id=str(item.region.get("id", item.index))[:64],
        area_known=area_known,
    )
