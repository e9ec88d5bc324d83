"""Ask models what is on the holdout's images, and judge what they say by one code; times included.

`judging` compares and counts; neighbour `promotion` decides.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.metrics import Judgement, judge
from maskloop.masks import paste_segment
from maskloop.types import HoldoutMetrics, Prediction, RgbImage, Segment, SegmentationTask

if TYPE_CHECKING:
    from maskloop.learning.data.dataset import TrainingExample
    from maskloop.segmentation.checkpoint import Checkpoint
    from maskloop.segmentation.postprocess import Thresholds

__all__ = ["evaluate", "evaluate_checkpoint", "judge_checkpoints"]


def evaluate(
    predictions: Sequence[Prediction],
    truths: Sequence[GroundTruth | tuple[Segment, ...]],
    labels: Sequence[str],
    *,
    stuff_labels: Collection[str] = (),
) -> HoldoutMetrics:
    """Return the numbers of `judge`; see there.

    AP averages over the classes that occur in the truth; PQ and IoU over those that occur in truth or
    prediction. The background counts against a model that fills it but is no class of its own.

    Returns:
        Metrics 0..1; all 0 with `images=0` where there is no image, and 1 where nothing was to be found
        and nothing was predicted.
    """
    return judge(predictions, truths, labels, stuff_labels=stuff_labels).metrics


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    examples: Sequence[TrainingExample],
    *,
    labels: Sequence[str] | None = None,
    task: SegmentationTask = SegmentationTask.INSTANCE,
    thresholds: Thresholds | None = None,
    batch: int = 8,
) -> HoldoutMetrics:
    """Return how good a model is on examples; see `judge_checkpoints`."""
    (judgement,) = judge_checkpoints(
        [checkpoint], examples, labels=labels, task=task, thresholds=thresholds, batch=batch
    )
    return judgement.metrics


def judge_checkpoints(
    checkpoints: Sequence[Checkpoint],
    examples: Sequence[TrainingExample],
    *,
    labels: Sequence[str] | None = None,
    task: SegmentationTask = SegmentationTask.INSTANCE,
    thresholds: Thresholds | None = None,
    batch: int = 8,
) -> tuple[Judgement, ...]:
    """Return a judgement of each model on the same examples.

    The models take turns on every batch of images, so that what else the machine does slows all of them
    alike; the device is waited for before the clock is read.

    Args:
        checkpoints: the models.
        examples: images and what annotators drew on them.
        labels: classes that count; what a model says of others is left out. None for those a model can
            name and those that occur.
        task: how the models are asked; for "semantic" each class of an image is judged as one area.
        thresholds: as the models are served with; the defaults of Thresholds where none are given.
        batch: images in one forward pass.

    Raises:
        ImageError: an example's image cannot be read.
    """
    from maskloop.learning.data.dataset import load_example_image
    from maskloop.segmentation.postprocess import Thresholds

    limits = thresholds or Thresholds()
    said: list[list[Prediction]] = [[] for _ in checkpoints]
    seconds: list[list[float]] = [[] for _ in checkpoints]
    for number, start in enumerate(range(0, len(examples), batch)):
        images = [load_example_image(example) for example in examples[start : start + batch]]
        turns = list(range(len(checkpoints)))
        for turn in turns if number % 2 == 0 else reversed(turns):
            if number == 0:  # first calls allocate and choose kernels: no serving would be as slow
                _timed(checkpoints[turn], images[:1], task, limits)
            predictions, each_s = _timed(checkpoints[turn], images, task, limits)
            said[turn].extend(predictions)
            seconds[turn].extend([each_s] * len(images))
    return tuple(
        _judged(checkpoint, predictions, examples, labels, task, times)
        for checkpoint, predictions, times in zip(checkpoints, said, seconds, strict=True)
    )


def _timed(
    checkpoint: Checkpoint, images: Sequence[RgbImage], task: SegmentationTask, thresholds: Thresholds
) -> tuple[list[Prediction], float]:
    """Return the predictions, and the mean seconds of an image."""
    from maskloop.segmentation.predict import predict_images

    _synchronise(checkpoint.device)
    started = time.perf_counter()
    predictions = predict_images(checkpoint, images, task=task, thresholds=thresholds)
    _synchronise(checkpoint.device)
    return predictions, (time.perf_counter() - started) / max(1, len(images))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _judged(
    checkpoint: Checkpoint,
    predictions: Sequence[Prediction],
    examples: Sequence[TrainingExample],
    labels: Sequence[str] | None,
    task: SegmentationTask,
    seconds: Sequence[float],
) -> Judgement:
    if labels is None:
        named = {segment.label for example in examples for segment in example.segments}
        labels = (*checkpoint.labels, *sorted(named - set(checkpoint.labels)))
    return judge(
        [_only_labels(prediction, frozenset(labels)) for prediction in predictions],
        [
            _truth(example, prediction.size_hw)
            for example, prediction in zip(examples, predictions, strict=True)
        ],
        labels,
        stuff_labels=_stuff_labels(checkpoint, labels, task),
        known=checkpoint.labels,
        keys=[example.key for example in examples],
        seconds=seconds,
    )


def _truth(example: TrainingExample, size_hw: tuple[int, int]) -> GroundTruth:
    ignored = [paste_segment(part, size_hw) for part in example.ignored]
    return GroundTruth(
        segments=example.segments, ignored_hw=np.logical_or.reduce(ignored) if ignored else None
    )


def _only_labels(prediction: Prediction, labels: frozenset[str]) -> Prediction:
    return replace(prediction, segments=tuple(item for item in prediction.segments if item.label in labels))


def _stuff_labels(checkpoint: Checkpoint, labels: Sequence[str], task: SegmentationTask) -> set[str]:
    if task is SegmentationTask.INSTANCE:
        return set()
    things = {checkpoint.labels[index] for index in checkpoint.thing_ids}
    known = set(checkpoint.labels)
    return {label for label in labels if task is SegmentationTask.SEMANTIC or label in known - things}
