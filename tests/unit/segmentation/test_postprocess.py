"""Segments from logits drawn by hand, and against transformers where that is right."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Mask2FormerImageProcessorPil

from maskloop.masks import paste_segment
from maskloop.segmentation import postprocess
from maskloop.segmentation.postprocess import (
    Thresholds,
    instance_segments,
    panoptic_segments,
    segments_of,
    semantic_segments,
)
from maskloop.types import SegmentationTask

LABELS = ("circle", "square")
Logits = Callable[..., tuple[Tensor, Tensor]]
SIZES = {"same": (384, 384), "portrait": (611, 203), "small": (50, 77), "one pixel": (1, 1)}


def everything(
    logits: tuple[Tensor, Tensor], size_hw=(64, 64), thing_ids=(0, 1), **thresholds: float
) -> dict:
    return {
        "class_logits_qk": logits[0],
        "mask_logits_qhw": logits[1],
        "labels": tuple(f"class{index}" for index in range(logits[0].shape[1] - 1)),
        "thing_ids": thing_ids,
        "thresholds": Thresholds(**thresholds),
        "size_hw": size_hw,
    }


def random_logits(
    queries: int = 12, classes: int = 4, side: int = 384, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return smooth blobs, some sure of themselves; 384 is where transformers' own resizing does nothing."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = torch.randn(queries, classes + 1, generator=generator) * 3
    coarse = torch.randn(1, queries, 6, 6, generator=generator) * 6
    return class_logits, functional.interpolate(coarse, size=(side, side), mode="bicubic")[0]


def as_outputs(logits: tuple[Tensor, Tensor]) -> SimpleNamespace:
    return SimpleNamespace(class_queries_logits=logits[0][None], masks_queries_logits=logits[1][None])


@pytest.mark.parametrize("size_hw", SIZES.values(), ids=SIZES.keys())
def test_instance_segments_equal_full_frame_reference(size_hw: tuple[int, int]) -> None:
    class_logits, mask_logits = random_logits(side=48, seed=3)
    full = functional.interpolate(mask_logits[None], size=size_hw, mode="bilinear", align_corners=False)[0]
    scores, classes = class_logits.softmax(-1)[:, :-1].max(-1)
    expected = []
    for logits, score, class_id in zip(full, scores, classes, strict=True):
        inside = logits > 0
        if inside.any() and score * logits[inside].sigmoid().mean() >= 0.3:
            expected.append((float(score * logits[inside].sigmoid().mean()), int(class_id), inside.numpy()))
    expected.sort(key=lambda item: -item[0])
    found = instance_segments(**everything((class_logits, mask_logits), size_hw, range(4), score=0.3))
    assert [segment.label for segment in found] == [f"class{class_id}" for _, class_id, _ in expected]
    assert len(found) >= 2
    for segment, (score, _, mask) in zip(found, expected, strict=True):
        assert segment.score == pytest.approx(score, abs=1e-5)
        assert np.count_nonzero(paste_segment(segment, size_hw) != mask) <= 1e-4 * mask.size


def test_instance_segments_equal_transformers_binary_maps() -> None:
    class_logits, mask_logits = random_logits(seed=5)
    class_logits = torch.where(class_logits == class_logits.max(-1, keepdim=True).values, 9.0, -9.0)
    result = Mask2FormerImageProcessorPil().post_process_instance_segmentation(
        as_outputs((class_logits, mask_logits)), threshold=0.5, return_binary_maps=True
    )[0]
    found = instance_segments(**everything((class_logits, mask_logits), (384, 384), range(4)))
    theirs = {
        (info["label_id"], round(info["score"], 4)): mask
        for info, mask in zip(result["segments_info"], result["segmentation"], strict=True)
    }
    assert len(found) == len(theirs) >= 3
    for segment in found:
        mask = theirs[(int(segment.label.removeprefix("class")), round(segment.score, 4))]
        assert np.array_equal(paste_segment(segment, (384, 384)), mask.bool().numpy())


@pytest.mark.parametrize("size_hw", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("tile", [1 << 20, 5000], ids=["whole", "strips"])
def test_semantic_segments_without_floor_equal_transformers(
    size_hw: tuple[int, int], tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postprocess, "TILE_VALUES", tile)
    logits = random_logits()
    theirs = Mask2FormerImageProcessorPil().post_process_semantic_segmentation(
        as_outputs(logits), target_sizes=[size_hw]
    )[0]
    found = semantic_segments(**everything(logits, size_hw, mask=0.0))
    ours = np.full(size_hw, -1)
    for segment in found:
        ours[paste_segment(segment, size_hw)] = int(segment.label.removeprefix("class"))
    assert np.count_nonzero(ours != theirs.numpy()) <= 1e-4 * ours.size


def test_semantic_segments_nothing_there_stays_unlabelled(make_logits: Logits) -> None:
    logits = make_logits([(0, (2, 2, 6, 6)), (1, (8, 8, 12, 12)), (None, (0, 0, 16, 16))])
    circle, square = sorted(semantic_segments(**everything(logits)), key=lambda segment: segment.label)
    assert (circle.label, square.label) == ("class0", "class1")
    assert circle.area + square.area < 0.2 * 64 * 64
    assert circle.box_yxyx == pytest.approx((8, 8, 24, 24), abs=2)


def test_semantic_segments_objects_of_one_class_are_one_area(make_logits: Logits) -> None:
    logits = make_logits([(0, (1, 1, 4, 4)), (0, (10, 10, 14, 14))])
    (segment,) = semantic_segments(**everything(logits))
    assert segment.area == pytest.approx(16 * (9 + 16), rel=0.2)


@pytest.mark.parametrize("tile", [1 << 20, 5000], ids=["whole", "strips"])
def test_panoptic_segments_fully_covered_equal_transformers(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postprocess, "TILE_VALUES", tile)
    class_logits, mask_logits = random_logits(queries=5, seed=7)
    class_logits = torch.where(class_logits == class_logits.max(-1, keepdim=True).values, 9.0, -9.0)
    class_logits[0, :] = torch.tensor([9.0, -9.0, -9.0, -9.0, -9.0])
    mask_logits = torch.where(
        mask_logits == mask_logits.max(0, keepdim=True).values, 8.0, -8.0
    )  # a partition
    theirs = Mask2FormerImageProcessorPil().post_process_panoptic_segmentation(
        as_outputs((class_logits, mask_logits)), label_ids_to_fuse={2, 3}
    )[0]
    found = panoptic_segments(**everything((class_logits, mask_logits), (384, 384), (0, 1)))
    ours = {tuple(np.flatnonzero(paste_segment(segment, (384, 384)))[:50]): segment.area for segment in found}
    ids = [int(index) for index in theirs["segmentation"].unique() if index > 0]
    expected = {}
    for index in ids:
        flat = np.flatnonzero(theirs["segmentation"].numpy() == index)
        expected[tuple(flat[:50])] = flat.size
    assert ours == expected


def test_panoptic_segments_small_object_does_not_fill_the_background(make_logits: Logits) -> None:
    found = panoptic_segments(**everything(make_logits([(0, (4, 4, 8, 8))])))
    assert [segment.area for segment in found] == pytest.approx([256], rel=0.1)


def test_panoptic_segments_stuff_is_merged_and_things_kept_apart(make_logits: Logits) -> None:
    boxes = [(0, 0, 4, 4), (8, 8, 12, 12)]
    logits = make_logits([(0, boxes[0]), (0, boxes[1]), (1, (0, 10, 4, 14)), (1, (10, 0, 14, 4))])
    found = panoptic_segments(**everything(logits, thing_ids=(0,)))
    assert sorted(segment.label for segment in found) == ["class0", "class0", "class1"]
    index_hw = sum(paste_segment(segment, (64, 64)).astype(int) for segment in found)
    assert index_hw.max() == 1


def test_panoptic_segments_mostly_hidden_mask_is_dropped(make_logits: Logits) -> None:
    class_logits, mask_logits = make_logits([(0, (0, 0, 8, 8)), (1, (0, 0, 8, 10))])
    class_logits[1] = torch.tensor([0.0, 2.0, 0.0])  # the less sure of the two
    found = panoptic_segments(**everything((class_logits, mask_logits)))
    assert [segment.label for segment in found] == ["class0"]


def test_instance_segments_overlapping_objects_stay_whole(make_logits: Logits) -> None:
    found = instance_segments(**everything(make_logits([(0, (2, 2, 10, 10)), (0, (6, 6, 14, 14))])))
    assert [segment.area for segment in found] == pytest.approx([1024, 1024], rel=0.1)


def test_instance_segments_two_likely_classes_come_out_once(make_logits: Logits) -> None:
    class_logits, mask_logits = make_logits([(0, (2, 2, 10, 10))])
    class_logits[0] = torch.tensor([6.0, 5.9, 0.0])
    found = instance_segments(**everything((class_logits, mask_logits), score=0.3))
    assert [segment.label for segment in found] == ["class0"]


def test_instance_segments_stuff_is_left_out(make_logits: Logits) -> None:
    logits = make_logits([(0, (2, 2, 10, 10)), (1, (6, 6, 14, 14))])
    assert [s.label for s in instance_segments(**everything(logits, thing_ids=(0,)))] == ["class0"]
    assert len(instance_segments(**everything(logits, thing_ids=()))) == 2


@pytest.mark.parametrize("task", SegmentationTask)
def test_segments_nothing_found_is_empty(task: SegmentationTask, make_logits: Logits) -> None:
    logits = make_logits([(None, (0, 0, 16, 16)), (None, (4, 4, 8, 8))])
    assert segments_of(task)(**everything(logits)) == ()


@pytest.mark.parametrize("task", SegmentationTask)
def test_segments_sure_class_with_empty_mask_is_empty(task: SegmentationTask, make_logits: Logits) -> None:
    assert segments_of(task)(**everything(make_logits([(0, (0, 0, 0, 0))]))) == ()


@pytest.mark.parametrize("task", SegmentationTask)
@pytest.mark.parametrize("size_hw", [(1, 1), (63, 64), (3, 200)], ids=["pixel", "odd", "strip"])
def test_segments_full_mask_covers_every_pixel(
    task: SegmentationTask, size_hw: tuple[int, int], make_logits: Logits
) -> None:
    (segment,) = segments_of(task)(**everything(make_logits([(1, (0, 0, 16, 16))]), size_hw))
    assert (segment.label, segment.box_yxyx) == ("class1", (0, 0, *size_hw))
    assert segment.mask_hw.all()
    assert segment.score > 0.99


def test_instance_segments_hole_stays_a_hole(make_logits: Logits) -> None:
    class_logits, mask_logits = make_logits([(0, (2, 2, 14, 14))])
    mask_logits[0, 6:10, 6:10] = -12.0
    (segment,) = instance_segments(**everything((class_logits, mask_logits)))
    assert not paste_segment(segment, (64, 64))[32, 32]
    assert segment.area == pytest.approx(16 * (144 - 16), rel=0.05)


@pytest.mark.parametrize("task", SegmentationTask)
def test_segments_are_sorted_best_first(task: SegmentationTask) -> None:
    scores = [
        s.score for s in segments_of(task)(**everything(random_logits(side=32), score=0.2, overlap=0.0))
    ]
    assert len(scores) >= 2
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("name", ["score", "mask", "overlap"])
def test_thresholds_outside_range_raise(name: str) -> None:
    with pytest.raises(ValueError, match=rf"Thresholds\.{name}: expected 0\.\.1, got 1\.5"):
        Thresholds(**{name: 1.5})


def test_thresholds_of_a_label_outside_range_raise() -> None:
    with pytest.raises(ValueError, match=r"score_of_label\['cat'\]: expected 0\.\.1, got -0\.5"):
        Thresholds(score_of_label={"cat": -0.5})


def test_thresholds_keep_their_own_copy_and_stay_hashable() -> None:
    given = {"cat": 0.2}
    thresholds = Thresholds(score_of_label=given)
    given["cat"] = 0.9
    assert (thresholds.score_for("cat"), thresholds.score_for("dog")) == (0.2, 0.5)
    assert thresholds == Thresholds(score_of_label={"cat": 0.2}) != Thresholds()
    assert hash(thresholds) == hash(Thresholds(score_of_label={"cat": 0.2}))


@pytest.mark.parametrize("task", SegmentationTask)
def test_segments_score_of_a_label_is_in_place_of_score(task: SegmentationTask, make_logits: Logits) -> None:
    class_logits_qk, mask_logits_qhw = make_logits([(0, (0, 0, 6, 6)), (1, (9, 9, 15, 15))])
    class_logits_qk[:] = torch.tensor([[1.9, 0.0, -9.0], [0.0, 1.9, -9.0]])  # 0.87 each
    logits = (class_logits_qk, mask_logits_qhw)
    labels_of = {
        name: sorted(segment.label for segment in segments_of(task)(**everything(logits, **thresholds)))
        for name, thresholds in {
            "none": {},
            "stricter": {"score_of_label": {"class0": 0.95}},
            "laxer": {"score": 0.95, "score_of_label": {"class1": 0.5}},
            "other": {"score_of_label": {"class9": 1.0}},
        }.items()
    }
    assert labels_of["none"] == labels_of["other"] == ["class0", "class1"]
    assert labels_of["stricter"] == ["class1"]
    both = task is SegmentationTask.SEMANTIC  # only a label's own floor counts there
    assert labels_of["laxer"] == (["class0", "class1"] if both else ["class1"])


def test_panoptic_segments_hidden_stuff_lends_no_score(make_logits: Logits) -> None:
    boxes = [(0, 0, 16, 8), (0, 8, 16, 16), (4, 10, 8, 12)]  # the last lies under the second
    class_logits_qk, mask_logits_qhw = make_logits([(1, boxes[0]), (0, boxes[1]), (1, boxes[2])])
    class_logits_qk[0] = torch.tensor([0.0, 1.0, -9.0])  # 0.73
    class_logits_qk[2] = torch.tensor([0.0, 3.0, -9.0])  # 0.95
    found = panoptic_segments(**everything((class_logits_qk, mask_logits_qhw), thing_ids=(0,), overlap=0.0))
    assert [(s.label, round(s.score, 2)) for s in found] == [("class0", 1.0), ("class1", 0.73)]
