"""The ways to train that `few_images` compares: how each chooses its recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.training.recipe import FinetuneRecipe, choose_recipe
from maskloop.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Data:
    """How many images and objects are learnt from, and which classes are new."""

    images: int
    objects: int
    classes: int
    new_classes: int
    parameters: int
    seed: int
    guessed: int = 0  # further images, with pseudo-labels


def recipe_1(data: Data) -> FinetuneRecipe:
    """Return the recipe as it was: steps grow with the square root of the images; no further additions."""
    density = min(max(data.objects / max(data.images, 1) / 8, 1.0), 2.0)
    classes = min(max(data.classes / 10, 1.0), 2.0)
    new = 1.0 + min(data.new_classes / max(data.classes, 1), 1.0)
    steps = round(min(new * max(35 * math.sqrt(data.images * density * classes), 100), 5000))
    return FinetuneRecipe(
        steps=steps,
        warmup=max(5, min(steps // 10, 100)),
        seed=data.seed,
        save_every=max(10, min(50, steps // 8)),
        precision="float32",
        threads=1,
        augmentation=Augmentation(),
    )


def chosen(data: Data) -> FinetuneRecipe:
    """Return the recipe that a worker chooses now."""
    settings = Settings.model_construct(seed=data.seed, train_precision="float32")
    recipe = choose_recipe(
        data.images,
        data.objects,
        data.classes,
        settings,
        guessed=data.guessed,
        new_classes=data.new_classes,
        parameters=data.parameters,
    )
    return replace(recipe, threads=1)


def as_if_known(data: Data) -> FinetuneRecipe:
    """Return the recipe that a worker chooses where the model knows all classes."""
    return chosen(replace(data, new_classes=0))


def as_if_new(data: Data) -> FinetuneRecipe:
    """Return the recipe that a worker chooses where the model knows none of the classes."""
    return chosen(replace(data, new_classes=data.classes))


def for_twice_as_long(data: Data) -> FinetuneRecipe:
    """Return the recipe that a worker chooses now, with twice the steps."""
    recipe = chosen(data)
    return with_steps(recipe, 2 * recipe.steps)


def in_batches(batch: int, *, shorter: int = 1) -> Callable[[Data], FinetuneRecipe]:
    """Return the recipe that a worker chooses now, with other batches and as many views or fewer."""

    def way(data: Data) -> FinetuneRecipe:
        recipe = chosen(data)
        steps = recipe.steps * recipe.batch // batch // shorter
        return replace(with_steps(recipe, max(1, steps)), batch=batch)

    return way


def with_steps(recipe: FinetuneRecipe, steps: int) -> FinetuneRecipe:
    """Return the recipe with another length, and what depends on it."""
    return replace(
        recipe, steps=steps, warmup=max(5, min(steps // 10, 100)), save_every=max(10, min(50, steps // 8))
    )


def views(count: int) -> Callable[[Data], FinetuneRecipe]:
    """Return `recipe-1` with at least so many views a photo."""

    def way(data: Data) -> FinetuneRecipe:
        recipe = recipe_1(data)
        return with_steps(recipe, max(recipe.steps, math.ceil(count * data.images / recipe.batch)))

    return way


def plus(
    base: Callable[[Data], FinetuneRecipe], *, augmentation: dict[str, Any] | None = None, **changes: Any
) -> Callable[[Data], FinetuneRecipe]:
    """Return the way with some fields of its recipe and of its augmentation changed."""

    def way(data: Data) -> FinetuneRecipe:
        recipe = replace(base(data), **changes)
        return replace(recipe, augmentation=replace(recipe.augmentation, **(augmentation or {})))

    return way


WAYS: dict[str, Callable[[Data], FinetuneRecipe]] = {
    "recipe-1": recipe_1,
    "views-60": views(60),
    "views-100": views(100),
    "views-200": views(200),
    "views-400": views(400),
    "average": plus(views(60), average=0.99),
    "jitter": plus(views(60), augmentation={"scale": (0.5, 2.0)}),
    "wide-jitter": plus(views(60), augmentation={"scale": (0.1, 2.0)}),
    "paste": plus(views(60), augmentation={"paste": 0.5}),
    "frozen-norm": plus(views(60), freeze_norm=True),
    "no-turns": plus(views(60), augmentation={"quarter_turns": False}),
    "deleted-3": plus(recipe_1, deleted_weight=3.0),
    "deleted-10": plus(recipe_1, deleted_weight=10.0),
    "all": chosen,
    "denoise": plus(chosen, denoise=True),
    "denoise-average": plus(chosen, denoise=True, average=0.99),
    "denoise-average-95": plus(chosen, denoise=True, average=0.95),
    "all-average": plus(chosen, average=0.99),
    "all-average-95": plus(chosen, average=0.95),
    "all-as-known": as_if_known,
    "all-as-new": as_if_new,
    "all-twice": for_twice_as_long,
    "all-no-paste": plus(chosen, augmentation={"paste": 0.0}),
    "all-paste": plus(chosen, augmentation={"paste": 0.5}),
    "all-jitter": plus(chosen, augmentation={"scale": (0.5, 2.0)}),
    "all-1e-4": plus(chosen, learning_rate=1e-4),
    "all-2e-4": plus(chosen, learning_rate=2e-4),
    "all-4e-4": plus(chosen, learning_rate=4e-4),
    "all-batch-4": in_batches(4),
    "all-batch-4-half": in_batches(4, shorter=2),
    "all-batch-8": in_batches(8),
    "all-batch-16": in_batches(16),
    "all-plain": plus(chosen, augmentation={"quarter_turns": False, "scale": (1.0, 1.0)}),
    "all-deleted-3": plus(chosen, deleted_weight=3.0),
    "all-tasks": plus(chosen, tasks="all"),
    "newest-of-3": chosen,
    "consensus-of-3": chosen,
    "soft-of-3": chosen,
    "untrained": chosen,
    "pool": chosen,
    "again": chosen,
    "again-pool": chosen,
    "rounds": as_if_known,
    "rounds-new": as_if_new,
    "rounds-new-no-paste": plus(as_if_new, augmentation={"paste": 0.0}),
    "transformers": chosen,
    "transformers-4e-4": chosen,
}
