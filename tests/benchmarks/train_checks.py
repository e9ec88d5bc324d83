"""That the faster training step is the same: loss and gradient at once, the loss curve over many steps."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tests.same_points import same_points

from maskloop.lab.base_model import made_up_examples
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.data.index_map import object_planes
from maskloop.learning.losses import accelerated
from maskloop.learning.losses.ignore_regions import ignoring
from maskloop.learning.training import training_loop
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl
from maskloop.learning.training.recipe import FinetuneRecipe

from .train_loops import Load, build_model, made_examples, our_batches

__all__ = ["StepGap", "curve_gap", "step_gap"]


@dataclass(frozen=True, kw_only=True)
class StepGap:
    """How far apart both are in float32, relative to transformers'."""

    loss: float
    gradient: float  # norm of the difference over norm, of all weights together


def step_gap(load: Load) -> StepGap:
    """Compare one step of the same weights and batch that looks at the same points."""
    model, text = build_model(load)
    dataset, collator = our_batches(load, made_examples(load.edge, 2), int(model.config.num_queries), text)
    batch = collator([dataset[0]])
    batch.pop("any_ignored")
    model.to(load.device).train()
    _keep_everything(model)
    inputs = {name: _moved(value, load.device) for name, value in batch.items()}
    loss, gradient = _loss_and_gradient(model, inputs, fast=False)
    ours, our_gradient = _loss_and_gradient(model, inputs, fast=True)
    return StepGap(
        loss=abs(ours - loss) / abs(loss),
        gradient=float((our_gradient - gradient).norm() / gradient.norm()),
    )


def _keep_everything(model: Any) -> None:
    """Switch off what leaves out values or blocks at random: both steps would leave out others."""
    for module in model.modules():
        for name in ("p", "drop_prob", "dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def curve_gap(family: str, precision: Any, steps: int) -> tuple[float, list[float], list[float]]:
    """Train a tiny model by our loss at a precision and by transformers' in float32.

    Returns:
        The largest difference of the losses, each the mean of 10 steps, over transformers'; and both curves.
    """
    curves: list[list[float]] = []
    for plain in (False, True):
        losses: list[float] = []
        recipe = FinetuneRecipe(
            steps=steps, batch=4, learning_rate=1e-3, warmup=10, precision="float32" if plain else precision
        )
        base = (
            build_tiny_mask2former(SHAPE_CLASSES, seed=0)
            if family == "mask2former"
            else build_tiny_oneformer(SHAPE_CLASSES, seed=0, training=True)
        )
        with ExitStack() as stack:
            if plain:
                off = mock.patch.object(training_loop, "accelerated", return_value=nullcontext())
                stack.enter_context(off)
            finetune(
                FinetuneJob(
                    base=base,
                    examples=made_up_examples(0, 16, domain="base"),
                    recipe=recipe,
                    output_dir=Path(stack.enter_context(tempfile.TemporaryDirectory())),
                ),
                TrainingControl(on_progress=lambda progress, losses=losses: losses.append(progress.loss)),
            )
        curves.append(losses)
    ours, theirs = curves
    count = steps // 10
    gaps = np.abs(np.subtract(ours[:count], theirs[:count])) / np.asarray(theirs[:count])
    return float(gaps.max()), ours, theirs


def _moved(value: Any, device: torch.device) -> Any:
    return [one.to(device) for one in value] if isinstance(value, list) else value.to(device)


def _loss_and_gradient(model: Any, inputs: dict[str, Any], *, fast: bool) -> tuple[float, torch.Tensor]:
    counts = [len(ids) for ids in inputs["class_labels"]]
    if not fast:
        pairs = zip(inputs["mask_labels"], counts, strict=True)
        inputs = inputs | {"mask_labels": [object_planes(index_hw, count) for index_hw, count in pairs]}
    model.zero_grad(set_to_none=True)
    with ExitStack() as stack:
        stack.enter_context(ignoring(model))
        if fast:
            stack.enter_context(accelerated(model))
        stack.enter_context(same_points(model, counts, seed=0, pointwise=fast))
        loss = model(**inputs).loss.sum()
    loss.backward()
    parts = [one.grad.flatten().cpu() for one in model.parameters() if one.grad is not None]
    return float(loss.detach()), torch.cat(parts)
