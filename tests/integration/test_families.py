"""Every family on every backbone it has, in every task: saved, loaded, the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from maskloop.lab.tiny_models import (
    build_tiny_eomt,
    build_tiny_mask2former,
    build_tiny_maskformer,
    build_tiny_oneformer,
)
from maskloop.masks import paste_segment
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, with_labels
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.types import Prediction, SegmentationTask

LABELS = ("circle", "square", "sky")
ANYTHING = Thresholds(score=0.0, mask=0.2, overlap=0.0)
BACKBONES = ("resnet", "swin", "convnext")
BUILDERS = {
    "mask2former": build_tiny_mask2former,
    "oneformer": build_tiny_oneformer,
    "maskformer": build_tiny_maskformer,
}
COMBINATIONS = [(family, backbone) for family in BUILDERS for backbone in BACKBONES] + [("eomt", "vit")]
NAMES = ["-".join(combination) for combination in COMBINATIONS]
Pair = tuple[Checkpoint, Checkpoint]  # as built, and as saved and loaded


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Pair]:
    made: dict[tuple[str, str], Pair] = {}

    def pair(family: str, backbone: str) -> Pair:
        if (family, backbone) not in made:
            if family == "eomt":
                built = build_tiny_eomt(LABELS, seed=4, thing_ids=(0, 1))
            else:
                built = BUILDERS[family](LABELS, seed=4, thing_ids=(0, 1), backbone=backbone)
            with torch.no_grad():
                class_head(built).bias -= torch.tensor(
                    [0.0, 0.0, 2.0, 5.0]
                )  # else some see nothing, or sky alone
            folder: Path = tmp_path_factory.mktemp("families") / family
            made[family, backbone] = built, load_checkpoint(save_checkpoint(built, folder), device="cpu")
        return made[family, backbone]

    return pair


def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    sizes = [(60, 90), (91, 61), (64, 64)]
    return [random.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for size_hw in sizes]


def assert_same(first: Prediction, second: Prediction) -> None:
    assert [segment.label for segment in first.segments] == [segment.label for segment in second.segments]
    for one, other in zip(first.segments, second.segments, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert np.array_equal(paste_segment(one, first.size_hw), paste_segment(other, second.size_hw))


def assert_same_classes(first: Prediction, second: Prediction) -> None:
    """Compare what each pixel is.

    A partition gives every pixel to its best query. In random models queries are equal to rounding, and
    weights that lie elsewhere in memory may be summed in another order: such a pixel may fall to either.
    """
    maps = [class_map(prediction) for prediction in (first, second)]
    assert np.mean(maps[0] == maps[1]) > 0.98


def class_map(prediction: Prediction) -> np.ndarray:
    names = np.full(prediction.size_hw, "", dtype="U16")
    for segment in prediction.segments:
        names[paste_segment(segment, prediction.size_hw)] = segment.label
    return names


@pytest.mark.parametrize(("family", "backbone"), COMBINATIONS, ids=NAMES)
def test_checkpoint_of_any_family_and_backbone_loads_as_it_was(
    family: str, backbone: str, pair_of: Callable[[str, str], Pair]
) -> None:
    built, loaded = pair_of(family, backbone)
    assert (loaded.family, loaded.labels, loaded.thing_ids) == (family, LABELS, {0, 1})
    assert loaded.preprocessing == built.preprocessing
    before, after = (dict(checkpoint.model.named_parameters()) for checkpoint in (built, loaded))
    assert set(before) == set(after)
    assert all(before[name].float().equal(after[name]) for name in before)


@pytest.mark.parametrize("task", SegmentationTask)
@pytest.mark.parametrize(("family", "backbone"), COMBINATIONS, ids=NAMES)
def test_predictions_of_any_family_backbone_and_task_are_equal_after_loading(
    task: SegmentationTask, family: str, backbone: str, pair_of: Callable[[str, str], Pair]
) -> None:
    built, loaded = pair_of(family, backbone)
    first, second = (
        predict_images(model, images(), task=task, thresholds=ANYTHING) for model in (built, loaded)
    )
    assert [prediction.size_hw for prediction in first] == [image.shape[:2] for image in images()]
    assert any(prediction.segments for prediction in first)
    compare = assert_same_classes if task is SegmentationTask.PANOPTIC else assert_same
    for one, other in zip(first, second, strict=True):
        compare(one, other)


@pytest.mark.parametrize(("family", "backbone"), COMBINATIONS, ids=NAMES)
def test_with_labels_of_any_family_keeps_the_rows_of_labels_that_stay(
    family: str, backbone: str, pair_of: Callable[[str, str], Pair], tmp_path: Path
) -> None:
    _, loaded = pair_of(family, backbone)
    grown = with_labels(loaded, ("star", "square", "moon", "circle"), seed=1)
    again = load_checkpoint(save_checkpoint(grown, tmp_path / "grown"), device="cpu")
    head, old = (class_head(checkpoint).weight for checkpoint in (again, loaded))
    assert head.shape[0] == 5
    assert head[[3, 1, 4]].equal(old[[0, 1, 3]])
    assert again.labels == grown.labels
    assert again.thing_ids == {0, 1, 2, 3}
    assert predict_images(again, images()[:1], task=SegmentationTask.INSTANCE)[0].size_hw == (60, 90)


def class_head(checkpoint: Checkpoint) -> torch.nn.Linear:
    if checkpoint.family == "oneformer":
        return checkpoint.model.model.transformer_module.decoder.class_embed
    return checkpoint.model.class_predictor


@pytest.mark.parametrize("family", ["maskformer", "eomt"])
def test_with_labels_of_further_families_has_a_finite_loss(
    family: str, pair_of: Callable[[str, str], Pair]
) -> None:
    _, loaded = pair_of(family, "vit" if family == "eomt" else "resnet")
    grown = with_labels(loaded, ("star", "square", "moon", "circle"), seed=1)
    masks = torch.zeros(1, 128, 128)
    masks[:, :40, :40] = 1
    loss = grown.model(
        pixel_values=torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)),
        mask_labels=[masks],
        class_labels=[torch.tensor([3])],
    ).loss
    assert torch.isfinite(loss).all()
