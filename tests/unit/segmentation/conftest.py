"""Tiny checkpoints, made once, and logits drawn by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.segmentation.checkpoint import Checkpoint, save_checkpoint
from maskloop.types import RgbImage

SURE = 12.0  # a logit that leaves no doubt


@pytest.fixture(scope="session")
def tiny_mask2former() -> Checkpoint:
    return build_tiny_mask2former(("circle", "square", "sky"), seed=1, thing_ids=(0, 1))


@pytest.fixture(scope="session")
def tiny_oneformer() -> Checkpoint:
    return build_tiny_oneformer(("circle", "square"), seed=2, training=True)


@pytest.fixture(params=["mask2former", "oneformer"])
def tiny(request: pytest.FixtureRequest) -> Checkpoint:
    return request.getfixturevalue(f"tiny_{request.param}")


@pytest.fixture(scope="session")
def cat_dog_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two random models that can be told apart: each knows one label."""
    root = tmp_path_factory.mktemp("models")
    return {
        label: save_checkpoint(build_tiny_mask2former((label,), seed=seed), root / label)
        for seed, label in enumerate(("cat", "dog"))
    }


@pytest.fixture(scope="session")
def make_image() -> Callable[..., RgbImage]:
    def make(height: int = 60, width: int = 90, seed: int = 0) -> RgbImage:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture(scope="session")
def make_logits() -> Callable[..., tuple[Tensor, Tensor]]:
    """Return (class_logits_qk, mask_logits_qhw) of queries given as (class, (top, left, bottom, right))."""

    def make(
        queries: Sequence[tuple[int | None, tuple[int, int, int, int]]],
        *,
        classes: int = 2,
        size_hw: tuple[int, int] = (16, 16),
        sure: float = SURE,
    ) -> tuple[Tensor, Tensor]:
        class_logits_qk = torch.zeros(len(queries), classes + 1)
        mask_logits_qhw = torch.full((len(queries), *size_hw), -sure)
        for index, (class_id, (top, left, bottom, right)) in enumerate(queries):
            class_logits_qk[index, classes if class_id is None else class_id] = sure
            mask_logits_qhw[index, top:bottom, left:right] = sure
        return class_logits_qk, mask_logits_qhw

    return make
