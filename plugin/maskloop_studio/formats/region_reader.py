"""One drawn item of a `result` -> its mask, its label, or why it cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskloop.errors import CodecError
from maskloop.types import UNLABELLED
from maskloop_studio.formats.annotation_content import RegionRefusal
from maskloop_studio.formats.controls import Control, LabelConfig
from maskloop_studio.formats.edits import is_box
from maskloop_studio.formats.faint import UnclearMaskError
from maskloop_studio.formats.label_match import match_label
from maskloop_studio.formats.objects import Piece, object_id_of
from maskloop_studio.formats.region_masks import (
    DrawnSizes,
    demand_same_aspect,
    mask_to_crop,
    read_mask,
)
from maskloop_studio.formats.result_items import DrawnItem

__all__ = ["ReadRegion", "RegionReader"]

MAX_LABEL = 200  # characters of a label that the config does not have


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
    keep_unknown: bool  # a label that the config does not have stays; otherwise the area is UNLABELLED
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
            sizes = self._read_sizes(item, size_hw)
            image_hw = sizes.image_hw
            if item.kind == "keypoint":
                notes.append(f"{item.place}: a key point has no mask, so it was left out")
                return ReadRegion(size_hw=image_hw, notes=tuple(notes))
            crop_hw, offset_yx = read_mask(item, value, sizes, notes.append)
            label, unknown = self._read_label(item, value)
            refusal = None
        except _UnclearMeaningError as exc:
            label, unknown, refusal = UNLABELLED, None, _refuse(item, exc, area_known=True)
        except UnclearMaskError as exc:
            try:
                crop_hw, offset_yx = mask_to_crop(exc.area_hw, image_hw, item.place, notes.append)
            except CodecError as other:
                return ReadRegion(refusal=_refuse(item, other, area_known=False))
            label, unknown, refusal = UNLABELLED, None, _refuse(item, exc, area_known=True)
        except CodecError as exc:
            return ReadRegion(refusal=_refuse(item, exc, area_known=False))
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
                is_box=is_box(item.region),
                crop_hw=crop_hw,
                offset_yx=offset_yx,
            )
        return ReadRegion(
            piece=piece, size_hw=image_hw, refusal=refusal, notes=tuple(notes), unknown_label=unknown
        )

    def _read_sizes(self, item: DrawnItem, size_hw: tuple[int, int] | None) -> DrawnSizes:
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
        demand_same_aspect(drawn_hw, image_hw, item.place)
        return DrawnSizes(drawn_hw=drawn_hw, image_hw=image_hw, max_pixels=self.max_image_pixels)

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
                    raise _UnclearMeaningError(
                        item.place,
                        expected=f"at least one label out of {known[:200]}",
                        got=str(labels)[:100],
                        remedy="give the region a label of the label config",
                    )
                label = match_label(name, control.labels, aliases=control.aliases, renames=self.label_renames)
                if label is not None:
                    return label, None
                texts.append(name)
        if not texts:
            return UNLABELLED, None
        return texts[0] if self.keep_unknown and len(texts[0]) <= MAX_LABEL else UNLABELLED, texts[0]

    def _labels_of(self, item: DrawnItem, value: Mapping[str, Any]) -> list[tuple[Control, object]]:
        """Return each control that can have drawn the region, with the labels that it gave."""
        name, region_type = item.region.get("from_name"), item.region.get("type")
        controls = self._controls_of(item, name)
        if not controls or not item.known_type:
            known = ", ".join(f"{c.name} ({c.region_type})" for c in self.config.controls)
            raise _UnclearMeaningError(
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


class _UnclearMeaningError(CodecError):
    """A region whose area is known, but not what it is."""


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
