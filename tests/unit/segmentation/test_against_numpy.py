"""Post-processing against a slow reference in plain NumPy, where transformers does something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Mask2FormerImageProcessorPil

from maskloop.masks import paste_segment
from maskloop.segmentation import predict as predict_module
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds, segments_of
from maskloop.segmentation.predict import predict_images
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.types import RgbImage, Segment, SegmentationTask

Logits = Callable[..., tuple[Tensor, Tensor]]
LABELS = ("circle", "square", "sky")
THINGS = (0, 1)
SIZES = {
    "twice": (12, 18),
    "odd": (23, 31),
    "portrait": (29, 11),
    "strip": (2, 41),
    "smaller": (4, 5),
    "one pixel": (1, 1),
}


@dataclass
class Found:
    """One segment of the reference."""

    label: str
    score: float
    mask_hw: np.ndarray


def upsample(values_hw: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Bilinear with pixel centres at the half, one pixel after the other."""
    low_h, low_w = values_hw.shape
    full_hw = np.zeros(size_hw)
    for y in range(size_hw[0]):
        source_y = min(max((y + 0.5) * low_h / size_hw[0] - 0.5, 0.0), low_h - 1.0)
        top = int(source_y)
        bottom, down = min(top + 1, low_h - 1), source_y - top
        for x in range(size_hw[1]):
            source_x = min(max((x + 0.5) * low_w / size_hw[1] - 0.5, 0.0), low_w - 1.0)
            left = int(source_x)
            right, along = min(left + 1, low_w - 1), source_x - left
            upper = values_hw[top, left] * (1 - along) + values_hw[top, right] * along
            lower = values_hw[bottom, left] * (1 - along) + values_hw[bottom, right] * along
            full_hw[y, x] = upper * (1 - down) + lower * down
    return full_hw


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def slow_instance(
    classes_qk: np.ndarray, masks_qhw: np.ndarray, limits: Thresholds, size_hw: tuple[int, int]
) -> list[Found]:
    found = []
    for row, logits_hw in zip(classes_qk, masks_qhw, strict=True):
        probs = softmax(row)[:-1]
        best = int(probs.argmax())
        probs_hw = sigmoid(upsample(logits_hw, size_hw))
        mask_hw = probs_hw > limits.mask_for(LABELS[best])
        if best in THINGS and mask_hw.any():
            score = probs[best] * probs_hw[mask_hw].mean()
            if score >= limits.score_for(LABELS[best]):
                found.append(Found(LABELS[best], score, mask_hw))
    return found


def slow_semantic(
    classes_qk: np.ndarray, masks_qhw: np.ndarray, limits: Thresholds, size_hw: tuple[int, int]
) -> list[Found]:
    sums_khw = np.zeros((len(LABELS), *masks_qhw.shape[1:]))
    for row, logits_hw in zip(classes_qk, masks_qhw, strict=True):
        for class_id, prob in enumerate(softmax(row)[:-1]):
            sums_khw[class_id] += prob * sigmoid(logits_hw)
    maps_khw = np.stack([upsample(sum_hw, size_hw) for sum_hw in sums_khw])
    coverage_hw = maps_khw.sum(axis=0)
    best_hw = maps_khw.argmax(axis=0)
    floors_k = np.array([limits.mask_for(label) for label in LABELS])
    winner_hw = np.where(coverage_hw >= floors_k[best_hw], best_hw, -1)
    found = []
    for class_id, label in enumerate(LABELS):
        mask_hw = winner_hw == class_id
        if mask_hw.any():
            score = (maps_khw[class_id] / np.maximum(coverage_hw, 1.0))[mask_hw].mean()
            if score >= limits.score_of_label.get(label, 0.0):
                found.append(Found(label, score, mask_hw))
    return found


def slow_panoptic(
    classes_qk: np.ndarray, masks_qhw: np.ndarray, limits: Thresholds, size_hw: tuple[int, int]
) -> list[Found]:
    kept = []
    for row, logits_hw in zip(classes_qk, masks_qhw, strict=True):
        probs = softmax(row)
        best = int(probs.argmax())
        if best < len(LABELS) and probs[best] > limits.score_for(LABELS[best]):
            kept.append((best, probs[best], sigmoid(upsample(logits_hw, size_hw))))
    if not kept:
        return []
    owner_hw = np.stack([score * probs_hw for _, score, probs_hw in kept]).argmax(axis=0)
    found: list[Found] = []
    for index, (class_id, score, probs_hw) in enumerate(kept):
        own_hw = probs_hw >= limits.mask_for(LABELS[class_id])
        won_hw = owner_hw == index
        mask_hw = own_hw & won_hw
        if not own_hw.any() or not mask_hw.any():
            continue
        if won_hw.sum() / own_hw.sum() < limits.overlap_for(LABELS[class_id]):
            continue
        same = [entry for entry in found if entry.label == LABELS[class_id] and class_id not in THINGS]
        if same:
            same[0].mask_hw |= mask_hw
            same[0].score = max(same[0].score, score)
        else:
            found.append(Found(LABELS[class_id], score, mask_hw))
    return found


SLOW = {
    SegmentationTask.INSTANCE: slow_instance,
    SegmentationTask.SEMANTIC: slow_semantic,
    SegmentationTask.PANOPTIC: slow_panoptic,
}
LIMITS = {
    "low": Thresholds(score=0.2, overlap=0.0),
    "default": Thresholds(),
    "strict mask": Thresholds(score=0.1, mask=0.7, overlap=0.5),
    "by label": Thresholds(score=0.1, overlap=0.0, score_of_label={"circle": 0.7, "sky": 0.6}),
    "masks by label": Thresholds(
        score=0.1,
        mask_of_label={"circle": 0.75, "sky": 0.3},
        overlap_of_label={"circle": 0.2, "sky": 0.9},
    ),
}


def random_logits(seed: int, queries: int = 9, side_hw: tuple[int, int] = (6, 9)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    class_logits_qk = torch.randn(queries, len(LABELS) + 1, generator=generator) * 3
    return class_logits_qk, torch.randn(queries, *side_hw, generator=generator) * 4


def run(
    task: SegmentationTask, logits: tuple[Tensor, Tensor], limits: Thresholds, size_hw: tuple[int, int]
) -> tuple[Segment, ...]:
    return segments_of(task)(
        logits[0], logits[1], labels=LABELS, thing_ids=THINGS, thresholds=limits, size_hw=size_hw
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
@pytest.mark.parametrize("size_hw", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("task", SegmentationTask)
def test_segments_equal_the_slow_reference(
    task: SegmentationTask, size_hw: tuple[int, int], limits: Thresholds, seed: int
) -> None:
    logits = random_logits(seed)
    expected = SLOW[task](logits[0].double().numpy(), logits[1].double().numpy(), limits, size_hw)
    expected.sort(key=lambda entry: -entry.score)
    found = run(task, logits, limits, size_hw)
    assert [segment.label for segment in found] == [entry.label for entry in expected]
    for segment, entry in zip(found, expected, strict=True):
        assert segment.score == pytest.approx(entry.score, abs=1e-5)
        assert np.array_equal(paste_segment(segment, size_hw), entry.mask_hw)


@pytest.mark.parametrize("task", SegmentationTask)
def test_the_reference_finds_something_to_compare(task: SegmentationTask) -> None:
    logits = [part.double().numpy() for part in random_logits(0)]
    assert len(SLOW[task](*logits, LIMITS["low"], SIZES["odd"])) >= 2


def as_outputs(logits: tuple[Tensor, Tensor]) -> SimpleNamespace:
    return SimpleNamespace(class_queries_logits=logits[0][None], masks_queries_logits=logits[1][None])


def test_panoptic_segments_leave_the_background_that_transformers_fills(make_logits: Logits) -> None:
    logits = make_logits([(0, (4, 4, 8, 8))], classes=3)
    theirs = Mask2FormerImageProcessorPil().post_process_panoptic_segmentation(
        as_outputs(logits), label_ids_to_fuse=set(), target_sizes=[(64, 64)]
    )[0]
    assert (theirs["segmentation"] == 1).all()
    (segment,) = run(SegmentationTask.PANOPTIC, logits, Thresholds(), (64, 64))
    (entry,) = slow_panoptic(*(part.double().numpy() for part in logits), Thresholds(), (64, 64))
    assert np.array_equal(paste_segment(segment, (64, 64)), entry.mask_hw)
    assert entry.mask_hw.mean() < 0.1


def test_instance_segments_keep_apart_the_overlap_that_transformers_collapses(make_logits: Logits) -> None:
    logits = make_logits([(0, (2, 2, 10, 10)), (0, (6, 6, 14, 14))], classes=3)
    theirs = Mask2FormerImageProcessorPil().post_process_instance_segmentation(
        as_outputs(logits), target_sizes=[(64, 64)]
    )[0]["segmentation"]
    found = run(SegmentationTask.INSTANCE, logits, Thresholds(), (64, 64))
    areas = [int(entry.mask_hw.sum()) for entry in slow_instance(*to_numpy(logits), Thresholds(), (64, 64))]
    assert sorted(segment.area for segment in found) == sorted(areas)
    assert min(int((theirs == index).sum()) for index in (0, 1)) < 0.8 * min(areas)


def to_numpy(logits: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return logits[0].double().numpy(), logits[1].double().numpy()


def test_instance_segments_give_one_class_where_transformers_gives_two(make_logits: Logits) -> None:
    class_logits_qk, mask_logits_qhw = make_logits([(0, (2, 2, 10, 10)), (None, (0, 0, 1, 1))], classes=3)
    class_logits_qk[0] = torch.tensor([6.0, 5.9, -9.0, -9.0])
    logits = (class_logits_qk, mask_logits_qhw)
    theirs = Mask2FormerImageProcessorPil().post_process_instance_segmentation(
        as_outputs(logits), threshold=0.3
    )[0]
    assert sorted(info["label_id"] for info in theirs["segments_info"]) == [0, 1]
    found = run(SegmentationTask.INSTANCE, logits, Thresholds(score=0.3), (64, 64))
    assert [segment.label for segment in found] == ["circle"]


EDGES = {"steep": (0.9, 0.31), "flat": (0.12, 1.0), "diagonal": (1.0, -1.0)}


@pytest.mark.parametrize("slope_yx", EDGES.values(), ids=EDGES.keys())
@pytest.mark.parametrize("task", [SegmentationTask.INSTANCE, SegmentationTask.PANOPTIC])
def test_segments_edge_is_straight_to_the_pixel_at_full_resolution(
    task: SegmentationTask, slope_yx: tuple[float, float]
) -> None:
    """A plane of logits is a half-plane of the image: every pixel of its edge is known without upsampling."""
    size_hw, low_hw = (540, 960), (100, 178)

    def plane(shape_hw: tuple[int, int]) -> np.ndarray:
        rows = (np.arange(shape_hw[0]) + 0.5) / shape_hw[0] * size_hw[0] - size_hw[0] / 2
        columns = (np.arange(shape_hw[1]) + 0.5) / shape_hw[1] * size_hw[1] - size_hw[1] / 2
        return slope_yx[0] * rows[:, None] + slope_yx[1] * columns[None] - 0.37

    mask_logits_qhw = torch.from_numpy(plane(low_hw)).float()[None]
    logits = (torch.tensor([[9.0, -9.0, -9.0, -9.0]]), mask_logits_qhw)
    (segment,) = run(task, logits, Thresholds(), size_hw)
    inside = np.s_[6:-6, 6:-6]  # beyond the outermost centres the plane is cut off
    truth_hw = plane(size_hw)[inside] > 0
    assert np.count_nonzero(paste_segment(segment, size_hw)[inside] != truth_hw) <= 2
    theirs = Mask2FormerImageProcessorPil().post_process_instance_segmentation(
        as_outputs(logits), target_sizes=[size_hw], return_binary_maps=True
    )[0]["segmentation"][0]
    assert np.count_nonzero(theirs.bool().numpy()[inside] != truth_hw) > 100


class LocalModel:
    """Stands in for a model that looks only at a spot and knows one thing: what is bright."""

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter(())

    def __call__(self, *, pixel_values: Tensor, **_: Any) -> SimpleNamespace:
        bright_bhw = functional.avg_pool2d(pixel_values[:, :1], 4)
        class_logits = torch.tensor([[[9.0, 0.0]]]).expand(len(pixel_values), 1, 2)
        return SimpleNamespace(
            class_queries_logits=class_logits, masks_queries_logits=(bright_bhw - 0.5) * 40
        )


@pytest.fixture
def local(tiny_mask2former: Checkpoint) -> Checkpoint:
    return replace(
        tiny_mask2former,
        model=LocalModel(),
        labels=("bright",),
        thing_ids=frozenset({0}),
        preprocessing=Preprocessing(shortest_edge=96, longest_edge=200, mean=(0, 0, 0), std=(1, 1, 1)),
    )


def disc(size_hw: tuple[int, int], radius: float = 0.3) -> np.ndarray:
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    centre_y, centre_x = size_hw[0] * 0.6, size_hw[1] * 0.6
    return (rows - centre_y) ** 2 + (columns - centre_x) ** 2 <= (radius * min(size_hw)) ** 2


def as_image(mask_hw: np.ndarray) -> RgbImage:
    return np.repeat(mask_hw[:, :, None] * np.uint8(255), 3, axis=2)


@pytest.mark.parametrize("task", SegmentationTask)
@pytest.mark.parametrize("size_hw", [(50, 77), (77, 50), (96, 200)], ids=["landscape", "portrait", "strip"])
def test_predict_images_padded_beside_a_larger_image_gives_the_same_masks(
    task: SegmentationTask, size_hw: tuple[int, int], local: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = as_image(disc(size_hw)), as_image(disc((170, 170)))
    (alone,) = predict_images(local, [small], task=task)
    monkeypatch.setattr(predict_module, "_groups", lambda *_: [[0, 1]])  # else they would not share a batch
    padded, _ = predict_images(local, [small, large], task=task)
    (first,), (second,) = alone.segments, padded.segments
    assert first.box_yxyx == second.box_yxyx
    assert np.array_equal(first.mask_hw, second.mask_hw)
    assert iou(paste_segment(second, size_hw), disc(size_hw)) > 0.9


def iou(first_hw: np.ndarray, second_hw: np.ndarray) -> float:
    return float((first_hw & second_hw).sum() / (first_hw | second_hw).sum())


ASPECTS = {
    "edges": Preprocessing(shortest_edge=96, longest_edge=200, mean=(0, 0, 0), std=(1, 1, 1)),
    "fixed size": Preprocessing(shortest_edge=None, box_hw=(128, 128), mean=(0, 0, 0), std=(1, 1, 1)),
    "padded square": Preprocessing(
        shortest_edge=None, box_hw=(128, 128), pad_hw=(128, 128), mean=(0, 0, 0), std=(1, 1, 1)
    ),
}


@pytest.mark.parametrize("preprocessing", ASPECTS.values(), ids=ASPECTS.keys())
@pytest.mark.parametrize("size_hw", [(90, 61), (200, 300), (400, 100)], ids=str)
def test_predict_images_a_disc_stays_a_disc(
    size_hw: tuple[int, int], preprocessing: Preprocessing, local: Checkpoint
) -> None:
    (prediction,) = predict_images(
        replace(local, preprocessing=preprocessing),
        [as_image(disc(size_hw))],
        task=SegmentationTask.INSTANCE,
    )
    (segment,) = prediction.segments
    top, left, bottom, right = segment.box_yxyx
    assert abs((bottom - top) - (right - left)) <= max(3, 0.08 * (right - left))
    assert iou(paste_segment(segment, size_hw), disc(size_hw)) > 0.9
