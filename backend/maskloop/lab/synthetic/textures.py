"""Colours, textures and light of made-up images; knows nothing of shapes or masks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BASE_STYLE",
    "SHIFTED_STYLE",
    "Style",
    "background_colour",
    "light_field",
    "object_colour",
    "surface",
]

FloatImage = NDArray[np.float32]  # (H, W, 3) or (H, W, 1), in grey levels 0..255 or factors around 1


@dataclass(frozen=True, kw_only=True)
class Style:
    """The appearance of one domain; every pair is a (low, high) range."""

    background: tuple[float, float]  # grey level of each background channel
    hue_spread: float  # standard deviation of an object's hue around its class's, in degrees
    any_hue: float  # share of objects whose hue is independent of their class
    saturation: tuple[float, float]  # of objects, 0..1
    value: tuple[float, float]  # of objects (the V of HSV), 0..1
    contrast: float  # wanted distance between the colours of one image, in grey levels
    mottle: tuple[float, float]  # amplitude of blotches, in grey levels
    stripes: tuple[float, float]  # amplitude of stripes, in grey levels
    light: tuple[float, float]  # brightness of the whole image
    noise: tuple[float, float]  # standard deviation of sensor noise, in grey levels


BASE_STYLE = Style(
    background=(90, 235),
    hue_spread=14.0,
    any_hue=0.08,
    saturation=(0.5, 0.95),
    value=(0.45, 0.95),
    contrast=80,
    mottle=(4, 16),
    stripes=(0, 0),
    light=(0.85, 1.1),
    noise=(2, 8),
)
SHIFTED_STYLE = Style(
    background=(70, 170),
    hue_spread=16.0,
    any_hue=0.08,
    saturation=(0.35, 0.8),
    value=(0.45, 0.95),
    contrast=70,
    mottle=(6, 20),
    stripes=(14, 34),
    light=(0.35, 0.6),
    noise=(3, 8),
)


def background_colour(rng: np.random.Generator, style: Style) -> FloatImage:
    """Return float32 (3,): any colour within the style's grey levels."""
    return np.asarray(rng.uniform(*style.background, size=3), dtype=np.float32)


def object_colour(rng: np.random.Generator, hue: float, others: list[FloatImage], style: Style) -> FloatImage:
    """Return float32 (3,): a colour near the hue that stands out from the others, if one is found.

    Args:
        rng: drives the choice.
        hue: of the object's class, in degrees.
        others: colours already in the image; distance is Euclidean in RGB, and after 24 tries the farthest
            candidate is taken.
        style: the domain's.
    """
    count = 24
    hues = (
        rng.normal(hue, style.hue_spread, count)
        if rng.random() >= style.any_hue
        else rng.uniform(0, 360, count)
    )
    hsv = np.stack(
        [hues % 360, rng.uniform(*style.saturation, count), rng.uniform(*style.value, count)], axis=1
    )
    candidates = cv2.cvtColor(hsv[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0] * 255
    distances = np.linalg.norm(candidates[:, None] - np.stack(others)[None], axis=2).min(axis=1)
    good = np.flatnonzero(distances >= style.contrast)
    return np.asarray(candidates[good[0] if good.size else int(distances.argmax())], dtype=np.float32)


def surface(
    rng: np.random.Generator, size_hw: tuple[int, int], colour: FloatImage, style: Style
) -> FloatImage:
    """Return float32 (H, W, 3): a plane of one colour with the style's blotches and stripes."""
    blotches_hw1 = _blotches(rng, size_hw)[..., None] * rng.uniform(*style.mottle)
    return np.asarray(
        colour + blotches_hw1 + _stripes(rng, size_hw, rng.uniform(*style.stripes)), dtype=np.float32
    )


def light_field(rng: np.random.Generator, size_hw: tuple[int, int], style: Style) -> FloatImage:
    """Return float32 (H, W, 1): uneven light, a factor for each pixel."""
    slope_hw = _ramp(size_hw, rng.uniform(0, 2 * np.pi)) * rng.uniform(0.0, 0.18)
    return np.asarray((rng.uniform(*style.light) * (1.0 + slope_hw))[..., None], dtype=np.float32)


def _blotches(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatImage:
    coarse = rng.uniform(-1, 1, size=(6, 6)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _stripes(rng: np.random.Generator, size_hw: tuple[int, int], amplitude: float) -> FloatImage:
    periods = rng.uniform(7, 16)  # stripes over the short side: as wide at any image size
    phase_hw = _ramp(size_hw, rng.uniform(0, 2 * np.pi)) * np.pi * periods
    return np.asarray(np.sin(phase_hw + rng.uniform(0, 2 * np.pi))[..., None] * amplitude, dtype=np.float32)


def _ramp(size_hw: tuple[int, int], angle: float) -> FloatImage:
    """Return float32 (H, W): -1..1 over the short side along `angle`."""
    scale = min(size_hw) / 2
    y = (np.arange(size_hw[0], dtype=np.float32) - size_hw[0] / 2) / scale
    x = (np.arange(size_hw[1], dtype=np.float32) - size_hw[1] / 2) / scale
    return np.asarray(np.sin(angle) * y[:, None] + np.cos(angle) * x[None], dtype=np.float32)
