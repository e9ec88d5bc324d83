"""The hyperparameters of a fine-tuning, and the choice of them by the size of data and model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from maskloop.learning.data.augmentation import Augmentation
from maskloop.segmentation.checkpoint import only_names_object
from maskloop.settings import Settings

if TYPE_CHECKING:
    from maskloop.learning.data.dataset import TrainingExample
    from maskloop.segmentation.checkpoint import Checkpoint

__all__ = ["FinetuneRecipe", "Precision", "TrainedTasks", "choose_recipe", "count_new_classes", "recipe_for"]

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
TrainedTasks: TypeAlias = Literal["own", "all"]

LARGE_PARAMETERS = 5_000_000  # a model this large is a published checkpoint, trained at a rate of 1e-4
LARGE_RATE = 1e-4
SMALL_RATE = 4e-4
LEAST_SMALL_RATE = 1e-4  # of eight images or fewer whose classes are known
FULL_RATE_IMAGES = 32  # with as many a small model learns at its whole rate
LEAST_STEPS = 100
LEAST_STEPS_NEW = 600  # where no class is known
PASTE_NEW = 0.5  # share of views, where most classes are new
FEW_IMAGES = 16  # with fewer images a large backbone would only overfit
BATCH = 4
BATCH_FEW = 8  # for a small model that knows the classes, with half as many steps (docs/few-images.md)
BATCH_FEW_IMAGES = 16  # up to as many; with 32 and 64 nuclei it lost


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """Hyperparameters; the defaults suit a fine-tuning of the tiny base model on a CPU."""

    steps: int = 200  # optimiser steps
    batch: int = BATCH  # images of one step, over all processes and accumulated parts
    learning_rate: float = SMALL_RATE  # peak
    backbone_factor: float = 1.0  # factor on the learning rate of the backbone, 0..1
    freeze_backbone: bool = False  # its weights and running statistics do not change
    freeze_norm: bool = False  # running statistics of batch norm do not change
    average: float = 0.0  # decay of the moving average of the weights, which is kept; 0: the last weights are
    weight_decay: float = 0.05  # of linear and convolution weights only
    warmup: int = 20  # steps up to the peak rate; a cosine to zero follows
    clip: float = 1.0  # largest gradient norm
    seed: int = 0
    edge: int | None = None  # pixels of an input's shorter side; None: as `input_size` says
    augmentation: Augmentation = field(default_factory=Augmentation)
    balance: bool = False  # sample images with rare classes and new corrections more often
    tasks: TrainedTasks = "own"  # of a OneFormer; "all": also others that the annotations allow
    deleted_weight: float = 1.0  # of a query that finds a deleted region again; 1: as any without an object
    denoise: bool = False  # denoising queries are trained beside the ordinary ones (losses.denoising)
    click_queries: bool = False  # learnt beside the model, for answers to clicks
    save_every: int = 50  # steps between two saved states
    patience: int = 4  # validations without a lower loss until training stops; one with each saved state
    minutes: float | None = None  # time limit; None for no limit
    precision: Precision = "auto"  # "bfloat16" is autocast; "auto" selects it where it is faster
    threads: int = 0  # torch threads on a CPU; 0 for torch's default

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.save_every, self.patience) < 1:
            raise ValueError(f"FinetuneRecipe: expected at least one step and one image in each, got {self}")
        if not 0 <= self.average < 1:
            raise ValueError(f"FinetuneRecipe.average: expected a decay in 0..1, got {self.average}")
        if self.deleted_weight < 1:
            raise ValueError(f"FinetuneRecipe.deleted_weight: expected at least 1, got {self.deleted_weight}")
        if min(self.warmup, self.threads) < 0 or not 0 <= self.backbone_factor <= 1:
            raise ValueError(f"FinetuneRecipe: expected no negative count and a factor in 0..1, got {self}")
        if not self.learning_rate > 0 or not self.clip > 0 or self.weight_decay < 0:
            raise ValueError(f"FinetuneRecipe: expected a positive learning rate and clip, got {self}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"FinetuneRecipe: expected a positive time, got {self.minutes} minutes")


def recipe_for(
    base: Checkpoint, examples: Sequence[TrainingExample], classes: Sequence[str], settings: Settings
) -> FinetuneRecipe:
    """Return the recipe to fine-tune a model on some examples.

    Args:
        base: the model.
        examples: that it learns from.
        classes: of the result.
        settings: as for `choose_recipe`.
    """
    drawn = [example for example in examples if not example.guessed]
    return choose_recipe(
        len(drawn),
        sum(len(example.segments) + len(example.boxes) for example in drawn),
        len(classes),
        settings,
        guessed=len(examples) - len(drawn),
        new_classes=count_new_classes(base, classes),
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
    )


def count_new_classes(base: Checkpoint, classes: Sequence[str]) -> int:
    """Return how many classes are to be learnt as new ones.

    A class that an earlier round added was learnt from few images: it stays new as long as the first model
    lacked it. With the recipe for known classes the second round on fruits lost .14 (docs/few-images.md).
    The name that the only label of a project gives to "object" is none.

    Args:
        base: the model that is fine-tuned.
        classes: of the result.
    """
    if only_names_object(base, classes):
        return 0
    known = {label for index, label in enumerate(base.labels) if index not in base.added_ids}
    return len(set(classes) - known)


def choose_recipe(
    images: int,
    objects: int,
    classes: int,
    settings: Settings,
    *,
    guessed: int = 0,
    new_classes: int = 0,
    parameters: int = 0,
) -> FinetuneRecipe:
    """Return the recipe for data and model of a size; a value that the settings name is used as it is.

    Steps grow with the square root of the number of images, since each new image adds less. More objects
    per image and more classes than usual add steps; a model whose classes are all new takes twice as many,
    and never less than 600: with 250 it had not told the classes of 12 photos apart (docs/few-images.md).
    Where only some are new it is in proportion. A model that knows all classes gets no such floor: on
    made-up images it became worse with it. Where most classes are new to a small model, half of the views
    get objects of other images. A large model uses the learning rate that it was published with, and a
    tenth of it for its backbone, which is frozen where images are few. A small one uses its own, less where
    images are few and it knows their classes: with all of it four images made a model worse than it was.
    Up to 16 images of known classes are also learnt in half as many steps of twice the images.

    Args:
        images: number of annotated training images.
        objects: number of objects on all of them.
        guessed: number of further images, with pseudo-labels; they count twice, since half of the views are
            theirs: made-up images gained .02 with 372 steps and .04 with 560 (docs/few-images.md).
        classes: number of classes of the result.
        new_classes: number of classes that the project's first model did not have.
        settings: steps, batch, rate, backbone rate, minutes, patience, seed; None means "choose".
        parameters: number of parameters of the model; 0 counts as small.
    """
    large = parameters >= LARGE_PARAMETERS
    density_factor = min(max(objects / max(images, 1) / 8, 1.0), 2.0)
    class_factor = min(max(classes / 10, 1.0), 2.0)
    new_share = min(new_classes / max(classes, 1), 1.0)
    least = LEAST_STEPS + (LEAST_STEPS_NEW - LEAST_STEPS) * new_share
    amount = (images + 2 * guessed) * density_factor * class_factor
    suitable = max((1.0 + new_share) * 35 * math.sqrt(amount), least)
    steps, batch = settings.train_steps or round(min(suitable, 5000)), settings.train_batch or BATCH
    named = settings.train_steps or settings.train_batch
    if not (named or large or new_classes) and images + guessed <= BATCH_FEW_IMAGES:
        steps, batch = round(steps * BATCH / BATCH_FEW), BATCH_FEW
    factor = settings.backbone_rate if settings.backbone_rate is not None else (0.1 if large else 1.0)
    return FinetuneRecipe(
        steps=steps,
        batch=batch,
        learning_rate=settings.learning_rate
        or (LARGE_RATE if large else _small_rate(images + guessed, new_share)),
        backbone_factor=factor,
        freeze_backbone=factor == 0.0 or (settings.backbone_rate is None and large and images < FEW_IMAGES),
        warmup=max(5, min(steps // 10, 100)),
        seed=settings.seed,
        edge=settings.train_edge,
        augmentation=Augmentation.from_settings(settings, paste=_paste_share(new_share, large)),
        average=settings.train_average,
        freeze_norm=settings.train_freeze_norm,
        balance=settings.train_balance,
        tasks=settings.train_tasks,
        deleted_weight=settings.train_deleted,
        denoise=settings.train_denoise,
        click_queries=settings.train_clicks,
        save_every=max(10, min(50, steps // 8)),
        patience=settings.train_patience,
        minutes=settings.train_minutes,
        precision=settings.train_precision,
    )


def _small_rate(images: int, new_share: float) -> float:
    # New classes are not told apart with less than the whole rate (docs/few-images.md).
    return max(SMALL_RATE * min(max(images / FULL_RATE_IMAGES, new_share), 1.0), LEAST_SMALL_RATE)


def _paste_share(new_share: float, large: bool) -> float:
    # measured with small models and classes that are all new (docs/few-images.md), nowhere else
    return PASTE_NEW if not large and new_share >= 0.5 else 0.0
