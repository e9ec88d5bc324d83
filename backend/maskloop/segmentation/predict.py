"""From images to predictions, in three stages: resize, forward, then cut off padding and post-process.

Only the second needs the model; a server runs the first and third in other threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskloop.cores import on_cores
from maskloop.masks import drop_duplicates, drop_pieces, drop_specks
from maskloop.segmentation.batch_size import batch_limit
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.embedding import image_embedding
from maskloop.segmentation.families import patch_grid
from maskloop.segmentation.fast.forward import forward_pass
from maskloop.segmentation.image_look import image_look
from maskloop.segmentation.postprocess import Thresholds, segments_of
from maskloop.segmentation.preprocess import Batch, ResizedImage, join_batch, resize_image, resized_size
from maskloop.segmentation.test_time_views import ViewPlan, view_image, view_model, view_prediction
from maskloop.segmentation.uncertainty import (
    Uncertainty,
    disagreement,
    image_confidence,
    image_uncertainty,
)
from maskloop.types import Prediction, RgbImage, SegmentationTask, SelectionInputs

__all__ = [
    "PreparedViews",
    "RawOutput",
    "forward_batch",
    "forward_sizes",
    "postprocess_image",
    "predict_images",
    "prepare_image",
    "run_model",
]

PreparedViews: TypeAlias = tuple[ResizedImage, ...]  # one image: itself, then each view for selection


@dataclass(frozen=True, kw_only=True, eq=False)
class RawOutput:
    """One image's part of the output of a forward pass, still on the model's device."""

    class_logits_qk: Tensor
    mask_logits_qhw: Tensor  # of the padded input
    valid_hw: tuple[int, int]  # the image's part of it
    padded_hw: tuple[int, int]
    size_hw: tuple[int, int]  # before resizing
    output: Any  # of the whole batch, where features are needed or kept; else None
    index: int  # in it
    for_selection: bool = False  # an embedding is made from the output
    pixels_chw: Tensor | None = None  # uint8, the image as it was resized, on the CPU; with the output


@dataclass(frozen=True, kw_only=True, eq=False)
class _ImageOutput:
    """What is derived from one forward pass of an image."""

    prediction: Prediction
    uncertainty: Uncertainty
    embedding_d: NDArray[np.float32] | None  # None without features
    look_k: NDArray[np.float32] | None  # the same


def predict_images(
    checkpoint: Checkpoint,
    images: Sequence[RgbImage],
    *,
    task: SegmentationTask,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  # frozen
    max_batch: int | None = None,
    for_selection: bool = False,
    plan: ViewPlan = ViewPlan(),  # noqa: B008  # frozen
) -> list[Prediction]:
    """Return the prediction of each image.

    The models ignore the pixel mask (transformers #37909), so what stands in the padding of an image
    would change its result. Only images that are resized to equal sizes share a forward pass, unless all
    are padded to one size anyway, so an image's result does not depend on the other images of its batch.

    Args:
        checkpoint: the model.
        images: uint8 (H, W, 3), upright RGB, any sizes; may be none.
        task: which post-processing, and the task token of OneFormer.
        thresholds: what counts.
        max_batch: images in one forward pass; None: by model and device.
        for_selection: with the inputs of image selection; one more forward pass for each view, same segments.
        plan: which views.

    Returns:
        One prediction per image, in the order of the images, masks in the images' own pixels.

    Raises:
        ImageError: an image is not uint8 (H, W, 3) or has no pixels.
    """
    predictions: dict[int, Prediction] = {}
    for indices in _groups(checkpoint, images, max_batch or batch_limit(checkpoint), for_selection, plan):
        ready = [
            prepare_image(checkpoint, images[index], for_selection=for_selection, plan=plan)
            for index in indices
        ]
        seen = forward_batch(checkpoint, ready, task=task, for_selection=for_selection, plan=plan)
        for index in indices:
            raws = seen.pop(0)  # an image's logits go with it
            predictions[index] = postprocess_image(
                checkpoint, raws, task=task, thresholds=thresholds, for_selection=for_selection, plan=plan
            )
    return [predictions[index] for index in range(len(images))]


def prepare_image(
    checkpoint: Checkpoint, image: RgbImage, *, for_selection: bool, plan: ViewPlan
) -> PreparedViews:
    """Return an image resized for each forward pass of a prediction; uses neither model nor device.

    Args:
        checkpoint: the model.
        image: uint8 (H, W, 3), upright RGB, any size.
        for_selection: with the views for selection.
        plan: which ones.

    Raises:
        ImageError: the image is not uint8 (H, W, 3) or has no pixels.
    """
    with torch.inference_mode():
        return (
            resize_image(image, checkpoint.preprocessing),
            *(
                resize_image(view_image(image, view), view_model(checkpoint, view).preprocessing)
                for view in (plan.views if for_selection else ())
            ),
        )


def forward_batch(
    checkpoint: Checkpoint,
    ready: Sequence[PreparedViews],
    *,
    task: SegmentationTask,
    for_selection: bool,
    plan: ViewPlan,
    keep_output: bool = False,
) -> list[tuple[RawOutput, ...]]:
    """Return the outputs for some images, one forward pass for each view; asynchronous on CUDA.

    Args:
        checkpoint: the model.
        ready: at least one image, all of one size (see `predict_images`).
        task: OneFormer's task token.
        for_selection: with the features that an embedding is made from, and the views.
        plan: which views.
        keep_output: the first forward pass's raw outputs carry the model's own output.
    """
    with torch.inference_mode():
        first = [views[0] for views in ready]
        outputs = [_forward(checkpoint, first, task, features=for_selection, keep_output=keep_output)]
        for number, view in enumerate(plan.views if for_selection else (), start=1):
            shown = [views[number] for views in ready]
            outputs.append(_forward(view_model(checkpoint, view), shown, task, features=False))
    return list(zip(*outputs, strict=True))


def run_model(checkpoint: Checkpoint, batch: Batch, task: SegmentationTask, *, features: bool = False) -> Any:
    """Return the model's own output of a forward pass, on its device; asynchronous on CUDA.

    Args:
        checkpoint: the model.
        batch: the input.
        task: OneFormer's task token.
        features: with the hidden states that an embedding is made from.
    """
    words = None
    if checkpoint.task_text is not None:
        count = len(batch.pixel_values_bchw)
        words = checkpoint.task_text.task_inputs(task, count, checkpoint.device)
    with torch.inference_mode():
        return forward_pass(
            checkpoint.model,
            batch.pixel_values_bchw,
            batch.pixel_mask_bhw,
            words,
            plan=checkpoint.plan,
            features=features,
        )


def postprocess_image(
    checkpoint: Checkpoint,
    raws: Sequence[RawOutput],
    *,
    task: SegmentationTask,
    thresholds: Thresholds,
    for_selection: bool,
    plan: ViewPlan,
) -> Prediction:
    """Return the prediction of one image from its outputs; options as for the forward pass.

    It computes on one core: a mask after the other, each in strips, takes no longer by it and half the
    processor time.
    """
    with torch.inference_mode(), on_cores(1):
        first, *others = [_read_output(checkpoint, raw, task, thresholds) for raw in raws]
    if not for_selection:
        return first.prediction
    seen = [
        view_prediction(other.prediction, view, checkpoint.labels, plan)
        for other, view in zip(others, plan.views, strict=True)
    ]
    return _with_selection_inputs(first, seen)


def _with_selection_inputs(output: _ImageOutput, views: Sequence[Prediction]) -> Prediction:
    signals = replace(output.uncertainty.signals, disagreement=disagreement(output.prediction, views))
    assert output.embedding_d is not None
    return replace(
        output.prediction,
        confidence=image_confidence(signals, output.uncertainty.objects),
        selection_inputs=SelectionInputs(
            signals=signals, embedding_d=output.embedding_d, look_k=output.look_k
        ),
    )


def forward_sizes(
    checkpoint: Checkpoint, size_hw: tuple[int, int], *, for_selection: bool, plan: ViewPlan
) -> tuple[tuple[int, int], ...]:
    """Return the sizes of an image's forward passes; images that have them in common may share these.

    Args:
        checkpoint: the model.
        size_hw: of the image.
        for_selection: with the views for selection.
        plan: which ones.
    """
    models = [checkpoint, *(view_model(checkpoint, view) for view in (plan.views if for_selection else ()))]
    return tuple(model.preprocessing.pad_hw or resized_size(size_hw, model.preprocessing) for model in models)


def _groups(
    checkpoint: Checkpoint, images: Sequence[RgbImage], max_batch: int, for_selection: bool, plan: ViewPlan
) -> Iterator[list[int]]:
    groups: dict[object, list[int]] = {}
    for index, image in enumerate(images):
        usable = image.ndim == 3 and min(image.shape) > 0
        size_hw = (image.shape[0], image.shape[1]) if usable else (1, 1)
        key = forward_sizes(checkpoint, size_hw, for_selection=for_selection, plan=plan)
        groups.setdefault(key, []).append(index)
    for indices in groups.values():
        for start in range(0, len(indices), max_batch):
            yield indices[start : start + max_batch]


def _forward(
    checkpoint: Checkpoint,
    ready: Sequence[ResizedImage],
    task: SegmentationTask,
    *,
    features: bool,
    keep_output: bool = False,
) -> list[RawOutput]:
    batch = join_batch(ready, checkpoint.preprocessing, checkpoint.device)
    output = run_model(checkpoint, batch, task, features=features)
    padded_h, padded_w = batch.pixel_values_bchw.shape[-2:]
    return [
        RawOutput(
            class_logits_qk=output.class_queries_logits[index],
            mask_logits_qhw=output.masks_queries_logits[index],
            valid_hw=batch.valid_sizes_hw[index],
            padded_hw=(padded_h, padded_w),
            size_hw=size_hw,
            output=output if features or keep_output else None,
            index=index,
            for_selection=features,
            pixels_chw=ready[index].pixels_chw if features or keep_output else None,
        )
        for index, size_hw in enumerate(batch.image_sizes_hw)
    ]


def _read_output(
    checkpoint: Checkpoint, raw: RawOutput, task: SegmentationTask, thresholds: Thresholds
) -> _ImageOutput:
    mask_logits_qhw = _cut_padding(raw.mask_logits_qhw, raw.valid_hw, raw.padded_hw)
    thing_ids = _thing_ids(checkpoint, thresholds)
    segments = segments_of(task)(
        raw.class_logits_qk,
        mask_logits_qhw,
        labels=checkpoint.labels,
        thing_ids=thing_ids,
        thresholds=thresholds,
        size_hw=raw.size_hw,
    )
    if thresholds.part > 0:
        segments = tuple(drop_specks(segment, thresholds.part) for segment in segments)
    if task is SegmentationTask.INSTANCE and thresholds.duplicate < 1:
        segments = drop_duplicates(segments, thresholds.duplicate)
    if task is SegmentationTask.INSTANCE and thresholds.piece < 1:
        segments = drop_pieces(segments, thresholds.piece)
    uncertainty = image_uncertainty(
        raw.class_logits_qk,
        mask_logits_qhw,
        task=task,
        labels=checkpoint.labels,
        thing_ids=thing_ids,
        thresholds=thresholds,
    )
    prediction = Prediction(
        segments=segments,
        size_hw=raw.size_hw,
        confidence=image_confidence(uncertainty.signals, uncertainty.objects),
    )
    return _ImageOutput(
        prediction=prediction,
        uncertainty=uncertainty,
        embedding_d=_embedding(checkpoint, raw),
        look_k=image_look(raw.pixels_chw) if raw.for_selection and raw.pixels_chw is not None else None,
    )


def _thing_ids(checkpoint: Checkpoint, thresholds: Thresholds) -> frozenset[int]:
    stuff = checkpoint.stuff_labels(thresholds.kinds)
    return frozenset(index for index, label in enumerate(checkpoint.labels) if label not in stuff)


def _embedding(checkpoint: Checkpoint, raw: RawOutput) -> NDArray[np.float32] | None:
    if not raw.for_selection:
        return None
    share_hw = (raw.valid_hw[0] / raw.padded_hw[0], raw.valid_hw[1] / raw.padded_hw[1])
    grid_hw = patch_grid(checkpoint.family, checkpoint.model.config)
    return image_embedding(raw.output, raw.index, share_hw, grid_hw)


def _cut_padding(mask_logits_qhw: Tensor, valid_hw: tuple[int, int], padded_hw: Sequence[int]) -> Tensor:
    height, width = (
        round(valid * low / padded)
        for valid, low, padded in zip(valid_hw, mask_logits_qhw.shape[-2:], padded_hw, strict=True)
    )
    return mask_logits_qhw[:, : max(1, height), : max(1, width)]
