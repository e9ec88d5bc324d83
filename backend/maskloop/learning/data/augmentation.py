"""Random views of a training image: one affine warp and a change of colours, the same for image and masks.

In a mirror a left hand is a right one: `mirror_pairs` finds such labels by their names, and `View` says
whether a view was mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.errors import ConfigurationError
from maskloop.label_pairs import mirror_pairs
from maskloop.settings import Settings
from maskloop.types import RgbImage

__all__ = ["Augmentation", "View", "augment", "fit_canvas", "mirror_pairs"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a view may stray from the image; the default of a fine-tuning."""

    flips: bool = True  # left-right, and upside down where it may be turned
    quarter_turns: bool = True  # by 90, 180 or 270 degrees
    scale: tuple[float, float] = (0.8, 1.25)  # factor on the image's size
    colour: float = 0.15  # relative change of brightness, contrast and of each channel
    pairs: tuple[tuple[str, str], ...] | None = None  # labels that swap in a mirror; None: by their names

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"Augmentation.scale: expected 0 < low <= high, got {self.scale}")

    @classmethod
    def from_settings(cls, settings: Settings) -> Augmentation:
        """Return what the settings allow.

        Raises:
            ConfigurationError: scales that are no range.
        """
        try:
            return cls(
                quarter_turns=settings.augment_turns,
                scale=settings.augment_scale,
                pairs=settings.mirror_pairs,
            )
        except ValueError as exc:
            raise ConfigurationError(
                "MASKLOOP_AUGMENT_SCALE",
                expected="two positive factors, the smaller first",
                got=str(list(settings.augment_scale)),
                remedy="set it to such as [0.8, 1.25]",
            ) from exc


class View(NamedTuple):
    """One view of an image."""

    image_hwc: RgbImage
    index_hw: NDArray[np.int16]
    mirrored: bool  # what was left is right


def augment(
    image_hwc: RgbImage,
    index_hw: NDArray[np.int16],
    *,
    canvas_hw: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
    upright: bool = False,
    fill_rgb: tuple[int, int, int] = (124, 116, 104),
) -> View:
    """Return one random view of an image and its index map, both of `canvas_hw`.

    Args:
        image_hwc: uint8 (H, W, 3).
        index_hw: int16 (H, W), 0 is background.
        canvas_hw: size of the view; what does not fit is cut off, what is missing is filled.
        augmentation: how far a view may stray.
        rng: drives every choice; the same state gives the same view.
        upright: neither turned nor upside down, whatever `augmentation` allows: where labels tell left from
            right, only a plain mirror keeps a meaning.
        fill_rgb: colour beyond the image's border; the index there is 0.
    """
    may_turn = augmentation.quarter_turns and not upright
    turns = int(rng.integers(4)) if may_turn else 0
    flip_x, flip_y = (bool(value) and augmentation.flips for value in rng.integers(0, 2, size=2))
    flip_y = flip_y and may_turn
    scale = float(np.exp(rng.uniform(*np.log(augmentation.scale))))
    shift_xy = rng.uniform(-0.5, 0.5, size=2)
    matrix = _view_matrix(image_hwc.shape[:2], canvas_hw, turns, (flip_x, flip_y), scale, shift_xy)
    view_hwc, view_index_hw = _warp(image_hwc, index_hw, matrix, canvas_hw, fill_rgb)
    return View(_jitter_colours(view_hwc, augmentation.colour, rng), view_index_hw, flip_x != flip_y)


def fit_canvas(
    image_hwc: RgbImage,
    index_hw: NDArray[np.int16],
    *,
    canvas_hw: tuple[int, int],
    fill_rgb: tuple[int, int, int] = (124, 116, 104),
) -> tuple[RgbImage, NDArray[np.int16]]:
    """Return image and index map centred on the canvas, neither turned nor scaled."""
    matrix = _view_matrix(image_hwc.shape[:2], canvas_hw, 0, (False, False), 1.0, np.zeros(2))
    return _warp(image_hwc, index_hw, np.rint(matrix), canvas_hw, fill_rgb)


def _view_matrix(
    size_hw: tuple[int, ...],
    canvas_hw: tuple[int, int],
    turns: int,
    flips_xy: tuple[bool, bool],
    scale: float,
    shift_xy: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the (2, 3) matrix from pixel (x, y) of the image to pixel (x, y) of the canvas."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag(np.where(flips_xy, -1.0, 1.0)) * scale
    size_xy = np.array(size_hw[::-1], dtype=np.float64)
    canvas_xy = np.array(canvas_hw[::-1], dtype=np.float64)
    slack_xy = np.abs(np.abs(linear) @ size_xy - canvas_xy)
    offset_xy = (canvas_xy - 1) / 2 + shift_xy * slack_xy - linear @ ((size_xy - 1) / 2)
    return np.concatenate([linear, offset_xy[:, None]], axis=1)


def _warp(
    image_hwc: RgbImage,
    index_hw: NDArray[np.int16],
    matrix: NDArray[np.float64],
    canvas_hw: tuple[int, int],
    fill_rgb: tuple[int, int, int],
) -> tuple[RgbImage, NDArray[np.int16]]:
    size_wh = canvas_hw[::-1]
    view_hwc = cv2.warpAffine(image_hwc, matrix, size_wh, flags=cv2.INTER_LINEAR, borderValue=fill_rgb)
    view_index_hw = cv2.warpAffine(index_hw, matrix, size_wh, flags=cv2.INTER_NEAREST, borderValue=0)
    return np.asarray(view_hwc, dtype=np.uint8), np.asarray(view_index_hw, dtype=np.int16)


def _jitter_colours(image_hwc: RgbImage, strength: float, rng: np.random.Generator) -> RgbImage:
    brightness, contrast, *channels = 1.0 + rng.uniform(-strength, strength, size=5)
    gain_c = (brightness * contrast * (1.0 + (np.array(channels) - 1.0) / 2)).astype(np.float32)
    lift = np.float32(image_hwc.mean() * brightness * (1.0 - contrast))
    return np.asarray(np.clip(image_hwc * gain_c + lift + 0.5, 0, 255), dtype=np.uint8)
