"""Models on the holdout: predictions of several models on the same images, evaluated and timed alike.

`prediction_metrics` computes the numbers, `comparison` compares two models, `gate` decides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.prediction_metrics import Evaluation, evaluate_predictions
from maskloop.masks import paste_segment
from maskloop.segmentation.class_kinds import stuff_classes
from maskloop.types import HoldoutMetrics, Prediction, RgbImage, SegmentationTask

if TYPE_CHECKING:
    from maskloop.learning.data.dataset import TrainingExample
    from maskloop.segmentation.checkpoint import Checkpoint
    from maskloop.segmentation.class_kinds import ClassKinds
    from maskloop.segmentation.postprocess import Thresholds

__all__ = ["evaluate_checkpoint", "evaluate_side_by_side", "ground_truth", "predict_examples"]


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    examples: Sequence[TrainingExample],
    *,
    labels: Sequence[str] | None = None,
    task: SegmentationTask = SegmentationTask.INSTANCE,
    thresholds: Thresholds | None = None,
    batch: int = 8,
) -> HoldoutMetrics:
    """Return the metrics of one model on examples; arguments as for `evaluate_side_by_side`."""
    (evaluation,) = evaluate_side_by_side(
        [checkpoint], examples, labels=labels, task=task, thresholds=thresholds, batch=batch
    )
    return evaluation.metrics


def evaluate_side_by_side(
    checkpoints: Sequence[Checkpoint],
    examples: Sequence[TrainingExample],
    *,
    labels: Sequence[str] | None = None,
    task: SegmentationTask = SegmentationTask.INSTANCE,
    thresholds: Thresholds | None = None,
    batch: int = 8,
) -> tuple[Evaluation, ...]:
    """Return an evaluation of each model on the same examples.

    The models take turns on every batch of images, so that other work of the machine slows them alike; the
    device is synchronised before the clock is read.

    Args:
        checkpoints: the models.
        examples: images with the objects that annotators drew.
        labels: classes that are evaluated; predictions of other classes are left out. None: the classes of
            the model and those of the examples.
        task: task of the predictions; with "semantic" each class of an image is one area.
        thresholds: thresholds of the predictions, as the models are served with; None for the defaults.
        batch: images in one forward pass.

    Raises:
        ImageError: an example's image cannot be read.
    """
    from maskloop.learning.data.dataset import load_example_image
    from maskloop.segmentation.postprocess import Thresholds

    limits = thresholds or Thresholds()
    predictions: list[list[Prediction]] = [[] for _ in checkpoints]
    seconds: list[list[float]] = [[] for _ in checkpoints]
    for number, start in enumerate(range(0, len(examples), batch)):
        images = [load_example_image(example) for example in examples[start : start + batch]]
        turns = list(range(len(checkpoints)))
        for turn in turns if number % 2 == 0 else reversed(turns):
            if number == 0:  # a model's first call allocates memory and chooses kernels: not timed
                _predict_timed(checkpoints[turn], images[:1], task, limits)
            found, seconds_per_image = _predict_timed(checkpoints[turn], images, task, limits)
            predictions[turn].extend(found)
            seconds[turn].extend([seconds_per_image] * len(images))
    truths = [
        ground_truth(example, prediction.size_hw)
        for example, prediction in zip(examples, predictions[0] if predictions else (), strict=True)
    ]
    return tuple(
        evaluate_predictions(
            [_only_labels(prediction, frozenset(evaluated)) for prediction in found],
            truths,
            evaluated,
            stuff_labels=_stuff_labels(checkpoint, evaluated, task=task, kinds=limits.kinds),
            known=checkpoint.labels,
            keys=[example.key for example in examples],
            seconds=times,
            groups=[example.group or example.key for example in examples],
        )
        for checkpoint, found, times in zip(checkpoints, predictions, seconds, strict=True)
        for evaluated in [_evaluated_labels(checkpoint, examples, labels)]
    )


def predict_examples(
    checkpoint: Checkpoint,
    examples: Sequence[TrainingExample],
    *,
    labels: Sequence[str],
    task: SegmentationTask,
    thresholds: Thresholds,
    batch: int = 8,
) -> tuple[list[Prediction], list[GroundTruth]]:
    """Return a model's predictions of examples, and what is really there; not timed.

    Arguments and errors as for `evaluate_side_by_side`.
    """
    from maskloop.learning.data.dataset import load_example_image
    from maskloop.segmentation.predict import predict_images

    found: list[Prediction] = []
    for start in range(0, len(examples), batch):
        images = [load_example_image(example) for example in examples[start : start + batch]]
        predictions = predict_images(checkpoint, images, task=task, thresholds=thresholds)
        found += [_only_labels(prediction, frozenset(labels)) for prediction in predictions]
    truths = [ground_truth(example, one.size_hw) for example, one in zip(examples, found, strict=True)]
    return found, truths


def _predict_timed(
    checkpoint: Checkpoint, images: Sequence[RgbImage], task: SegmentationTask, thresholds: Thresholds
) -> tuple[list[Prediction], float]:
    """Return the predictions and the mean seconds per image."""
    from maskloop.segmentation.predict import predict_images

    _synchronise(checkpoint.device)
    started = time.perf_counter()
    predictions = predict_images(checkpoint, images, task=task, thresholds=thresholds)
    _synchronise(checkpoint.device)
    return predictions, (time.perf_counter() - started) / max(1, len(images))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _evaluated_labels(
    checkpoint: Checkpoint, examples: Sequence[TrainingExample], labels: Sequence[str] | None
) -> tuple[str, ...]:
    if labels is not None:
        return tuple(labels)
    named = {segment.label for example in examples for segment in example.segments}
    return (*checkpoint.labels, *sorted(named - set(checkpoint.labels)))


def ground_truth(example: TrainingExample, size_hw: tuple[int, int]) -> GroundTruth:
    """Return what an example says of its image: its objects, and the area that is not judged.

    That area holds boxes too: a prediction that mostly lies in it counts neither for a model nor against it.
    """
    ignored = [paste_segment(part, size_hw) for part in (*example.ignored, *example.boxes)]
    return GroundTruth(
        segments=example.segments, ignored_hw=np.logical_or.reduce(ignored) if ignored else None
    )


def _only_labels(prediction: Prediction, labels: frozenset[str]) -> Prediction:
    return replace(prediction, segments=tuple(item for item in prediction.segments if item.label in labels))


def _stuff_labels(
    checkpoint: Checkpoint, labels: Sequence[str], *, task: SegmentationTask, kinds: ClassKinds
) -> frozenset[str]:
    """Return which of the labels are evaluated as one area an image: those that are served so."""
    if task is SegmentationTask.INSTANCE:
        return frozenset()
    if task is SegmentationTask.SEMANTIC:
        return frozenset(labels)
    new = [label for label in labels if label not in checkpoint.labels]
    every = range(len(new))  # a class that the model lacks is of the kind that its next version will give it
    of_new = stuff_classes(new, every, undeclared_ids=every, kinds=kinds)
    return frozenset(labels) & (checkpoint.stuff_labels(kinds) | of_new)
