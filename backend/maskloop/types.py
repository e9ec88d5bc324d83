"""The values that travel through maskloop: frozen, checked at construction, free of any foreign format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import MaskloopError

__all__ = [
    "UNLABELLED",
    "AnnotationRule",
    "BoolMask",
    "Correction",
    "EditCounts",
    "EditName",
    "HoldoutMetrics",
    "ImageResult",
    "ModelVersion",
    "OutcomeName",
    "Prediction",
    "PredictionFailure",
    "PromotionMode",
    "RgbImage",
    "Segment",
    "SegmentOutcome",
    "SegmentationTask",
    "SelectionInputs",
    "ShowMode",
    "Signals",
    "version_number",
]

# The label of an area that was drawn without a class: neither a class nor background.
UNLABELLED = ""

BoolMask: TypeAlias = NDArray[np.bool_]  # (H, W)
RgbImage: TypeAlias = NDArray[np.uint8]  # (H, W, 3), upright
EditName: TypeAlias = Literal["relabel", "nudge", "redraw", "delete", "add"]  # that costs time
OutcomeName: TypeAlias = Literal[
    "kept", "nudged", "redrawn", "relabelled", "split", "merged", "removed", "added"
]


class SegmentationTask(StrEnum):
    """What a segment means: one object, one class's area, or a share of a full partition."""

    INSTANCE = "instance"
    SEMANTIC = "semantic"
    PANOPTIC = "panoptic"


class AnnotationRule(StrEnum):
    """Which of several annotators' annotations of one task counts."""

    NEWEST = "newest"  # saved last
    FIRST = "first"  # made first
    GROUND_TRUTH = "ground-truth"  # marked as ground truth, else the newest
    CONSENSUS = "consensus"  # agrees best with the others, among equals the newest


class ShowMode(StrEnum):
    """Which segments of a prediction annotators are shown."""

    AUTO = "auto"  # those worth correcting, as far as the holdout and the annotations say
    ALL = "all"  # every one that reaches its threshold
    NONE = "none"  # empty predictions, in maskloop's order


class PromotionMode(StrEnum):
    """What becomes of a model that was judged better than the champion."""

    AUTO = "auto"  # it becomes the champion
    TRIAL = "trial"  # the same, but the champion before it draws half of the tasks until edits decide
    MANUAL = "manual"  # it waits for `maskloop models promote`
    SHADOW = (
        "shadow"  # it waits; meanwhile it predicts as well as the champion, and its predictions are not shown
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """One object or area of one image."""

    mask_hw: BoolMask  # bool (h, w): the crop around the object, not the whole image
    offset_yx: tuple[int, int]  # where the crop's top-left pixel lies in the image
    label: str  # the class's name
    score: float = 1.0  # 0..1; 1 for what a person drew
    is_box: bool = False  # its object is somewhere inside: nobody drew the outline

    def __post_init__(self) -> None:
        if self.mask_hw.dtype != np.bool_ or self.mask_hw.ndim != 2:
            raise ValueError(
                f"Segment.mask_hw: expected bool (h, w), got {self.mask_hw.dtype} {self.mask_hw.shape}"
            )
        if min(self.mask_hw.shape) < 1 or min(self.offset_yx) < 0:
            raise ValueError(
                f"Segment: expected a crop inside the image, got {self.mask_hw.shape} at {self.offset_yx}"
            )
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"Segment.score: expected 0..1, got {self.score}")

    @property
    def area(self) -> int:
        """Foreground pixels."""
        return int(np.count_nonzero(self.mask_hw))

    @property
    def box_yxyx(self) -> tuple[int, int, int, int]:
        """The crop's (top, left, bottom, right) in pixels; bottom and right are exclusive."""
        top, left = self.offset_yx
        return top, left, top + self.mask_hw.shape[0], left + self.mask_hw.shape[1]


@dataclass(frozen=True, kw_only=True)
class SegmentOutcome:
    """What became of one predicted segment in an annotation, or one that the annotator added."""

    label: str
    score: float  # of the prediction, 0..1; 1 for what was added
    outcome: OutcomeName


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Why an image may have to be corrected; each 0..1, higher is more doubt."""

    entropy: float  # of the classes, over the queries that matter
    margin: float  # one minus the distance between the two likeliest classes, over the same
    border: float  # how undecided the masks are along their borders
    missing: float  # risk of objects that were not shown: queries just under the threshold
    disagreement: float | None = (
        None  # with the predictions of the mirrored and resized image; None: not computed
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectionInputs:
    """What image selection needs of an image beyond its prediction."""

    signals: Signals
    embedding_d: NDArray[np.float32]  # (D,) of unit length, from the model's own features
    look_k: NDArray[np.float32] | None = None  # (K,) sharpness, light, colour: segmentation/image_look.py


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The segments that a model finds in one image."""

    segments: tuple[Segment, ...]  # best first
    size_hw: tuple[int, int]  # of the upright image
    confidence: float  # 0..1: of the image as a whole; images with the lowest are annotated first
    selection_inputs: SelectionInputs | None = None  # None where they were not requested

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"Prediction.confidence: expected 0..1, got {self.confidence}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionFailure:
    """Why an image has no prediction; a value, so that one bad image does not end a request of many."""

    error: MaskloopError  # place, expected, got and remedy


ImageResult: TypeAlias = Prediction | PredictionFailure  # of one image


@dataclass(frozen=True, kw_only=True)
class EditCounts:
    """What became of the predicted regions in one annotation."""

    KINDS_OF_CHANGE: ClassVar[tuple[str, ...]] = ("nudged", "redrawn", "relabelled", "split", "merged")

    kept: int = 0  # left as predicted
    changed: int = 0  # predicted, then edited in any way; the kinds below are parts of this number
    added: int = 0  # drawn by the annotator
    removed: int = 0  # predicted, then deleted
    nudged: int = 0  # its outline was changed a little
    redrawn: int = 0  # its outline was changed a lot
    relabelled: int = 0  # only its label was changed
    split: int = 0  # replaced by several regions, which count as added
    merged: int = 0  # replaced, with others, by one region, which counts as added

    def __post_init__(self) -> None:
        if self.changed_unknown < 0:
            raise ValueError(f"EditCounts.changed: expected at least the sum of its kinds, got {self}")

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def changed_unknown(self) -> int:
        """Regions edited in a way that is not known: counted without a comparison of geometry."""
        return self.changed - self.nudged - self.redrawn - self.relabelled - self.split - self.merged

    @property
    def predicted(self) -> int:
        """Predicted regions."""
        return self.kept + self.changed + self.removed

    @property
    def submitted(self) -> int:
        """Regions of the submitted annotation."""
        return self.kept + self.changed - self.split - self.merged + self.added

    @property
    def is_untouched(self) -> bool:
        """Whether predicted regions were submitted without any edit."""
        return self.kept > 0 and self.changed == self.added == self.removed == 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Correction:
    """One version of an annotation as masks, on one image of its task."""

    project_id: int  # Label Studio's number
    task_id: int
    annotation_id: int
    updated_at: datetime  # when the annotator last saved it (aware, UTC); the newest wins
    image_key: str  # SHA-256 of the image file, the key of the image cache
    size_hw: tuple[int, int]  # of the upright image
    segments: tuple[Segment, ...]
    edits: EditCounts = field(default_factory=EditCounts)
    lead_time_s: float | None = None  # seconds the annotator spent
    model_version: str | None = None  # whose prediction was corrected
    version_id: int = 0  # the stored version of the annotation
    view: str = ""  # which of the task's images it is, where the task has several; "" in older rows
    image_index: int = 0  # the page of a view with several pages, from 0
    image_uri: str = ""  # where the image can be had again
    ground_truth: bool = False  # marked as ground truth in the annotation tool
    annotator: int | None = None  # user number in Label Studio; None where an older maskloop stored it
    label_config: str = ""  # digest of the label config that it was made under
    deleted: tuple[Segment, ...] = ()  # predicted, shown, and deleted; none where that is not known

    def __post_init__(self) -> None:
        if self.updated_at.tzinfo is None:
            raise ValueError("Correction.updated_at: expected an aware datetime, got a naive one")

    @property
    def boxes(self) -> int:
        """How many of its segments were given as boxes."""
        return sum(segment.is_box for segment in self.segments)

    @property
    def is_boxes_only(self) -> bool:
        """Whether it has boxes and no mask with a label: where objects are, not what they look like."""
        masks = any(not segment.is_box and segment.label != UNLABELLED for segment in self.segments)
        return self.boxes > 0 and not masks


@dataclass(frozen=True, kw_only=True)
class HoldoutMetrics:
    """How good a model is on the frozen holdout; 0..1, higher is better, None where it was not judged."""

    ap50: float  # COCO mask AP at IoU 0.5
    pq: float  # panoptic quality
    miou: float  # mean IoU over the classes that occur
    images: int  # how many images were judged
    ap: float | None = None  # COCO mask AP, mean over IoU 0.5 to 0.95
    ar: float | None = None  # COCO mask recall with 100 objects an image, mean over the same
    sq: float | None = None  # segmentation quality: mean IoU of matched segments
    rq: float | None = None  # recognition quality: F1 of matched segments
    pq_things: float | None = None  # of the classes with instances
    pq_stuff: float | None = None  # of the classes without
    boundary_iou: float | None = None  # of the segments' rims, mean over the classes that occur
    seconds_per_image: float | None = None  # median, from pixels to segments
    per_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)  # class -> numbers


def version_number(tag: str) -> int:
    """Return the number in the tag of a `ModelVersion`, 0 where it has none."""
    digits = tag.rpartition("-v")[2]
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered model: a plain `from_pretrained` folder with a number."""

    name: str  # the registered model, one per project
    number: int  # 1, 2, 3 ... in the order of registration
    path: Path  # the checkpoint's folder
    labels: tuple[str, ...]  # class names in the order of their ids
    metrics: HoldoutMetrics | None = None  # as judged when it was registered
    parent: int | None = None  # the version it was fine-tuned from

    @property
    def tag(self) -> str:
        """What Label Studio shows as `model_version`."""
        return f"{self.name}-v{self.number}"
