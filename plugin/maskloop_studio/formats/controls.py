"""What a label config defines: images, drawing tools with their labels, and the forms that they draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from maskloop.types import SegmentationTask

__all__ = [
    "GEOMETRY_KINDS",
    "MASK_KINDS",
    "Control",
    "ControlKind",
    "ImageTag",
    "LabelConfig",
    "TaskImage",
]

ControlKind: TypeAlias = Literal["brush", "bitmask", "polygon", "vector", "rectangle", "ellipse", "keypoint"]

# The closer a form follows a mask, the further in front.
GEOMETRY_KINDS: tuple[ControlKind, ...] = (
    "brush",
    "bitmask",
    "polygon",
    "vector",
    "ellipse",
    "rectangle",
    "keypoint",
)
# They keep every pixel, up to a tolerance.
MASK_KINDS: tuple[ControlKind, ...] = ("brush", "bitmask", "polygon", "vector")


@dataclass(frozen=True, kw_only=True)
class Control:
    """One drawing tool with labels: `<BrushLabels>` and the like, or `<Brush>` with its `<Labels>`."""

    name: str  # a region's `from_name`
    kind: ControlKind
    to_names: tuple[str, ...]  # the `<Image>`s that it draws on, at least one
    labels: tuple[
        str, ...
    ]  # as regions carry them, in the config's order; empty until dynamic ones are known
    aliases: Mapping[str, str] = field(
        default_factory=dict
    )  # `predicted_values` (and a shown value) -> label
    labels_name: str | None = None  # of the `<Labels>` that names its regions; None where it does so itself
    labels_expression: str | None = None  # such as "$options": where a task's data holds more labels
    score_threshold: float | None = None  # 0..1: less sure segments are not drawn
    is_prompt: bool = False  # `smart` or `smartOnly`: also, or only, a way to ask the model
    bare_type: str | None = None  # a region's `type` where it is not the kind's: "magicwand"

    @property
    def to_name(self) -> str:
        """The first `<Image>` that it draws on."""
        return self.to_names[0]

    @property
    def region_type(self) -> str:
        """A region's `type`; without a `<Labels>` of its own also the key of its labels."""
        return (self.bare_type or self.kind) if self.labels_name is not None else f"{self.kind}labels"

    @property
    def labels_key(self) -> str:
        """The key of the labels in a region's `value`."""
        return "labels" if self.labels_name is not None else self.region_type


@dataclass(frozen=True, kw_only=True)
class ImageTag:
    """One `<Image>` of a label config."""

    name: str  # a region's `to_name`
    expression: str  # `value` or `valueList`, such as "$image", "$payload.image" or "$pages"
    is_list: bool = False  # `valueList`: one page for each address, regions carry an `item_index`


@dataclass(frozen=True, kw_only=True)
class TaskImage:
    """One image of one task that can be drawn on."""

    to_name: str  # the `<Image>`'s name
    item_index: int | None  # the page, from 0, of a `valueList`; None for a single image
    address: str  # where the image lies, as the task's data gives it


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """The segmentation part of a label config."""

    images: tuple[ImageTag, ...]  # all of them, in the config's order
    controls: tuple[Control, ...]  # of all images, in the config's order, at least one
    task: SegmentationTask | None = None  # what `maskloop_task` asks for
    other_objects: frozenset[str] = frozenset()  # names of the texts, videos and so on
    stuff_labels: frozenset[str] = frozenset()  # labels with `maskloop_kind="stuff"`
    thing_labels: frozenset[str] = frozenset()  # labels with `maskloop_kind="thing"`

    @property
    def drawn_images(self) -> tuple[ImageTag, ...]:
        """The images that a control draws on, in the config's order."""
        drawn = {name for control in self.controls for name in control.to_names}
        return tuple(image for image in self.images if image.name in drawn)

    @property
    def image_name(self) -> str:
        """The name of the first image that a control draws on."""
        return self.drawn_images[0].name

    @property
    def image_field(self) -> str:
        """The first drawn image's expression without its `$`: a key of a task's `data` in simple configs."""
        return self.drawn_images[0].expression.removeprefix("$")

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Every label once, in the config's order."""
        return tuple(dict.fromkeys(label for control in self.controls for label in control.labels))

    @property
    def is_dynamic(self) -> bool:
        """Whether some labels are known only together with a task; see `config_for_task`."""
        return any(control.labels_expression is not None for control in self.controls)

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
