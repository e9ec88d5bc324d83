"""Test-time views of an image, mirrored or smaller, and their predictions mapped back onto it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from maskloop.label_pairs import mirror_pairs
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.settings import Settings
from maskloop.types import Prediction, RgbImage, Segment

__all__ = ["VIEWS", "View", "ViewPlan", "unmirror", "view_image", "view_model", "view_prediction"]

View: TypeAlias = Literal["smaller", "mirrored"]
VIEWS: tuple[View, ...] = ("smaller", "mirrored")  # the best gain for its cost first
ZOOM = 0.75  # of the smaller view: about half the cost of a pass


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """Which views the inputs of image selection are computed from."""

    count: int = 1  # of VIEWS
    pairs: tuple[tuple[str, str], ...] | None = None  # labels that swap in a mirror; None: by their names

    @classmethod
    def from_settings(cls, settings: Settings) -> ViewPlan:
        """Return the plan of the settings."""
        return cls(count=settings.selection_views, pairs=settings.mirror_pairs)

    @property
    def views(self) -> tuple[View, ...]:
        """The views, each one forward pass."""
        return VIEWS[: self.count]


def view_image(image: RgbImage, view: View) -> RgbImage:
    """Return the image as this view gives it to the model."""
    return np.ascontiguousarray(image[:, ::-1]) if view == "mirrored" else image


def view_model(checkpoint: Checkpoint, view: View) -> Checkpoint:
    """Return the checkpoint with the preprocessing of this view."""
    if view == "mirrored":
        return checkpoint
    smaller = replace(checkpoint.preprocessing, zoom=checkpoint.preprocessing.zoom * ZOOM)
    return replace(checkpoint, preprocessing=smaller)


def view_prediction(prediction: Prediction, view: View, labels: Sequence[str], plan: ViewPlan) -> Prediction:
    """Return the prediction of a view as a prediction of the image itself."""
    if view != "mirrored":
        return prediction
    pairs = mirror_pairs(labels) if plan.pairs is None else plan.pairs
    return unmirror(prediction, {**dict(pairs), **{other: one for one, other in pairs}})


def unmirror(prediction: Prediction, swapped: Mapping[str, str]) -> Prediction:
    """Return a prediction with left and right exchanged; twice is as before.

    Args:
        prediction: of an image.
        swapped: label -> what it is called in a mirror, of those that change.
    """
    width = prediction.size_hw[1]
    return replace(
        prediction,
        segments=tuple(_unmirrored(segment, width, swapped) for segment in prediction.segments),
    )


def _unmirrored(segment: Segment, width: int, swapped: Mapping[str, str]) -> Segment:
    top, _, _, right = segment.box_yxyx
    return replace(
        segment,
        mask_hw=np.ascontiguousarray(segment.mask_hw[:, ::-1]),
        offset_yx=(top, width - right),
        label=swapped.get(segment.label, segment.label),
    )
