"""The values of one fine-tuning: what is trained on what, how far it is, and how its caller controls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import Dataset

from maskloop.errors import TrainingError
from maskloop.learning.data.collate import Collator
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.index_map import TrainingItem
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.segmentation.click_queries import ClickQueries
from maskloop.types import SegmentationTask

__all__ = [
    "UNCONTROLLED",
    "FinetuneJob",
    "TrainingControl",
    "TrainingProgress",
    "TrainingRun",
    "TrainingStoppedError",
]


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a training is."""

    step: int  # optimiser steps done
    steps: int  # optimiser steps in all
    loss: float  # mean since the previous report
    eta_s: float  # seconds left, estimated from the pace of this process
    images_per_s: float | None = None  # of the optimiser steps, validation included
    memory_mb: float | None = None  # the most that this process took: of the GPU where it trains on one


class TrainingStoppedError(TrainingError):
    """A training that its caller stopped; the next training with the same job continues from its state."""


@dataclass(frozen=True, kw_only=True)
class TrainingControl:
    """How the caller of a training follows it and stops it."""

    on_progress: Callable[[TrainingProgress], None] | None = None  # called every few steps and at the end
    should_stop: Callable[[], bool] | None = None  # called after each step; True stops the training


UNCONTROLLED = TrainingControl()


@dataclass(frozen=True, kw_only=True, eq=False)
class FinetuneJob:
    """A base checkpoint and the corrected images that it is fine-tuned on."""

    base: Checkpoint  # not changed
    examples: Sequence[TrainingExample]  # at least one; one without segments teaches "no object here"
    recipe: FinetuneRecipe
    output_dir: Path  # its folder "trainer" holds the states that a killed training continues from
    labels: Sequence[str] | None = None  # classes of the result; None: the base's, then new ones by name
    task: SegmentationTask = SegmentationTask.INSTANCE  # "semantic": one area for each class of an image
    validation: Sequence[TrainingExample] = ()  # not trained on; their loss selects the best state
    kinds: ClassKinds = field(default_factory=ClassKinds)  # stuff beyond what the base says, as served

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the result in the order of their ids."""
        if self.labels is not None:
            return tuple(self.labels)
        named = {one.label for example in self.examples for one in (*example.segments, *example.boxes)}
        return (*self.base.labels, *sorted(named - set(self.base.labels)))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """The inputs of the training loop, for any model that computes a loss of its own."""

    dataset: Dataset[TrainingItem]  # at least steps x batch items
    collator: Collator
    recipe: FinetuneRecipe
    state_dir: Path  # a state of the same recipe and fingerprint is continued, any other is deleted
    device: torch.device
    # trained beside the model, in place; None: clicks are not learnt
    click_queries: ClickQueries | None = None
    validation: Dataset[TrainingItem] | None = None  # None: train all steps and keep the last state
    fingerprint: str = ""  # identifies base and data
