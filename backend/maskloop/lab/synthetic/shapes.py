"""Made-up images of simple shapes with their exact visible masks, in two domains, each from a seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.lab.synthetic.textures import (
    BASE_STYLE,
    SHIFTED_STYLE,
    Style,
    background_colour,
    light_field,
    object_colour,
    surface,
)
from maskloop.masks import mask_to_segment
from maskloop.types import BoolMask, RgbImage, Segment

__all__ = ["SHAPE_CLASSES", "Domain", "SyntheticImage", "make_image"]

Domain: TypeAlias = Literal["base", "shifted"]

SHAPE_CLASSES = ("disc", "square", "triangle", "ring", "star")

# A class has its usual colour, as fruit has: degrees of hue.
_HUES = {"disc": 0.0, "square": 225.0, "triangle": 130.0, "ring": 45.0, "star": 300.0}

_STYLES: dict[str, tuple[int, Style]] = {"base": (1, BASE_STYLE), "shifted": (2, SHIFTED_STYLE)}
_MAX_OBJECTS = 5
_PLACEMENT_TRIES = 8  # an object that finds no place is left out
_MIN_VISIBLE = 0.6  # share of an object that later ones must leave visible
_MIN_VISIBLE_PIXELS = 24
_SUBPIXEL_BITS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticImage:
    """One made-up image and all that is to be seen in it."""

    image_hwc: RgbImage  # uint8 (H, W, 3)
    segments: tuple[Segment, ...]  # disjoint; exactly the visible pixels, in the order drawn


def make_image(
    seed: int,
    *,
    size_hw: tuple[int, int] = (128, 128),
    domain: Domain = "base",
    classes: Sequence[str] = SHAPE_CLASSES,
) -> SyntheticImage:
    """Return the image that belongs to a seed: one to five shapes on a textured background.

    Args:
        seed: any non-negative integer; the same seed and arguments give the same image.
        size_hw: (H, W) in pixels, at least 32 each; shapes scale with the shorter side.
        domain: "base" is bright; "shifted" is dim and striped.
        classes: which of SHAPE_CLASSES may appear.

    Returns:
        The image and its segments; what a later shape covers is cut from the earlier one's mask.

    Raises:
        ValueError: an unknown domain or class, no class, or an image under 32 pixels.
    """
    _check_request(size_hw, domain, classes)
    stream, style = _STYLES[domain]
    rng = np.random.default_rng([stream, seed])
    placed = _place_shapes(rng, size_hw, classes)
    colours = [background_colour(rng, style)]
    canvas_hwc = surface(rng, size_hw, colours[0], style)
    for label, mask_hw in placed:
        colours.append(object_colour(rng, _HUES[label], colours, style))
        canvas_hwc[mask_hw] = surface(rng, size_hw, colours[-1], style)[mask_hw]
    lit_hwc = cv2.GaussianBlur(canvas_hwc, (3, 3), 0.5) * light_field(rng, size_hw, style)
    noisy_hwc = lit_hwc + rng.normal(0.0, rng.uniform(*style.noise), lit_hwc.shape)
    segments = (mask_to_segment(mask_hw, label=label) for label, mask_hw in placed)
    return SyntheticImage(
        image_hwc=np.clip(np.rint(noisy_hwc), 0, 255).astype(np.uint8),
        segments=tuple(segment for segment in segments if segment is not None),
    )


def _check_request(size_hw: tuple[int, int], domain: str, classes: Sequence[str]) -> None:
    if domain not in _STYLES:
        raise ValueError(f"make_image domain: expected one of {sorted(_STYLES)}, got {domain!r}")
    unknown = [name for name in classes if name not in SHAPE_CLASSES]
    if unknown or not classes:
        raise ValueError(f"make_image classes: expected some of {SHAPE_CLASSES}, got {tuple(classes)}")
    if min(size_hw) < 32:
        raise ValueError(f"make_image size_hw: expected at least 32x32, got {size_hw}")


def _place_shapes(
    rng: np.random.Generator, size_hw: tuple[int, int], classes: Sequence[str]
) -> list[tuple[str, BoolMask]]:
    """Return label and visible mask of each shape, in the order drawn."""
    placed: list[tuple[str, BoolMask]] = []
    full_areas: list[int] = []
    wanted = int(rng.integers(1, _MAX_OBJECTS + 1))
    for _ in range(wanted):
        label = classes[int(rng.integers(len(classes)))]
        for _ in range(_PLACEMENT_TRIES):
            mask_hw, area = _draw_shape(rng, size_hw, label)
            rest = [(name, earlier_hw & ~mask_hw) for name, earlier_hw in placed]
            visible = [
                *(int(np.count_nonzero(left_hw)) for _, left_hw in rest),
                int(np.count_nonzero(mask_hw)),
            ]
            needed = [max(_MIN_VISIBLE * full, _MIN_VISIBLE_PIXELS) for full in [*full_areas, area]]
            if all(seen >= least for seen, least in zip(visible, needed, strict=True)):
                placed = [*rest, (label, mask_hw)]
                full_areas.append(area)
                break
    return placed


def _draw_shape(rng: np.random.Generator, size_hw: tuple[int, int], label: str) -> tuple[BoolMask, int]:
    """Return the shape's mask within the image, and its area in pixels were nothing cut off."""
    radius = min(size_hw) * rng.uniform(0.13, 0.28)
    centre_xy = rng.uniform(0.6 * radius, np.array(size_hw[::-1]) - 0.6 * radius)
    stretch = rng.uniform(0.88, 1.0)
    contours = [
        _transform(points, radius=radius, stretch=stretch, angle=rng.uniform(0, 2 * np.pi))
        for points in _OUTLINES[label]
    ]
    canvas_hw = np.zeros(size_hw, dtype=np.uint8)
    fixed = [np.rint((points + centre_xy) * 2**_SUBPIXEL_BITS).astype(np.int32) for points in contours]
    cv2.fillPoly(canvas_hw, fixed[:1], 1, shift=_SUBPIXEL_BITS)
    if len(fixed) > 1:
        cv2.fillPoly(canvas_hw, fixed[1:], 0, shift=_SUBPIXEL_BITS)
    areas = [abs(float(cv2.contourArea(points.astype(np.float32)))) for points in contours]
    return canvas_hw.astype(np.bool_), int(areas[0] - sum(areas[1:]))


def _transform(
    points_xy: NDArray[np.float64], *, radius: float, stretch: float, angle: float
) -> NDArray[np.float64]:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray((points_xy * [1.0, stretch]) @ turn.T * radius)


def _polygon(corners: int, radii: Sequence[float] = (1.0,)) -> NDArray[np.float64]:
    angles = np.arange(corners) * (2 * np.pi / corners)
    lengths = np.resize(np.asarray(radii), corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]


# Each outline fits the unit circle; a second one is a hole.
_OUTLINES: dict[str, list[NDArray[np.float64]]] = {
    "disc": [_polygon(64) * 0.9],
    "square": [_polygon(4)],
    "triangle": [_polygon(3)],
    "ring": [_polygon(64), _polygon(64) * 0.5],
    "star": [_polygon(10, (1.0, 0.42))],
}
