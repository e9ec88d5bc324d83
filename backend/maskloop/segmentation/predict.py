"""From images to predictions: group, forward, cut off padding, post-process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from maskloop.masks import drop_duplicates, drop_specks
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds, segments_of
from maskloop.segmentation.preprocess import images_to_batch, resized_size
from maskloop.selection.confidence import image_confidence
from maskloop.types import Prediction, RgbImage, SegmentationTask

__all__ = ["predict_images"]


def predict_images(
    checkpoint: Checkpoint,
    images: Sequence[RgbImage],
    *,
    task: SegmentationTask,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  # frozen
    max_batch: int = 8,
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

    Returns:
        One prediction per image, in the order of the images, masks in the images' own pixels.

    Raises:
        ImageError: an image is not uint8 (H, W, 3) or has no pixels.
    """
    predictions: dict[int, Prediction] = {}
    with torch.inference_mode():
        for indices in _groups(checkpoint, images, max_batch):
            batch = [images[index] for index in indices]
            for index, prediction in zip(
                indices, _predict_batch(checkpoint, batch, task, thresholds), strict=True
            ):
                predictions[index] = prediction
    return [predictions[index] for index in range(len(images))]


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


def _predict_batch(
    checkpoint: Checkpoint, images: Sequence[RgbImage], task: SegmentationTask, thresholds: Thresholds
) -> Iterator[Prediction]:
    batch = images_to_batch(images, checkpoint.preprocessing, checkpoint.device)
    words = {}
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
        segments = segments_of(task)(
            class_logits_qk,
            _cut_padding(output.masks_queries_logits[index], batch.valid_sizes_hw[index], padded_hw),
            labels=checkpoint.labels,
            thing_ids=checkpoint.thing_ids,
            thresholds=thresholds,
            size_hw=size_hw,
        )
        if thresholds.part > 0:
            segments = tuple(drop_specks(segment, thresholds.part) for segment in segments)
        if task is SegmentationTask.INSTANCE and thresholds.duplicate < 1:
            segments = drop_duplicates(segments, thresholds.duplicate)
        class_probs_qk = class_logits_qk.float().softmax(dim=-1).cpu().numpy().astype(np.float64)
        confidence = image_confidence(class_probs_qk, [segment.score for segment in segments])
        yield Prediction(segments=segments, size_hw=size_hw, confidence=confidence)


def _cut_padding(mask_logits_qhw: Tensor, valid_hw: tuple[int, int], padded_hw: Sequence[int]) -> Tensor:
    height, width = (
        round(valid * low / padded)
        for valid, low, padded in zip(valid_hw, mask_logits_qhw.shape[-2:], padded_hw, strict=True)
    )
    return mask_logits_qhw[:, : max(1, height), : max(1, width)]
