"""Post-processing equal to transformers' where that is right, its step through 384x384 left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    EomtImageProcessorPil,
    Mask2FormerImageProcessorPil,
    MaskFormerImageProcessorPil,
    OneFormerImageProcessorPil,
)

from maskloop.masks import paste_segment
from maskloop.segmentation.postprocess import Thresholds, instance_segments, semantic_segments
from maskloop.types import Segment

CLASSES = 4
LABELS = tuple(f"class{index}" for index in range(CLASSES))
THROUGH = (384, 384)  # the size that transformers passes the masks of Mask2Former through
SIZES = {
    "same": (24, 36),
    "odd": (101, 173),
    "portrait": (211, 83),
    "strip": (3, 200),
    "smaller": (9, 7),
    "one pixel": (1, 1),
}


@pytest.fixture
def leave_out_384(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int] | None], None]:
    """Let transformers resize to another size where it says 384x384, or not at all."""
    real = functional.interpolate

    def replace_by(size_hw: tuple[int, int] | None) -> None:
        def interpolate(values: Tensor, size: Any = None, **options: Any) -> Tensor:
            wanted = size_hw if tuple(size) == THROUGH else size
            return values if wanted is None else real(values, size=wanted, **options)

        monkeypatch.setattr(functional, "interpolate", interpolate)

    return replace_by


@pytest.fixture(scope="session")
def processors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("classes")
    classes = {str(index): {"name": label, "isthing": 1} for index, label in enumerate(LABELS)}
    (folder / "classes.json").write_text(json.dumps(classes))
    return {
        "mask2former": Mask2FormerImageProcessorPil(),
        "oneformer": OneFormerImageProcessorPil(repo_path=str(folder), class_info_file="classes.json"),
        "maskformer": MaskFormerImageProcessorPil(),
    }


def random_logits(
    queries: int = 12, side_hw: tuple[int, int] = (24, 36), seed: int = 0, sure: bool = False
) -> tuple[Tensor, Tensor]:
    """Return smooth blobs; with `sure` each query has one class beyond doubt."""
    generator = torch.Generator().manual_seed(seed)
    class_logits_qk = torch.randn(queries, CLASSES + 1, generator=generator) * 3
    if sure:
        best = class_logits_qk.max(-1, keepdim=True).values
        class_logits_qk = torch.where(class_logits_qk == best, 9.0, -9.0)
    coarse = torch.randn(1, queries, 6, 6, generator=generator) * 6
    return class_logits_qk, functional.interpolate(coarse, size=side_hw, mode="bicubic")[0]


def as_outputs(logits: tuple[Tensor, Tensor]) -> SimpleNamespace:
    return SimpleNamespace(
        class_queries_logits=logits[0][None], masks_queries_logits=logits[1][None], patch_offsets=None
    )


def ours(logits: tuple[Tensor, Tensor], size_hw: tuple[int, int], **thresholds: float) -> dict[str, Any]:
    return {
        "class_logits_qk": logits[0],
        "mask_logits_qhw": logits[1],
        "labels": LABELS,
        "thing_ids": range(CLASSES),
        "thresholds": Thresholds(**thresholds),
        "size_hw": size_hw,
    }


def class_map(segments: tuple[Segment, ...], size_hw: tuple[int, int]) -> np.ndarray:
    classes_hw = np.full(size_hw, -1)
    for segment in segments:
        classes_hw[paste_segment(segment, size_hw)] = LABELS.index(segment.label)
    return classes_hw


def assert_same_objects(found: tuple[Segment, ...], theirs: dict[str, Any], size_hw: tuple[int, int]) -> None:
    """Each of ours is one of theirs: label, score to 1e-4, and every pixel."""
    left = [
        (LABELS[info["label_id"]], info["score"], mask.bool().numpy())
        for info, mask in zip(theirs["segments_info"], theirs["segmentation"], strict=True)
    ]
    assert len(left) == len(theirs["segments_info"]) == len(found)
    for segment in found:
        mask_hw = paste_segment(segment, size_hw)
        for index, (label, score, other_hw) in enumerate(left):
            same = label == segment.label and abs(score - segment.score) < 1e-4
            if same and np.array_equal(mask_hw, other_hw):
                del left[index]
                break
    assert not left


@pytest.mark.parametrize("size_hw", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("family", ["mask2former", "oneformer", "maskformer"])
def test_semantic_segments_any_size_equal_transformers(
    family: str,
    size_hw: tuple[int, int],
    processors: dict[str, Any],
    leave_out_384: Callable[..., None],
) -> None:
    logits = random_logits(seed=1)
    leave_out_384(None)
    theirs_hw = processors[family].post_process_semantic_segmentation(
        as_outputs(logits), target_sizes=[size_hw]
    )[0]
    found = semantic_segments(**ours(logits, size_hw, mask=0.0))
    assert np.array_equal(class_map(found, size_hw), theirs_hw.numpy())


def test_semantic_segments_more_than_255_classes_equal_oneformer(processors: dict[str, Any]) -> None:
    _, mask_logits_qhw = grid_logits(17)
    class_logits_qk = torch.randn(289, 290, generator=torch.Generator().manual_seed(2))
    class_logits_qk.diagonal().add_(9.0)
    logits = class_logits_qk, mask_logits_qhw
    theirs_hw = processors["oneformer"].post_process_semantic_segmentation(
        as_outputs(logits), target_sizes=[(61, 95)]
    )[0]
    labels = tuple(f"class{index}" for index in range(289))
    found = semantic_segments(**ours(logits, (61, 95), mask=0.0) | {"labels": labels})
    assert len(found) == len(theirs_hw.unique()) > 255
    for segment in found:
        mask_hw = paste_segment(segment, (61, 95))
        assert np.array_equal(mask_hw, (theirs_hw == labels.index(segment.label)).numpy())


@pytest.mark.parametrize("side_hw", [(24, 36), (50, 18), (37, 53), (1, 1)], ids=str)
def test_instance_segments_at_384_equal_mask2former_as_it_is(
    side_hw: tuple[int, int], processors: dict[str, Any]
) -> None:
    logits = random_logits(side_hw=side_hw, seed=5, sure=True)
    theirs = processors["mask2former"].post_process_instance_segmentation(
        as_outputs(logits), target_sizes=[THROUGH], return_binary_maps=True
    )[0]
    assert len(theirs["segments_info"]) >= 2
    assert_same_objects(instance_segments(**ours(logits, THROUGH)), theirs, THROUGH)


@pytest.mark.parametrize("size_hw", SIZES.values(), ids=SIZES.keys())
def test_instance_segments_any_size_equal_mask2former_without_384(
    size_hw: tuple[int, int], processors: dict[str, Any], leave_out_384: Callable[..., None]
) -> None:
    logits = random_logits(seed=6, sure=True)
    leave_out_384(size_hw)
    theirs = processors["mask2former"].post_process_instance_segmentation(
        as_outputs(logits), target_sizes=[size_hw], return_binary_maps=True
    )[0]
    assert len(theirs["segments_info"]) >= 1
    assert_same_objects(instance_segments(**ours(logits, size_hw)), theirs, size_hw)


def test_instance_segments_more_than_255_equal_mask2former(processors: dict[str, Any]) -> None:
    logits = grid_logits(17)
    theirs = processors["mask2former"].post_process_instance_segmentation(
        as_outputs(logits), return_binary_maps=True
    )[0]
    assert len(theirs["segments_info"]) == 17 * 17 > 255
    assert_same_objects(instance_segments(**ours(logits, THROUGH)), theirs, THROUGH)


def test_instance_segments_nothing_found_as_mask2former(processors: dict[str, Any]) -> None:
    class_logits_qk, mask_logits_qhw = random_logits()
    class_logits_qk[:, -1] = 30.0
    theirs = processors["mask2former"].post_process_instance_segmentation(
        as_outputs((class_logits_qk, mask_logits_qhw)), target_sizes=[(50, 77)], return_binary_maps=True
    )[0]
    assert theirs["segments_info"] == []
    assert instance_segments(**ours((class_logits_qk, mask_logits_qhw), (50, 77))) == ()


def grid_logits(side: int) -> tuple[Tensor, Tensor]:
    """Return side x side objects that cover every pixel once, each sure of its class."""
    count = side * side
    class_logits_qk = torch.full((count, CLASSES + 1), -9.0)
    class_logits_qk[torch.arange(count), torch.arange(count) % CLASSES] = 9.0
    cells = torch.full((count, count), -8.0)
    cells.fill_diagonal_(8.0)
    return class_logits_qk, cells.reshape(count, side, side).repeat_interleave(4, 1).repeat_interleave(4, 2)


@pytest.mark.parametrize("side", [2, 3, 17], ids=["4 objects", "9 objects", "289 objects"])
def test_instance_segments_of_a_partition_equal_oneformer(side: int, processors: dict[str, Any]) -> None:
    logits = grid_logits(side)
    size_hw = tuple(logits[1].shape[-2:])
    # its masks are taken for probabilities there; where nothing is left over it finds the right owner
    theirs = processors["oneformer"].post_process_instance_segmentation(as_outputs(logits))[0]
    ids = [info["id"] for info in theirs["segments_info"]]
    maps = [theirs["segmentation"] == index for index in ids]
    found = instance_segments(**ours(logits, size_hw))
    assert len(found) == len(ids) == side * side
    expected = {tuple(np.flatnonzero(mask.numpy())) for mask in maps}
    assert {tuple(np.flatnonzero(paste_segment(segment, size_hw))) for segment in found} == expected


@pytest.mark.parametrize("size_hw", [(96, 128), (128, 64), (192, 256), (61, 122)], ids=str)
def test_instance_segments_of_a_padded_square_equal_eomt(size_hw: tuple[int, int]) -> None:
    from maskloop.segmentation.predict import _cut_padding
    from maskloop.segmentation.preprocess import Preprocessing, resized_size

    square = Preprocessing(shortest_edge=None, box_hw=(128, 128))
    processor = EomtImageProcessorPil(size={"shortest_edge": 128, "longest_edge": 128}, do_pad=True)
    class_logits_qk, mask_logits_qhw = random_logits(queries=1, side_hw=(128, 128), seed=3, sure=True)
    class_logits_qk[0] = torch.tensor([9.0, -9.0, -9.0, -9.0, -9.0])
    theirs = processor.post_process_instance_segmentation(
        as_outputs((class_logits_qk, mask_logits_qhw)), target_sizes=[size_hw], threshold=0.5
    )[0]
    cut_qhw = _cut_padding(mask_logits_qhw, resized_size(size_hw, square), (128, 128))
    (segment,) = instance_segments(**ours((class_logits_qk, cut_qhw), size_hw))
    assert segment.score == pytest.approx(theirs["segments_info"][0]["score"], abs=1e-4)
    assert np.array_equal(paste_segment(segment, size_hw), (theirs["segmentation"] == 0).numpy())
