"""From images to predictions: group, forward, cut off padding, post-process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskloop.masks import drop_duplicates, drop_specks
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.embedding import image_embedding
from maskloop.segmentation.postprocess import Thresholds, segments_of
from maskloop.segmentation.preprocess import images_to_batch, resized_size
from maskloop.segmentation.studying import image_reading, patch_grid
from maskloop.segmentation.views import ViewPlan, view_image, view_model, view_prediction
from maskloop.selection.confidence import image_confidence
from maskloop.selection.signals import Reading, disagreement
from maskloop.types import ImageStudy, Prediction, RgbImage, SegmentationTask

__all__ = ["predict_images"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """What one forward pass says of an image."""

    prediction: Prediction
    reading: Reading
    embedding_d: NDArray[np.float32] | None  # where it was asked for


def predict_images(
    checkpoint: Checkpoint,
    images: Sequence[RgbImage],
    *,
    task: SegmentationTask,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  # frozen
    max_batch: int = 8,
    study: bool = False,
    plan: ViewPlan = ViewPlan(),  # noqa: B008  # frozen
) -> list[Prediction]:
    """Return what the model says of each image.

    The models ignore the pixel mask (transformers #37909), so what stands in the padding of an image
    would change its result. Only images that are resized to equal sizes share a forward pass, unless all
    are padded to one size anyway: none is padded more for another, and an image's result does not depend
    on its company.

    Args:
        checkpoint: the model.
        images: uint8 (H, W, 3), upright RGB, any sizes; may be none.
        task: which post-processing, and for OneFormer also which question.
        thresholds: what counts.
        max_batch: images in one forward pass.
        study: also say what choosing wants to know, which takes a forward pass more for each view; the
            segments are the same.
        plan: which views.

    Returns:
        One prediction per image, in the order of the images, masks in the images' own pixels.

    Raises:
        ImageError: an image is not uint8 (H, W, 3) or has no pixels.
    """
    with torch.inference_mode():
        looks = _look_at(checkpoint, images, task, thresholds, max_batch, study)
        if not study:
            return [look.prediction for look in looks]
        seen: list[list[Prediction]] = [[] for _ in looks]
        for view in plan.views:
            shown = [view_image(image, view) for image in images]
            others = _look_at(view_model(checkpoint, view), shown, task, thresholds, max_batch, False)
            for place, other in zip(seen, others, strict=True):
                place.append(view_prediction(other.prediction, view, checkpoint.labels, plan))
    return [_studied(look, views) for look, views in zip(looks, seen, strict=True)]


def _look_at(
    checkpoint: Checkpoint,
    images: Sequence[RgbImage],
    task: SegmentationTask,
    thresholds: Thresholds,
    max_batch: int,
    study: bool,
) -> list[_Look]:
    looks: dict[int, _Look] = {}
    for indices in _groups(checkpoint, images, max_batch):
        batch = [images[index] for index in indices]
        found = _look_at_batch(checkpoint, batch, task, thresholds, study)
        looks.update(zip(indices, found, strict=True))
    return [looks[index] for index in range(len(images))]


def _studied(look: _Look, views: Sequence[Prediction]) -> Prediction:
    signals = replace(look.reading.signals, disagreement=disagreement(look.prediction, views))
    assert look.embedding_d is not None
    return replace(
        look.prediction,
        confidence=image_confidence(signals, look.reading.objects),
        study=ImageStudy(signals=signals, embedding_d=look.embedding_d),
    )


def _groups(checkpoint: Checkpoint, images: Sequence[RgbImage], max_batch: int) -> Iterator[list[int]]:
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        usable = image.ndim == 3 and min(image.shape) > 0
        size_hw = (0, 0)
        if usable:
            size_hw = checkpoint.preprocessing.pad_hw or resized_size(
                (image.shape[0], image.shape[1]), checkpoint.preprocessing
            )
        groups.setdefault(size_hw, []).append(index)
    for indices in groups.values():
        for start in range(0, len(indices), max_batch):
            yield indices[start : start + max_batch]


def _look_at_batch(
    checkpoint: Checkpoint,
    images: Sequence[RgbImage],
    task: SegmentationTask,
    thresholds: Thresholds,
    study: bool,
) -> Iterator[_Look]:
    batch = images_to_batch(images, checkpoint.preprocessing, checkpoint.device)
    words: dict[str, object] = {"output_hidden_states": True} if study else {}
    if checkpoint.task_text is not None:
        words["task_inputs"] = checkpoint.task_text.task_inputs(task, len(images), checkpoint.device)
    output = checkpoint.model(
        pixel_values=batch.pixel_values_bchw,
        pixel_mask=batch.pixel_mask_bhw,
        output_auxiliary_logits=False,
        **words,
    )
    padded_hw = batch.pixel_values_bchw.shape[-2:]
    for index, size_hw in enumerate(batch.image_sizes_hw):
        class_logits_qk = output.class_queries_logits[index]
        valid_hw = batch.valid_sizes_hw[index]
        mask_logits_qhw = _cut_padding(output.masks_queries_logits[index], valid_hw, padded_hw)
        segments = segments_of(task)(
            class_logits_qk,
            mask_logits_qhw,
            labels=checkpoint.labels,
            thing_ids=checkpoint.thing_ids,
            thresholds=thresholds,
            size_hw=size_hw,
        )
        if thresholds.part > 0:
            segments = tuple(drop_specks(segment, thresholds.part) for segment in segments)
        if task is SegmentationTask.INSTANCE and thresholds.duplicate < 1:
            segments = drop_duplicates(segments, thresholds.duplicate)
        reading = image_reading(
            class_logits_qk,
            mask_logits_qhw,
            task=task,
            labels=checkpoint.labels,
            thing_ids=checkpoint.thing_ids,
            thresholds=thresholds,
        )
        yield _Look(
            prediction=Prediction(
                segments=segments,
                size_hw=size_hw,
                confidence=image_confidence(reading.signals, reading.objects),
            ),
            reading=reading,
            embedding_d=image_embedding(
                output,
                index,
                (valid_hw[0] / padded_hw[0], valid_hw[1] / padded_hw[1]),
                patch_grid(checkpoint),
            )
            if study
            else None,
        )


def _cut_padding(mask_logits_qhw: Tensor, valid_hw: tuple[int, int], padded_hw: Sequence[int]) -> Tensor:
    height, width = (
        round(valid * low / padded)
        for valid, low, padded in zip(valid_hw, mask_logits_qhw.shape[-2:], padded_hw, strict=True)
    )
    return mask_logits_qhw[:, : max(1, height), : max(1, width)]
