"""Whole images through a model: positions, sizes, company in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.fakes.models import columns_checkpoint
from torch.nn import functional

from maskloop.errors import ImageError
from maskloop.masks import paste_segment
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.types import RgbImage, SegmentationTask

LOW = Thresholds(score=0.05, overlap=0.0)


class BrightModel:
    """Stands in for a model that knows one thing, what is bright, and would call all padding bright too."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter(())

    def __call__(self, *, pixel_values: torch.Tensor, pixel_mask: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.shapes.append(tuple(pixel_values.shape))
        bright = functional.avg_pool2d(pixel_values[:, :1].masked_fill(pixel_mask[:, None] == 0, 1.0), 4)
        class_logits = torch.tensor([[[9.0, 0.0]]]).expand(len(pixel_values), 1, 2)
        return SimpleNamespace(class_queries_logits=class_logits, masks_queries_logits=(bright - 0.5) * 40)


@pytest.fixture
def bright(tiny_mask2former: Checkpoint) -> Checkpoint:
    return replace(
        tiny_mask2former,
        model=BrightModel(),
        labels=("bright",),
        thing_ids=frozenset({0}),
        preprocessing=Preprocessing(shortest_edge=96, longest_edge=200, mean=(0, 0, 0), std=(1, 1, 1)),
    )


SIZES = {
    "landscape": (101, 173),
    "portrait": (333, 127),
    "square": (64, 64),
    "large": (700, 901),
    "strip": (80, 411),
}


@pytest.mark.parametrize("task", SegmentationTask)
@pytest.mark.parametrize("size_hw", SIZES.values(), ids=SIZES.keys())
def test_predict_images_mask_lies_where_the_object_is(
    task: SegmentationTask, size_hw: tuple[int, int], bright: Checkpoint
) -> None:
    height, width = size_hw
    truth = np.zeros(size_hw, dtype=bool)
    truth[height // 4 : height // 2, width // 2 :] = True
    (prediction,) = predict_images(
        bright, [np.repeat(truth[:, :, None] * np.uint8(255), 3, axis=2)], task=task
    )
    (segment,) = prediction.segments
    mask = paste_segment(segment, size_hw)
    assert prediction.size_hw == size_hw
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_predict_images_padding_is_never_drawn(bright: Checkpoint) -> None:
    for prediction in predict_images(
        bright,
        [np.zeros((99, 150, 3), np.uint8), np.zeros((150, 99, 3), np.uint8)],
        task=SegmentationTask.INSTANCE,
    ):
        assert prediction.segments == ()


def test_predict_images_only_equal_sizes_share_a_pass(bright: Checkpoint) -> None:
    images = [np.zeros((h, w, 3), np.uint8) for h, w in [(96, 128), (128, 96), (192, 256), (96, 128)]]
    predict_images(bright, images, task=SegmentationTask.INSTANCE, max_batch=2)
    assert bright.model.shapes == [(2, 3, 96, 128), (1, 3, 96, 128), (1, 3, 128, 96)]


@pytest.mark.parametrize("task", SegmentationTask)
def test_predict_images_in_company_equals_alone(
    task: SegmentationTask, tiny: Checkpoint, make_image: Callable[..., RgbImage]
) -> None:
    checkpoint = served(tiny)
    images = [make_image(60, 90, 1), make_image(60, 90, 2), make_image(90, 60, 3), make_image(1, 1, 4)]
    together = predict_images(checkpoint, images, task=task, thresholds=LOW)
    for image, prediction in zip(images, together, strict=True):
        (alone,) = predict_images(checkpoint, [image], task=task, thresholds=LOW)
        assert prediction.size_hw == image.shape[:2]
        assert prediction.confidence == pytest.approx(alone.confidence, abs=1e-4)
        assert len(prediction.segments) == len(alone.segments)
        for first, second in zip(prediction.segments, alone.segments, strict=True):
            assert first.score == pytest.approx(second.score, abs=1e-4)
            difference = paste_segment(first, prediction.size_hw) != paste_segment(second, prediction.size_hw)
            assert difference.mean() < 0.01


def test_predict_images_oneformer_task_changes_the_question(
    tiny_oneformer: Checkpoint, make_image: Callable[..., RgbImage]
) -> None:
    checkpoint, asked = served(tiny_oneformer), []
    model = checkpoint.model
    spy = replace(checkpoint, model=lambda **inputs: asked.append(inputs["task_inputs"]) or model(**inputs))
    for task in SegmentationTask:
        predict_images(spy, [make_image()], task=task, max_batch=1)
    words = [
        checkpoint.task_text.tokenizer.decode(ids[0][ids[0] > 0], skip_special_tokens=True) for ids in asked
    ]
    assert [text.replace(" ", "") for text in words] == [
        "thetaskisinstance",
        "thetaskissemantic",
        "thetaskispanoptic",
    ]


def test_predict_images_none_is_none(tiny_mask2former: Checkpoint) -> None:
    assert predict_images(tiny_mask2former, [], task=SegmentationTask.INSTANCE) == []


@pytest.mark.parametrize("shape", [(5, 5), (0, 5, 3), (5, 5, 4)], ids=["grey", "no rows", "alpha"])
def test_predict_images_not_an_image_raises(shape: tuple[int, ...], tiny_mask2former: Checkpoint) -> None:
    images = [np.zeros((8, 8, 3), np.uint8), np.zeros(shape, np.uint8)]
    with pytest.raises(ImageError, match="expected uint8"):
        predict_images(tiny_mask2former, images, task=SegmentationTask.INSTANCE)


def served(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint as load_checkpoint gives it: OneFormer without its text encoder."""
    if checkpoint.family == "mask2former":
        return checkpoint
    from maskloop.lab.tiny_models import build_tiny_oneformer

    return build_tiny_oneformer(checkpoint.labels, seed=2)


@pytest.mark.parametrize(
    ("piece", "count"),
    [pytest.param(0.8, 2, id="dropped"), pytest.param(1.0, 3, id="kept by the setting")],
)
def test_predict_images_piece_of_an_object_is_dropped_and_part_of_another_label_stays(piece, count):
    stripes = [(0, 0.0, 0.8, 9.0), (0, 0.1, 0.3, 1.0), (1, 0.5, 0.7, 9.5)]
    (prediction,) = predict_images(
        columns_checkpoint(("coat", "button"), stripes),
        [np.zeros((64, 96, 3), np.uint8)],
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds(piece=piece),
    )
    assert [segment.label for segment in prediction.segments].count("button") == 1
    assert len(prediction.segments) == count
