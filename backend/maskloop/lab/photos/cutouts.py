"""Photos of one thing on a plain ground -> the thing without its ground, by GrabCut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskloop.errors import ImageError
from maskloop.types import BoolMask, RgbImage

__all__ = ["Photo", "cut_out", "read_photos"]

LONG_EDGE = 256  # pixels; a photo is reduced to it
INSET = 0.03  # of each side: this border is ground for sure
ITERATIONS = 4
SHARE = (0.06, 0.8)  # of the photo that the thing covers; others are no photo of one thing
BORDER = 0.25  # of the border that may belong to the thing
CONTRAST = 12.0  # least distance of the mean colours of thing and ground, in CIELAB
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A reduced photo and the thing on it."""

    image_hwc: RgbImage
    mask_hw: BoolMask | None  # None where the thing could not be told from the ground


def read_photos(folder: Path) -> Iterator[Photo]:
    """Yield the photos of a folder in the order of their names, each cut out.

    Raises:
        ImageError: no image in the folder, or one that cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ImageError(
            str(folder),
            expected="photos of single things (.jpg, .png, .webp)",
            got="none",
            remedy="name the folder that holds them",
        )
    for path in paths:
        loaded = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if loaded is None:
            raise ImageError(str(path), expected="an image", got="a damaged file", remedy="remove it")
        scale = LONG_EDGE / max(loaded.shape[:2])
        size = (max(round(loaded.shape[1] * scale), 1), max(round(loaded.shape[0] * scale), 1))
        reduced = cv2.resize(loaded, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        image_hwc = np.ascontiguousarray(reduced[..., ::-1], dtype=np.uint8)
        yield Photo(image_hwc=image_hwc, mask_hw=cut_out(image_hwc))


def cut_out(image_hwc: RgbImage) -> BoolMask | None:
    """Return the thing in the middle of a photo; None where it does not stand out from the ground.

    Args:
        image_hwc: uint8 (H, W, 3).

    Source:
        Rother, Kolmogorov, Blake, "GrabCut: interactive foreground extraction using iterated graph cuts",
        SIGGRAPH 2004; OpenCV's implementation.
    """
    height, width = image_hwc.shape[:2]
    top, left = max(round(INSET * height), 1), max(round(INSET * width), 1)
    marks_hw = np.full((height, width), cv2.GC_BGD, np.uint8)
    marks_hw[top:-top, left:-left] = cv2.GC_PR_FGD
    colours = np.ascontiguousarray(image_hwc[..., ::-1])
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its first clusters are drawn by chance
    try:
        cv2.grabCut(colours, marks_hw, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    except cv2.error:  # all of one colour
        return None
    found_hw = np.isin(marks_hw, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return _checked(image_hwc, _largest_part(found_hw))


def _largest_part(mask_hw: BoolMask) -> BoolMask:
    """Return the largest connected part, its holes filled."""
    smooth_hw = cv2.morphologyEx(mask_hw.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(smooth_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled_hw = np.zeros(mask_hw.shape, np.uint8)
    if outlines:
        cv2.drawContours(filled_hw, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled_hw.astype(np.bool_)


def _checked(image_hwc: RgbImage, mask_hw: BoolMask) -> BoolMask | None:
    border = np.concatenate([mask_hw[1], mask_hw[-2], mask_hw[:, 1], mask_hw[:, -2]])
    if not SHARE[0] <= mask_hw.mean() <= SHARE[1] or border.mean() > BORDER:
        return None
    lab_hwc = cv2.cvtColor(image_hwc.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    distance = np.linalg.norm(lab_hwc[mask_hw].mean(axis=0) - lab_hwc[~mask_hw].mean(axis=0))
    return mask_hw if distance >= CONTRAST else None
