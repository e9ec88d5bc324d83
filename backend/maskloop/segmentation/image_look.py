"""How an image looks before any model: sharpness, contrast, light and colour, as a few numbers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LOOK_SIZE", "image_look"]

LOOK_SIZE = 8
SMALLEST = 1e-4  # of a variance of brightness in 0..1: an image of one colour


def image_look(pixels_chw: Tensor) -> NDArray[np.float32]:
    """Return sharpness at two scales, contrast, light, two means of colour, its spread, and what is clipped.

    Sharpness is the variance of the Laplacian over that of the brightness, as a logarithm: blur lowers it,
    noise raises it, light alone leaves it.

    Args:
        pixels_chw: uint8 (3, H, W), RGB, as the model takes the image.

    Returns:
        float32 (LOOK_SIZE,).

    Source:
        Variance of the Laplacian as focus: Pech-Pacheco et al., "Diatom autofocusing in brightfield
        microscopy", ICPR 2000. Opponent colours: Hasler and Süsstrunk, "Measuring colourfulness in natural
        images", 2003.
    """
    image_hwc = np.ascontiguousarray(pixels_chw.permute(1, 2, 0).numpy())
    grey_hw = np.asarray(cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)
    red, green, blue = cv2.split(image_hwc.astype(np.float32) / 255)
    red_green_hw, yellow_blue_hw = red - green, (red + green) / 2 - blue
    contrast = max(float(grey_hw.var()), SMALLEST)
    clipped = float(np.mean((grey_hw < 0.02) | (grey_hw > 0.98)))
    return np.array(
        [
            _sharpness(grey_hw, contrast),
            _sharpness(_half(grey_hw), contrast),
            np.log(contrast),
            grey_hw.mean(),
            red_green_hw.mean(),
            yellow_blue_hw.mean(),
            np.hypot(red_green_hw.std(), yellow_blue_hw.std()),
            clipped,
        ],
        dtype=np.float32,
    )


def _sharpness(grey_hw: NDArray[np.float32], contrast: float) -> float:
    edges_hw = cv2.Laplacian(grey_hw, cv2.CV_32F)
    return float(np.log(max(float(edges_hw.var()), SMALLEST * SMALLEST) / contrast))


def _half(grey_hw: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = grey_hw.shape
    size_wh = max(1, width // 2), max(1, height // 2)
    return np.asarray(cv2.resize(grey_hw, size_wh, interpolation=cv2.INTER_AREA), np.float32)
