"""Made-up scenes of photo material with the exact mask of every object, each from a seed alone.

Objects are things cut from photos, and smooth blobs filled with a piece of a photo or with one colour;
grounds are pieces of photos without their thing, or plain. Some scenes have a few large objects, others many
small ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.lab.photos.cutouts import Photo
from maskloop.lab.synthetic.shapes import SyntheticImage
from maskloop.lab.synthetic.textures import BASE_STYLE, light_field, surface
from maskloop.masks import mask_to_segment
from maskloop.shipped import ANY_OBJECT
from maskloop.types import BoolMask, RgbImage

__all__ = ["PhotoScenes"]

FloatImage = NDArray[np.float32]
# How many objects, how large (diameter over the scene's edge), and how often.
CROWDS = (((1, 5), (0.2, 0.65), 0.4), ((4, 12), (0.12, 0.35), 0.35), ((10, 32), (0.06, 0.18), 0.25))
KINDS = ("thing", "textured blob", "plain blob")
ALIKE = 0.65  # of the scenes: all objects are of one kind and made of the same material
GREY = 0.15
VISIBLE = 0.6  # share of an object that later ones must leave visible
LEAST_PIXELS = 16
TRIES = 6


class PhotoScenes:
    """Scenes by seed.

    Args:
        photos: the material; those without a mask serve as grounds and textures.
        edge: of the square scenes, pixels.
        max_objects: on one scene.

    Raises:
        ValueError: no photo has a thing that stands out.
    """

    def __init__(self, photos: Sequence[Photo], *, edge: int, max_objects: int) -> None:
        self._photos = tuple(photos)
        self._things = tuple(photo for photo in photos if photo.mask_hw is not None)
        self._edge, self._max_objects = edge, max_objects
        if not self._things:
            raise ValueError("PhotoScenes: expected a photo whose thing stands out from its ground, got none")

    def make(self, seed: int) -> SyntheticImage:
        """Return the scene of a seed; its segments are disjoint, all of the label "object"."""
        rng = np.random.default_rng([3, seed])
        size_hw = (self._edge, self._edge)
        canvas_hwc = self._ground(rng)
        counts, sizes, _ = CROWDS[rng.choice(len(CROWDS), p=[share for *_, share in CROWDS])]
        wanted = min(int(rng.integers(counts[0], counts[1] + 1)), self._max_objects)
        alike = rng.random() < ALIKE
        kind, material = self._kind(rng), int(rng.integers(2**31))
        placed: list[BoolMask] = []
        full: list[int] = []
        for _ in range(wanted):
            if not alike:
                kind, material = self._kind(rng), int(rng.integers(2**31))
            for _ in range(TRIES):
                size = int(self._edge * rng.uniform(*sizes))
                look_hwc, mask_hw = self._object(kind, material, max(size, 6), canvas_hwc, rng)
                whole_hw, spot = _place(mask_hw, size_hw, rng)
                rest = [one & ~whole_hw for one in placed]
                seen = [int(np.count_nonzero(one)) for one in (*rest, whole_hw)]
                areas = [*full, int(np.count_nonzero(mask_hw))]
                if all(
                    got >= max(VISIBLE * area, LEAST_PIXELS) for got, area in zip(seen, areas, strict=True)
                ):
                    placed, full = [*rest, whole_hw], areas
                    _paint(canvas_hwc, look_hwc, mask_hw, spot, rng)
                    break
        return SyntheticImage(
            image_hwc=_developed(canvas_hwc, rng),
            segments=tuple(
                segment for one in placed if (segment := mask_to_segment(one, label=ANY_OBJECT)) is not None
            ),
        )

    def _kind(self, rng: np.random.Generator) -> str:
        return KINDS[int(rng.choice(len(KINDS), p=(0.4, 0.35, 0.25)))]

    def _ground(self, rng: np.random.Generator) -> FloatImage:
        if rng.random() < 0.3:
            colour = np.asarray(rng.uniform(10, 245, size=3), dtype=np.float32)
            return np.clip(surface(rng, (self._edge, self._edge), colour, BASE_STYLE), 0, 255)
        piece_hwc = self._piece(rng, self._edge, without_thing=True)
        if rng.random() < 0.5:
            piece_hwc = _blurred(piece_hwc, rng.uniform(0.5, 3.0))
        return _recoloured(piece_hwc, rng, strength=0.5)

    def _piece(self, rng: np.random.Generator, size: int, *, without_thing: bool) -> FloatImage:
        """Return float32 (size, size, 3): a random square of a photo, enlarged or reduced."""
        least = 2.0
        best: FloatImage = np.zeros((1, 1, 3), np.float32)
        sides = (0.08, 0.45) if without_thing else (0.15, 0.7)
        for _ in range(12):
            photo = self._photos[int(rng.integers(len(self._photos)))]
            height, width = photo.image_hwc.shape[:2]
            side = int(min(height, width) * rng.uniform(*sides))
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            place = (slice(top, top + side), slice(left, left + side))
            share = 1.0 if photo.mask_hw is None else float(photo.mask_hw[place].mean())
            if share < least:
                least, best = share, photo.image_hwc[place].astype(np.float32)
            if not without_thing or least < 0.02:
                break
        if without_thing and least >= 0.02:  # what is on it must not look like an object
            best = _blurred(best, best.shape[0] / 8)
        turned = np.rot90(best, int(rng.integers(4)))
        return np.asarray(cv2.resize(np.ascontiguousarray(turned), (size, size)), dtype=np.float32)

    def _object(
        self, kind: str, material: int, size: int, ground_hwc: FloatImage, rng: np.random.Generator
    ) -> tuple[FloatImage, BoolMask]:
        """Return float32 (h, w, 3) and its mask; objects of one material look alike."""
        own = np.random.default_rng(material)
        if kind == "thing":
            photo = self._things[int(own.integers(len(self._things)))]
            assert photo.mask_hw is not None
            image_hwc, mask_hw = _turned(photo.image_hwc, photo.mask_hw, size, rng)
            return _recoloured(image_hwc, own, strength=1.0), mask_hw
        mask_hw = _blob(size, own, rng)
        shape_hw = mask_hw.shape
        if kind == "textured blob":
            look_hwc = self._piece(own, max(shape_hw), without_thing=False)[: shape_hw[0], : shape_hw[1]]
            look_hwc = _recoloured(look_hwc, own, strength=1.0)
        else:
            ground = ground_hwc.reshape(-1, 3).mean(axis=0)
            away = own.normal(size=3)
            colour = ground + own.uniform(18, 110) * away / np.linalg.norm(away)
            look_hwc = surface(own, (max(shape_hw[0], 4), max(shape_hw[1], 4)), colour, BASE_STYLE)
            look_hwc = np.asarray(look_hwc[: shape_hw[0], : shape_hw[1]], dtype=np.float32)
        return np.clip(look_hwc * _shading(mask_hw, own), 0, 255), mask_hw


def _blob(size: int, own: np.random.Generator, rng: np.random.Generator) -> BoolMask:
    """Return a smooth closed outline, filled: an ellipse, or one with some waves."""
    waves, stretch = own.uniform(0, 0.35) * (own.random() < 0.6), own.uniform(0.45, 1.0)
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radii: NDArray[np.float64] = np.ones(len(angles))
    for frequency in range(2, 6):
        radii += rng.normal(0, waves / frequency) * np.cos(frequency * angles + rng.uniform(0, 2 * np.pi))
    radii = np.clip(radii, 0.35, 1.6) * size / 2
    stretch *= rng.uniform(0.85, 1.15)
    stretched = np.stack([np.cos(angles) * radii, np.sin(angles) * radii * stretch], axis=1)
    turn = rng.uniform(0, 2 * np.pi)
    turned = stretched @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned = turned - turned.min(axis=0) + 1
    width, height = (int(one) + 3 for one in turned.max(axis=0))
    mask_hw = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask_hw, [np.rint(turned).astype(np.int32)], 1)
    return mask_hw.astype(np.bool_)


def _turned(
    image_hwc: RgbImage, mask_hw: BoolMask, size: int, rng: np.random.Generator
) -> tuple[FloatImage, BoolMask]:
    """Return the thing of a photo, reduced to a size, turned by any angle, mirrored by chance."""
    rows, columns = (np.flatnonzero(mask_hw.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    image_hwc, mask_hw = image_hwc[box], mask_hw[box]
    if rng.random() < 0.5:
        image_hwc, mask_hw = image_hwc[:, ::-1], mask_hw[:, ::-1]
    height, width = mask_hw.shape
    scale = size / max(height, width)
    canvas = int(np.ceil(size * 1.45)) + 2
    matrix = np.asarray(
        cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), scale), dtype=np.float64
    )
    matrix[:, 2] += (canvas - width) / 2, (canvas - height) / 2
    shrunk_hwc = image_hwc.astype(np.float32)
    if scale < 0.5:  # no jagged texture
        shrunk_hwc = _blurred(shrunk_hwc, 0.35 / scale)
    turned_hwc = cv2.warpAffine(shrunk_hwc, matrix, (canvas, canvas), borderMode=cv2.BORDER_REFLECT)
    turned_hw = cv2.warpAffine(mask_hw.astype(np.float32), matrix, (canvas, canvas)) > 0.5
    return np.asarray(turned_hwc, dtype=np.float32), turned_hw


def _place(
    mask_hw: BoolMask, size_hw: tuple[int, int], rng: np.random.Generator
) -> tuple[BoolMask, tuple[int, int]]:
    """Return the mask within the scene, and where its corner lies; a third of an object may lie outside."""
    height, width = mask_hw.shape
    top, left = (
        int(rng.integers(-extent // 3, max(whole - 2 * extent // 3, -extent // 3 + 1)))
        for extent, whole in ((height, size_hw[0]), (width, size_hw[1]))
    )
    whole_hw = np.zeros(size_hw, np.bool_)
    inner, outer = _overlap((top, left), mask_hw.shape, size_hw)
    whole_hw[outer] = mask_hw[inner]
    return whole_hw, (top, left)


def _overlap(
    spot: tuple[int, int], shape_hw: tuple[int, ...], size_hw: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    inner, outer = [], []
    for start, extent, whole in zip(spot, shape_hw, size_hw, strict=True):
        first, last = max(start, 0), min(start + extent, whole)
        outer.append(slice(first, max(last, first)))
        inner.append(slice(first - start, max(last, first) - start))
    return (inner[0], inner[1]), (outer[0], outer[1])


def _paint(
    canvas_hwc: FloatImage,
    look_hwc: FloatImage,
    mask_hw: BoolMask,
    spot: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    """Draw an object over the canvas, its edge softened by about a pixel, with a shadow by chance."""
    inner, outer = _overlap(spot, mask_hw.shape, canvas_hwc.shape[:2])
    soft_hw = cv2.GaussianBlur(mask_hw.astype(np.float32), (0, 0), rng.uniform(0.3, 0.8))[inner][..., None]
    if rng.random() < 0.35:
        size = max(mask_hw.shape)
        shadow_hw = cv2.GaussianBlur(mask_hw.astype(np.float32), (0, 0), max(size / 12, 1.0))
        moved = (
            spot[0] + round(size * rng.uniform(-0.06, 0.08)),
            spot[1] + round(size * rng.uniform(-0.06, 0.06)),
        )
        from_in, to_out = _overlap(moved, mask_hw.shape, canvas_hwc.shape[:2])
        canvas_hwc[to_out] *= 1 - rng.uniform(0.1, 0.45) * shadow_hw[from_in][..., None]
    canvas_hwc[outer] = canvas_hwc[outer] * (1 - soft_hw) + look_hwc[inner] * soft_hw


def _shading(mask_hw: BoolMask, own: np.random.Generator) -> FloatImage:
    """Return factors (h, w, 1): darker or brighter towards the edge, and to one side."""
    depth_hw = cv2.distanceTransform(np.pad(mask_hw, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    round_hw = np.sqrt(depth_hw / max(float(depth_hw.max()), 1.0))
    height, width = mask_hw.shape
    down, across = own.normal(), own.normal()
    side_hw = np.linspace(-1, 1, height)[:, None] * down + np.linspace(-1, 1, width)[None] * across
    factor_hw = 1 + own.uniform(-0.15, 0.35) * (round_hw - 0.6) + 0.06 * side_hw
    return np.asarray(factor_hw[..., None], dtype=np.float32)


def _recoloured(image_hwc: FloatImage, rng: np.random.Generator, *, strength: float) -> FloatImage:
    """Return an image with another hue, saturation and brightness."""
    gain = np.exp(rng.normal(0, 0.22 * strength, size=3)) * np.exp(rng.normal(0, 0.25 * strength))
    mixed = np.roll(image_hwc, int(rng.integers(3)), axis=2) if rng.random() < 0.4 * strength else image_hwc
    grey_hw1 = mixed.mean(axis=2, keepdims=True)
    toned = grey_hw1 + (mixed - grey_hw1) * rng.uniform(1 - 0.7 * strength, 1 + 0.5 * strength)
    return np.asarray(np.clip(toned * gain, 0, 255), dtype=np.float32)


def _blurred(image_hwc: FloatImage, sigma: float) -> FloatImage:
    return np.asarray(cv2.GaussianBlur(image_hwc, (0, 0), sigma), dtype=np.float32)


def _developed(canvas_hwc: FloatImage, rng: np.random.Generator) -> RgbImage:
    """Return uint8: light, blur, noise, sometimes grey or inverted."""
    height, width = canvas_hwc.shape[:2]
    lit_hwc = np.asarray(canvas_hwc * light_field(rng, (height, width), BASE_STYLE), dtype=np.float32)
    if rng.random() < 0.4:
        lit_hwc = _blurred(lit_hwc, rng.uniform(0.3, 1.0))
    noisy_hwc = lit_hwc + rng.normal(0.0, rng.uniform(0, 7), lit_hwc.shape)
    if rng.random() < GREY:
        noisy_hwc = np.repeat(noisy_hwc.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.1:
        noisy_hwc = 255 - noisy_hwc
    return np.clip(np.rint(noisy_hwc), 0, 255).astype(np.uint8)
