"""How a fine-tuning is done: the recipe, and the one that fits the data's size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from maskloop.learning.data.augmentation import Augmentation
from maskloop.settings import Settings

__all__ = ["FinetuneRecipe", "Precision", "choose_recipe"]

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]

LARGE_PARAMETERS = 5_000_000  # from here on a published checkpoint, whose own recipe is a rate of 1e-4
FEW_IMAGES = 16  # fewer cannot teach a large backbone anything it should keep


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """How a training is done; the defaults suit a fine-tuning of the tiny base model on a CPU."""

    steps: int = 200  # optimiser steps
    batch: int = 4  # images in each, over all processes and accumulated parts
    learning_rate: float = 4e-4  # at its peak
    backbone_factor: float = 1.0  # of the rate, for the backbone
    freeze_backbone: bool = False  # its weights and its running statistics stay as they are
    weight_decay: float = 0.05  # not of norms, biases and embeddings
    warmup: int = 20  # steps until the peak; a cosine to zero follows
    clip: float = 1.0  # largest norm of the gradient
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    balance: bool = False  # rare classes and new corrections come more often
    save_every: int = 50  # steps between two states that a killed training resumes from
    patience: int = 4  # validations without a gain that end a training; they come with the states
    minutes: float | None = None  # what a training may take; None for as long as it takes
    precision: Precision = "auto"  # "bfloat16" is autocast; "auto" takes it where it is faster
    threads: int = 0  # of torch on a CPU; 0 leaves the choice to torch

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.save_every, self.patience) < 1:
            raise ValueError(f"FinetuneRecipe: expected at least one step and one image in each, got {self}")
        if min(self.warmup, self.threads) < 0 or not 0 <= self.backbone_factor <= 1:
            raise ValueError(f"FinetuneRecipe: expected no negative count and a factor in 0..1, got {self}")
        if not self.learning_rate > 0 or not self.clip > 0 or self.weight_decay < 0:
            raise ValueError(f"FinetuneRecipe: expected a positive learning rate and clip, got {self}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"FinetuneRecipe: expected a positive time, got {self.minutes} minutes")


def choose_recipe(
    images: int,
    objects: int,
    classes: int,
    settings: Settings,
    *,
    new_classes: int = 0,
    parameters: int = 0,
) -> FinetuneRecipe:
    """Return the recipe that fits the data's size; what the settings name stays as they say.

    Steps grow with the square root of the images: each new image brings less that is new. More objects an
    image and more classes than usual each add some; where all classes are new to the model it takes twice
    as many, and in between by their share. The rate of a large model is the one that it was
    published with, its backbone learns at a tenth of it, and not at all from few images.

    Args:
        images: to learn from.
        objects: on all of them.
        classes: that the model is to know.
        new_classes: of them, those that it has never learnt.
        settings: steps, batch, rate, backbone rate, minutes, patience, seed; None means "chosen here".
        parameters: of the model; 0 counts as small.
    """
    large = parameters >= LARGE_PARAMETERS
    crowded = min(max(objects / max(images, 1) / 8, 1.0), 2.0)
    varied = min(max(classes / 10, 1.0), 2.0)
    fresh = 1.0 + min(new_classes / max(classes, 1), 1.0)
    fitting = fresh * max(35 * math.sqrt(images * crowded * varied), 100)
    steps = settings.train_steps or round(min(fitting, 5000))
    factor = settings.backbone_rate if settings.backbone_rate is not None else (0.1 if large else 1.0)
    return FinetuneRecipe(
        steps=steps,
        batch=settings.train_batch,
        learning_rate=settings.learning_rate or (1e-4 if large else 4e-4),
        backbone_factor=factor,
        freeze_backbone=factor == 0.0 or (settings.backbone_rate is None and large and images < FEW_IMAGES),
        warmup=max(5, min(steps // 10, 100)),
        seed=settings.seed,
        augmentation=Augmentation.from_settings(settings),
        balance=settings.train_balance,
        save_every=max(10, min(50, steps // 8)),
        patience=settings.train_patience,
        minutes=settings.train_minutes,
        precision=settings.train_precision,
    )
