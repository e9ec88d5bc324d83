"""The values that one training passes from step to step, from the job to its outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from maskloop.learning.data.pseudo_labels import PoolUse
from maskloop.learning.data.training_set import LabelPlan
from maskloop.learning.evaluation.anchoring import Anchoring
from maskloop.learning.evaluation.gate import PromotionDecision
from maskloop.learning.evaluation.prediction_metrics import Evaluation
from maskloop.learning.evaluation.showing import Showing
from maskloop.learning.pool_verdict import PoolVerdict
from maskloop.learning.registry.promotion import Release
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.types import Correction, HoldoutMetrics, ModelVersion, SegmentationTask

__all__ = ["Challenger", "GateReport", "JudgedBy", "TrainingJob", "TrainingOutcome"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingJob:
    """The input of one training."""

    key: str  # identifies this training: restarted after a kill, it does not register a second version
    champion: ModelVersion  # the served version, from which the training starts
    train: Sequence[Correction]  # outside the holdout; of several annotations of a task one is used
    holdout: Sequence[Correction]  # for evaluation only
    labels: LabelPlan  # classes of the next model
    task: SegmentationTask  # segmentation task of the project
    thresholds: Thresholds  # thresholds that the project's models are served with
    groups: Mapping[str, str] = field(default_factory=dict)  # image key -> group of near images
    judged_before: int = 0  # challengers that were compared with this champion already
    work_dir: Path  # where a killed training finds its last state again; deleted at the end
    dataset: str | None = None  # digest of the snapshot that has the corrections; None: none was made
    pool: Sequence[Path] = ()  # images that nobody has annotated, for pseudo-labels
    why_no_pool: str | None = None  # why there are none though they were asked for
    pool_verdict: PoolVerdict | None = None  # of an earlier training, where it still holds


@dataclass(frozen=True, kw_only=True, eq=False)
class Challenger:
    """A model that was fine-tuned from the champion."""

    checkpoint: Checkpoint
    recipe: FinetuneRecipe
    version: ModelVersion | None = None  # where this training registered it before it was killed


class JudgedBy(StrEnum):
    """What a version was judged on."""

    HOLDOUT = "holdout"
    CROSS_VALIDATION = "cross-validation"  # the holdout is too small
    NOBODY = "nobody"  # the same, and there is too little for that as well


@dataclass(frozen=True, kw_only=True, eq=False)
class GateReport:
    """The evaluations of both models on the holdout and the decision from them."""

    champion: Evaluation
    challenger: Evaluation
    decision: PromotionDecision
    showing: Showing  # which of the challenger's segments annotators are shown
    judged_by: JudgedBy = JudgedBy.HOLDOUT
    images_needed: int = 0  # further annotated images, until the holdout is large enough
    anchoring: Anchoring | None = None  # None where too few images are blind


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """The result of one training."""

    champion: HoldoutMetrics  # the previous champion on the holdout
    challenger: HoldoutMetrics  # the new version on the same holdout
    decision: PromotionDecision
    showing: Showing  # which segments of the new version annotators are shown
    release: Release  # whether the new version was promoted, waits or was refused
    version: ModelVersion  # the new version
    base: ModelVersion  # the version that it was trained from
    train_images: int
    pool: PoolUse | None  # what it took from images that nobody has annotated
    why_no_pool: str | None  # why it took nothing; None also where nothing was asked for
    pool_verdict: PoolVerdict | None  # of the cross-validation that chose; None: there was none
    holdout_gaps: str | None  # which classes the holdout has too few images of; None for none
    boxes: str | None  # how many regions are boxes, and what becomes of them; None for none
    judged_by: JudgedBy
    images_needed: int  # further annotated images, until the holdout is large enough; 0 where it is
    anchoring: Anchoring | None  # None where too few images are blind
    seconds: float

    def as_json(self) -> dict[str, object]:
        """Return it as plain values; the keys are stored with jobs and read by scripts."""
        return {
            "promoted": self.release is Release.PROMOTED,
            "release": self.release.value,
            "reason": self.decision.reason,
            "decision": self.decision.as_json(),
            "showing": self.showing.as_json() | {"text": self.showing.in_words()},
            "base": self.base.tag,
            "version": self.version.tag,
            "champion_metrics": dataclasses.asdict(self.champion),
            "challenger_metrics": dataclasses.asdict(self.challenger),
            "train_images": self.train_images,
            "pool": None if self.pool is None else dataclasses.asdict(self.pool),
            "why_no_pool": self.why_no_pool,
            "pool_check": None if self.pool_verdict is None else self.pool_verdict.as_json(),
            "holdout_images": self.challenger.images,
            "judged_by": self.judged_by.value,
            "images_needed": self.images_needed,
            "anchoring": None if self.anchoring is None else self.anchoring.as_json(),
            "holdout_lacks": self.holdout_gaps,
            "boxes": self.boxes,
            "seconds": round(self.seconds, 2),
        }
