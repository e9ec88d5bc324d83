"""Inputs of image selection: signals, views mapped back, an embedding; segments stay as they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.waiting import until
from torch.nn import functional

from maskloop.lab.tiny_models import (
    TINY,
    build_tiny_eomt,
    build_tiny_mask2former,
    build_tiny_maskformer,
    build_tiny_oneformer,
)
from maskloop.masks import paste_segment
from maskloop.segmentation import engine as engine_module
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.embedding import EMBEDDING_SIZE
from maskloop.segmentation.engine import Engine
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.segmentation.test_time_views import ViewPlan, unmirror, view_image, view_model, view_prediction
from maskloop.types import Prediction, RgbImage, Segment, SegmentationTask, Signals

LOW = Thresholds(score=0.05, overlap=0.0)
INSTANCE = SegmentationTask.INSTANCE


class SideModel:
    """Knows what is bright, and calls it by the side of the image it stands on."""

    config = SimpleNamespace()  # of a family without a grid of patches

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter(())

    def __call__(self, *, pixel_values: torch.Tensor, **_: Any) -> SimpleNamespace:
        bright = functional.avg_pool2d(pixel_values[:, :1], 4)
        half = bright.shape[-1] // 2
        on_left = bright[..., :half].sum(dim=(1, 2, 3)) > bright[..., half:].sum(dim=(1, 2, 3))
        logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])[(~on_left).long()][:, None]
        return SimpleNamespace(class_queries_logits=logits, masks_queries_logits=(bright - 0.5) * 40)


@pytest.fixture
def sided(tiny_mask2former: Checkpoint) -> Checkpoint:
    return replace(
        tiny_mask2former,
        model=SideModel(),
        labels=("left lamp", "right lamp"),
        thing_ids=frozenset({0, 1}),
        preprocessing=Preprocessing(shortest_edge=96, longest_edge=300, mean=(0, 0, 0), std=(1, 1, 1)),
    )


@pytest.fixture
def lamp() -> RgbImage:
    """Something bright on the left, far from the middle and of no symmetry."""
    image = np.zeros((96, 160, 3), np.uint8)
    image[8:40, 12:44] = 255
    image[40:72, 12:28] = 255
    return image


@pytest.fixture
def served(tiny: Checkpoint) -> Checkpoint:
    """Each family as load_checkpoint gives it: OneFormer without its text encoder."""
    return tiny if tiny.family == "mask2former" else build_tiny_oneformer(tiny.labels, seed=2)


def studied(checkpoint: Checkpoint, images: list[RgbImage], **options: Any) -> list[Prediction]:
    found = predict_images(
        checkpoint, images, **{"task": INSTANCE, "thresholds": LOW, "for_selection": True} | options
    )
    assert all(prediction.selection_inputs is not None for prediction in found)
    return found


def signals_of(prediction: Prediction) -> dict[str, float]:
    return {field.name: getattr(prediction.selection_inputs.signals, field.name) for field in fields(Signals)}


def same_segments(first: Prediction, second: Prediction) -> bool:
    return len(first.segments) == len(second.segments) and all(
        (one.label, one.offset_yx) == (other.label, other.offset_yx)
        and one.score == pytest.approx(other.score, abs=1e-5)
        and np.array_equal(one.mask_hw, other.mask_hw)
        for one, other in zip(first.segments, second.segments, strict=True)
    )


@pytest.mark.parametrize("task", SegmentationTask)
def test_study_leaves_the_segments_and_fills_the_study(
    task: SegmentationTask, served: Checkpoint, make_image: Callable[..., RgbImage]
) -> None:
    images = [make_image(60, 90, seed) for seed in range(2)]
    plain = predict_images(served, images, task=task, thresholds=LOW)
    for before, after in zip(plain, studied(served, images, task=task), strict=True):
        assert before.selection_inputs is None
        assert same_segments(before, after)
        assert all(0.0 <= value <= 1.0 for value in signals_of(after).values())
        embedding_d = after.selection_inputs.embedding_d
        assert embedding_d.dtype == np.float32
        assert 8 < embedding_d.size <= EMBEDDING_SIZE
        assert np.linalg.norm(embedding_d) == pytest.approx(1.0, abs=1e-5)


def test_study_without_views_has_the_confidence_of_a_plain_prediction(
    served: Checkpoint, make_image: Callable[..., RgbImage]
) -> None:
    (plain,) = predict_images(served, [make_image()], task=INSTANCE, thresholds=LOW)
    (found,) = studied(served, [make_image()], plan=ViewPlan(count=0))
    assert found.selection_inputs.signals.disagreement is None
    assert found.confidence == plain.confidence


@pytest.mark.parametrize("task", SegmentationTask)
def test_study_in_another_order_and_company_is_the_same(
    task: SegmentationTask, served: Checkpoint, make_image: Callable[..., RgbImage]
) -> None:
    images = [make_image(60, 90, 1), make_image(90, 60, 2), make_image(60, 90, 3), make_image(61, 90, 4)]
    one = studied(served, images, task=task)
    other = studied(served, images[::-1], task=task, max_batch=1)[::-1]
    for first, second in zip(one, other, strict=True):
        assert signals_of(first) == pytest.approx(signals_of(second), abs=2e-2)
        assert first.selection_inputs.embedding_d == pytest.approx(
            second.selection_inputs.embedding_d, abs=1e-3
        )


@pytest.mark.parametrize("task", SegmentationTask)
def test_study_black_image_stays_in_range(task: SegmentationTask, served: Checkpoint) -> None:
    (found,) = studied(served, [np.zeros((33, 47, 3), np.uint8)], task=task)
    assert all(0.0 <= value <= 1.0 for value in signals_of(found).values())
    assert np.isfinite(found.selection_inputs.embedding_d).all()


def test_study_of_no_image_is_none(tiny_mask2former: Checkpoint) -> None:
    assert studied(tiny_mask2former, []) == []


def test_study_nothing_found_has_no_doubt(sided: Checkpoint) -> None:
    (found,) = studied(sided, [np.zeros((96, 160, 3), np.uint8)])
    assert found.segments == ()
    assert found.confidence == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("task", SegmentationTask)
@pytest.mark.parametrize("count", [1, 2])
def test_study_model_that_is_right_from_every_side_agrees_with_itself(
    count: int, task: SegmentationTask, sided: Checkpoint, lamp: RgbImage
) -> None:
    (found,) = studied(sided, [lamp], task=task, plan=ViewPlan(count=count))
    assert [segment.label for segment in found.segments] == ["left lamp"]
    assert found.selection_inputs.signals.disagreement < 0.2


def test_study_labels_that_do_not_swap_make_the_mirror_disagree(sided: Checkpoint, lamp: RgbImage) -> None:
    (found,) = studied(sided, [lamp], plan=ViewPlan(count=2, pairs=()))
    assert found.selection_inputs.signals.disagreement > 0.4


def test_mirrored_view_maps_back_pixel_for_pixel(sided: Checkpoint, lamp: RgbImage) -> None:
    wide = replace(sided, preprocessing=replace(sided.preprocessing, shortest_edge=None, longest_edge=None))
    (straight,) = predict_images(wide, [lamp], task=INSTANCE)
    (turned,) = predict_images(wide, [view_image(lamp, "mirrored")], task=INSTANCE)
    back = view_prediction(turned, "mirrored", wide.labels, ViewPlan())
    assert not same_segments(straight, turned)
    assert same_segments(straight, back)
    assert paste_segment(back.segments[0], (96, 160))[:, 80:].sum() == 0


def test_unmirror_twice_is_as_before(make_segment: Callable[..., Segment]) -> None:
    segment = replace(make_segment(), mask_hw=np.random.default_rng(0).random((8, 10)) > 0.5)
    said = Prediction(segments=(segment,), size_hw=(32, 48), confidence=1.0)
    once = unmirror(said, {})
    assert np.array_equal(
        paste_segment(once.segments[0], (32, 48)), paste_segment(segment, (32, 48))[:, ::-1]
    )
    assert same_segments(unmirror(once, {}), said)


def test_smaller_view_shows_the_model_fewer_pixels(sided: Checkpoint, lamp: RgbImage) -> None:
    seen: list[torch.Size] = []
    model = sided.model
    spy = replace(
        sided, model=lambda **inputs: seen.append(inputs["pixel_values"].shape[-2:]) or model(**inputs)
    )
    predict_images(view_model(spy, "smaller"), [lamp], task=INSTANCE, max_batch=1)
    predict_images(spy, [lamp], task=INSTANCE, max_batch=1)
    assert seen == [(96, 128), (96, 160)]  # 72 x 120, padded


def test_embedding_is_alike_in_the_mirror_and_not_for_another_image(
    served: Checkpoint, make_image: Callable[..., RgbImage]
) -> None:
    image = make_image(64, 96) // 2
    image[:, :48] //= 4
    other = np.full((64, 96, 3), (250, 30, 90), np.uint8)
    here, turned, there = (
        found.selection_inputs.embedding_d
        for found in studied(served, [image, view_image(image, "mirrored"), other])
    )
    assert here @ turned > 0.9
    assert here @ turned > here @ there + 0.05


@pytest.mark.parametrize("build", [build_tiny_maskformer, build_tiny_eomt], ids=["maskformer", "eomt"])
def test_study_of_the_other_families(
    build: Callable[..., Checkpoint], make_image: Callable[..., RgbImage]
) -> None:
    checkpoint = build(("circle", "square"), seed=3)
    for found in studied(checkpoint, [make_image(60, 90, seed) for seed in range(2)]):
        assert found.selection_inputs.signals.disagreement is not None
        assert found.selection_inputs.embedding_d.size > 64


def test_embedding_of_a_wide_model_is_short(make_image: Callable[..., RgbImage]) -> None:
    wide = build_tiny_mask2former(("a",), seed=0, tiny=replace(TINY, hidden=128, feedforward=64))
    (found,) = studied(wide, [make_image()])
    assert found.selection_inputs.embedding_d.shape == (EMBEDDING_SIZE,)


def test_submit_study_and_plain_share_no_batch(
    monkeypatch: pytest.MonkeyPatch, cat_dog_folders: dict[str, Any], make_image: Callable[..., RgbImage]
) -> None:
    asked: list[tuple[int, bool, int]] = []
    all_wait, real = threading.Event(), engine_module.forward_batch

    def forward(checkpoint: Checkpoint, ready: list[Any], **options: Any) -> Any:
        asked.append((len(ready), options["for_selection"], options["plan"].count))
        assert all_wait.wait(30)
        return real(checkpoint, ready, **options)

    monkeypatch.setattr(engine_module, "forward_batch", forward)
    source = str(cat_dog_folders["cat"])
    plan = ViewPlan(count=0)
    with Engine(task=INSTANCE, thresholds=LOW, max_batch=4, device="cpu", plan=plan, helpers=1) as engine:
        first = engine.submit([make_image(20, 90)], source=source)  # of another size
        until(lambda: asked)
        futures = [
            engine.submit([make_image()], source=source, for_selection=for_selection)
            for for_selection in (True, False, True)
        ]
        until(lambda: engine.ready == 3)
        all_wait.set()
        answers = [future.result(30)[0] for future in futures]
        first.result(30)
    assert asked[1:] == [(2, True, 0), (1, False, 0)]
    assert [answer.selection_inputs is not None for answer in answers] == [True, False, True]
