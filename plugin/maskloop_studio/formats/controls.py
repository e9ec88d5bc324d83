"""The drawing tools of a label config: one `Control` per tool and set of labels, and what they draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from maskloop.types import SegmentationTask

__all__ = ["GEOMETRY_KINDS", "MASK_KINDS", "Control", "ControlKind", "LabelConfig"]

ControlKind: TypeAlias = Literal["brush", "polygon", "rectangle", "ellipse", "keypoint"]

# The closer a form follows a mask, the further in front.
GEOMETRY_KINDS: tuple[ControlKind, ...] = ("brush", "polygon", "ellipse", "rectangle", "keypoint")
MASK_KINDS: tuple[ControlKind, ...] = ("brush", "polygon")  # keep every pixel, up to a tolerance


@dataclass(frozen=True, kw_only=True)
class Control:
    """One drawing tool with labels: `<BrushLabels>` and the like, or `<Brush>` with its `<Labels>`."""

    name: str  # a region's `from_name`
    kind: ControlKind
    to_name: str  # the `<Image>` it draws on
    labels: tuple[str, ...]  # as regions carry them, in the config's order
    aliases: Mapping[str, str] = field(
        default_factory=dict
    )  # `predicted_values` (and a shown value) -> label
    labels_name: str | None = None  # of the `<Labels>` that names its regions; None where it does so itself
    score_threshold: float | None = None  # 0..1: less sure segments are not drawn
    is_prompt: bool = False  # `smart` or `smartOnly`: also, or only, a way to ask the model

    @property
    def region_type(self) -> str:
        """A region's `type`; without a `<Labels>` of its own also the key of its labels."""
        return self.kind if self.labels_name is not None else f"{self.kind}labels"

    @property
    def labels_key(self) -> str:
        """The key of the labels in a region's `value`."""
        return "labels" if self.labels_name is not None else self.region_type


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """The segmentation part of a label config."""

    image_name: str  # the `<Image>`'s name, a region's `to_name`
    image_field: str  # the key of a task's `data` that holds the image
    controls: tuple[Control, ...]  # in the config's order, at least one
    task: SegmentationTask | None = None  # what `maskloop_task` asks for

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Every label once, in the config's order."""
        return tuple(dict.fromkeys(label for control in self.controls for label in control.labels))

    def control(self, name: str) -> Control | None:
        """Return the first control of this name, if there is one."""
        return next((control for control in self.controls if control.name == name), None)

    def controls_of(self, name: str, region_type: str) -> tuple[Control, ...]:
        """Return the controls that draw regions of this `from_name` and `type`.

        More than one only where several `<Labels>` share a `<Brush>` or the like.
        """
        return tuple(
            control
            for control in self.controls
            if control.name == name and control.region_type == region_type
        )
