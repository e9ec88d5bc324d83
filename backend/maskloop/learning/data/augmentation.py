"""Random views of a training image: an affine transform of image and index map, and a change of colours.

Mirroring turns a left hand into a right one: `mirror_pairs` finds such labels by their names, and
`View.mirrored` is whether a view was mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.errors import ConfigurationError
from maskloop.label_pairs import mirror_pairs
from maskloop.settings import Settings
from maskloop.types import RgbImage

__all__ = ["Augmentation", "View", "augment", "fit_canvas", "mirror_pairs"]

_Plane = TypeVar("_Plane", np.int16, np.uint8)
_SHRINK_BELOW = 0.5  # bilinear sampling of a smaller view than that would skip pixels


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The range of random changes; the defaults are those of a fine-tuning."""

    flips: bool = True  # left-right, and with quarter_turns also upside down
    quarter_turns: bool = True  # by 90, 180 or 270 degrees
    scale: tuple[float, float] = (0.8, 1.25)  # factor on the image's size
    colour: float = 0.15  # largest relative change of brightness, of contrast and of each channel
    paste: float = 0.0  # share of views onto which objects of another image are pasted, 0..1
    pairs: tuple[tuple[str, str], ...] | None = None  # labels that mirroring swaps; None: by their names

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"Augmentation.scale: expected 0 < low <= high, got {self.scale}")
        if not 0 <= self.paste <= 1:
            raise ValueError(f"Augmentation.paste: expected 0..1, got {self.paste}")

    @classmethod
    def from_settings(cls, settings: Settings, *, paste: float = 0.0) -> Augmentation:
        """Return the augmentation of the settings.

        Args:
            settings: what they name is used as it is.
            paste: the share of views to paste onto, unless they name one.

        Raises:
            ConfigurationError: the scales are not a range.
        """
        try:
            return cls(
                quarter_turns=settings.augment_turns,
                scale=settings.augment_scale,
                paste=paste if settings.augment_paste is None else settings.augment_paste,
                pairs=settings.mirror_pairs,
            )
        except ValueError as exc:
            raise ConfigurationError(
                "MASKLOOP_AUGMENT_SCALE",
                expected="two positive factors, the smaller first",
                got=str(list(settings.augment_scale)),
                remedy="set it to a range, for example [0.8, 1.25]",
            ) from exc


class View(NamedTuple):
    """One view of an image."""

    image_hwc: RgbImage
    index_hw: NDArray[np.int16]
    mirrored: bool  # left and right are swapped
    shares_hw: NDArray[np.uint8] | None = None  # of the annotators who count a pixel in; see `TrainingItem`


def augment(
    image_hwc: RgbImage,
    index_hw: NDArray[np.int16],
    *,
    canvas_hw: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
    upright: bool = False,
    finer: tuple[RgbImage, NDArray[np.int16], NDArray[np.uint8] | None] | None = None,
    shares_hw: NDArray[np.uint8] | None = None,
    fill_rgb: tuple[int, int, int] = (124, 116, 104),
) -> View:
    """Return one random view of an image and its index map, both of `canvas_hw`.

    Args:
        image_hwc: uint8 (H, W, 3).
        index_hw: int16 (H, W), 0 is background.
        canvas_hw: size of the view; the image is cropped or padded to it.
        augmentation: range of the changes.
        rng: source of all random numbers; the same state gives the same view.
        upright: no quarter turns and not upside down. For labels that name left or right, since only a plain
            mirror image has a correct label.
        finer: the same image, index map and shares with more pixels, from which enlarged views are taken.
        shares_hw: uint8 (H, W) that goes with the index map, or None.
        fill_rgb: colour outside the image; the index there is 0.
    """
    may_turn = augmentation.quarter_turns and not upright
    turns = int(rng.integers(4)) if may_turn else 0
    flip_x, flip_y = (bool(value) and augmentation.flips for value in rng.integers(0, 2, size=2))
    flip_y = flip_y and may_turn
    scale = float(np.exp(rng.uniform(*np.log(augmentation.scale))))
    shift_xy = rng.uniform(-0.5, 0.5, size=2)
    if scale < _SHRINK_BELOW:
        image_hwc, index_hw, shares_hw = _shrink(image_hwc, index_hw, shares_hw, scale)
        scale = 1.0
    elif scale > 1.0 and finer is not None:
        scale *= image_hwc.shape[0] / finer[0].shape[0]
        image_hwc, index_hw, shares_hw = finer
    matrix = _view_matrix(
        image_hwc.shape[:2],
        canvas_hw,
        turns=turns,
        flips_xy=(flip_x, flip_y),
        scale=scale,
        shift_xy=(float(shift_xy[0]), float(shift_xy[1])),
    )
    view_hwc, view_index_hw = _warp(image_hwc, index_hw, matrix, canvas_hw, fill_rgb)
    jittered_hwc = _jitter_colours(view_hwc, augmentation.colour, rng)
    view_shares_hw = None if shares_hw is None else _warp_nearest(shares_hw, matrix, canvas_hw)
    return View(jittered_hwc, view_index_hw, flip_x != flip_y, view_shares_hw)


def _shrink(
    image_hwc: RgbImage, index_hw: NDArray[np.int16], shares_hw: NDArray[np.uint8] | None, scale: float
) -> tuple[RgbImage, NDArray[np.int16], NDArray[np.uint8] | None]:
    size_wh = tuple(max(round(side * scale), 1) for side in index_hw.shape[::-1])
    small_hwc = cv2.resize(image_hwc, size_wh, interpolation=cv2.INTER_AREA)
    small_index_hw = cv2.resize(index_hw, size_wh, interpolation=cv2.INTER_NEAREST_EXACT)
    small_shares_hw = None
    if shares_hw is not None:
        small_shares_hw = np.asarray(
            cv2.resize(shares_hw, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8
        )
    return np.asarray(small_hwc, np.uint8), np.asarray(small_index_hw, np.int16), small_shares_hw


def fit_canvas(
    image_hwc: RgbImage,
    index_hw: NDArray[np.int16],
    *,
    canvas_hw: tuple[int, int],
    fill_rgb: tuple[int, int, int] = (124, 116, 104),
) -> tuple[RgbImage, NDArray[np.int16]]:
    """Return image and index map centred on the canvas, without rotation or scaling."""
    matrix = _view_matrix(image_hwc.shape[:2], canvas_hw)
    return _warp(image_hwc, index_hw, np.rint(matrix), canvas_hw, fill_rgb)


def _view_matrix(
    size_hw: tuple[int, ...],
    canvas_hw: tuple[int, int],
    *,
    turns: int = 0,
    flips_xy: tuple[bool, bool] = (False, False),
    scale: float = 1.0,
    shift_xy: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """Return the (2, 3) matrix from pixel (x, y) of the image to pixel (x, y) of the canvas.

    Args:
        size_hw: size of the image.
        canvas_hw: size of the canvas.
        turns: quarter turns.
        flips_xy: whether x and y are mirrored.
        scale: factor on the image's size.
        shift_xy: -0.5..0.5, position between the two ends of the room that image and canvas leave.
    """
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag(np.where(flips_xy, -1.0, 1.0)) * scale
    size_xy = np.array(size_hw[::-1], dtype=np.float64)
    canvas_xy = np.array(canvas_hw[::-1], dtype=np.float64)
    slack_xy = np.abs(np.abs(linear) @ size_xy - canvas_xy)
    offset_xy = (canvas_xy - 1) / 2 + np.array(shift_xy) * slack_xy - linear @ ((size_xy - 1) / 2)
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
    return np.asarray(view_hwc, dtype=np.uint8), _warp_nearest(index_hw, matrix, canvas_hw)


def _warp_nearest(
    plane_hw: NDArray[_Plane], matrix: NDArray[np.float64], canvas_hw: tuple[int, int]
) -> NDArray[_Plane]:
    warped_hw = cv2.warpAffine(plane_hw, matrix, canvas_hw[::-1], flags=cv2.INTER_NEAREST, borderValue=0)
    return np.asarray(warped_hw, dtype=plane_hw.dtype)


def _jitter_colours(image_hwc: RgbImage, strength: float, rng: np.random.Generator) -> RgbImage:
    brightness, contrast, *channels = 1.0 + rng.uniform(-strength, strength, size=5)
    gain_c = (brightness * contrast * (1.0 + (np.array(channels) - 1.0) / 2)).astype(np.float32)
    lift = np.float32(image_hwc.mean() * brightness * (1.0 - contrast))
    return np.asarray(np.clip(image_hwc * gain_c + lift + 0.5, 0, 255), dtype=np.uint8)
