"""Pools of made-up images as people collect them: most alike and easy, few hard or of rare classes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from maskloop.lab.synthetic.shapes import SyntheticImage, make_image

__all__ = ["PoolKind", "make_pool_image", "pool_kind"]

PoolKind: TypeAlias = Literal["alike", "plain", "hard", "rare"]

SCENES = 6  # that the alike images are views of
SHARES: dict[PoolKind, float] = {"alike": 0.6, "plain": 0.2, "hard": 0.12, "rare": 0.08}
COMMON_CLASSES = ("disc", "square", "triangle")
RARE_CLASSES = ("ring", "star")
_STREAM = 77  # apart from the seeds of `shapes`
_FIRST_SEED = 40_000_000  # far from the images that the shipped models were trained and judged on


def pool_kind(seed: int) -> PoolKind:
    """Return of which kind the image of a seed is."""
    drawn = np.random.default_rng([_STREAM, seed]).random()
    bounds = np.cumsum(list(SHARES.values()))
    return list(SHARES)[min(int(np.searchsorted(bounds, drawn, side="right")), len(SHARES) - 1)]


def make_pool_image(seed: int, *, size_hw: tuple[int, int] = (128, 128)) -> SyntheticImage:
    """Return the image that belongs to a seed, of the kind that `pool_kind` names.

    Alike images are one of a few bright scenes in another light, as frames of a video are. Plain ones are
    bright and each a scene of its own. Hard ones are dim and striped. Rare ones are so too, and are the only
    ones with rings and stars.

    Args:
        seed: any non-negative integer; the same seed and size give the same image.
        size_hw: (H, W) in pixels, at least 32 each.
    """
    kind = pool_kind(seed)
    if kind == "alike":
        return _another_light(
            make_image(_FIRST_SEED + seed % SCENES, size_hw=size_hw, classes=COMMON_CLASSES), seed
        )
    if kind == "plain":
        return make_image(_FIRST_SEED + SCENES + seed, size_hw=size_hw, classes=COMMON_CLASSES)
    return make_image(
        _FIRST_SEED + SCENES + seed,
        size_hw=size_hw,
        domain="shifted",
        classes=COMMON_CLASSES if kind == "hard" else RARE_CLASSES,
    )


def _another_light(scene: SyntheticImage, seed: int) -> SyntheticImage:
    rng = np.random.default_rng([_STREAM, seed, 1])
    lit_hwc = scene.image_hwc * rng.uniform(0.9, 1.1) + rng.normal(0.0, 4.0, scene.image_hwc.shape)
    return SyntheticImage(
        image_hwc=np.clip(np.rint(lit_hwc), 0, 255).astype(np.uint8), segments=scene.segments
    )
