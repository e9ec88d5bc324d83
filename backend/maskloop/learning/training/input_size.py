"""How large a model sees its images: as its checkpoint says, and larger where the objects would be too small.

A mask has a quarter of the input's pixels on each side: an object of 8 pixels is 2 x 2 cells, which nothing
can be drawn with.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from maskloop.learning.data.dataset import TrainingExample, unreadable_image
from maskloop.log import log_action
from maskloop.segmentation.preprocess import Preprocessing, resized_size

__all__ = ["cost_ratio", "fitting_size"]

logger = logging.getLogger(__name__)
WANTED_PX = 16.0  # side of an object in the middle of all images, as the model sees it: 4 cells of a mask
LEAST_FACTOR = 1.25  # less is not worth a model of another speed
MOST_FACTOR = 2.5  # at once; the next training may go on from there
MOST_OWN = 1.5  # of an image's own size: more pixels show nothing new
MOST_PIXELS = 1333 * 800  # of an input: what the large published models are trained on
STEP = 32  # pixels: the coarsest stride of the models
_ROTATED = range(5, 9)  # values of EXIF's orientation that swap height and width
_ORIENTATION = 0x0112


def fitting_size(
    preprocessing: Preprocessing, examples: Sequence[TrainingExample], *, edge: int | None
) -> Preprocessing:
    """Return the preprocessing with a larger input where the objects would be too small to be drawn.

    The middle image's middle object gets sides of about 16 pixels. Inputs never become smaller; models whose
    input has a fixed size keep it.

    Args:
        preprocessing: of the base.
        examples: to learn from.
        edge: pixels of the shorter side that a person asks for; None: by the objects.

    Raises:
        ImageError: an example's image cannot be read.
    """
    if preprocessing.shortest_edge is None:
        return preprocessing
    if edge is not None:
        return _with_edge(preprocessing, edge)
    sides, own, pixels = [], [], []
    for example in examples:
        size_hw = _size_hw(example)
        seen_hw = resized_size(size_hw, preprocessing)
        scale = min(seen_hw) / min(size_hw)
        own.append(1 / scale)
        pixels.append(math.prod(seen_hw))
        if areas := [one.area for one in (*example.segments, *example.boxes)]:
            sides.append(math.sqrt(statistics.median(areas)) * scale)
    if not sides:
        return preprocessing
    side = statistics.median(sides)
    factor = min(
        WANTED_PX / max(side, 1e-6),
        MOST_FACTOR,
        MOST_OWN * statistics.median(own),
        math.sqrt(MOST_PIXELS / statistics.median(pixels)),
    )
    if factor < LEAST_FACTOR:
        return preprocessing
    larger = _with_edge(preprocessing, STEP * round(preprocessing.shortest_edge * factor / STEP))
    log_action(
        logger,
        "input_enlarged",
        before=preprocessing.shortest_edge,
        edge=larger.shortest_edge,
        object_px=round(side, 1),
        images=len(examples),
    )
    return larger


def cost_ratio(before: Preprocessing, after: Preprocessing) -> float:
    """Return how many times the pixels of an input another preprocessing has, at least 1."""
    if before.shortest_edge is None or after.shortest_edge is None:
        return 1.0
    return max(1.0, (after.shortest_edge / before.shortest_edge) ** 2)


def _with_edge(preprocessing: Preprocessing, edge: int) -> Preprocessing:
    shortest, longest = preprocessing.shortest_edge, preprocessing.longest_edge
    if shortest is None or edge == shortest:
        return preprocessing
    return replace(
        preprocessing,
        shortest_edge=edge,
        longest_edge=None if longest is None else round(longest * edge / shortest),
    )


def _size_hw(example: TrainingExample) -> tuple[int, int]:
    """Return an image's height and width, upright, without decoding it."""
    if not isinstance(example.image, Path):
        return example.image.shape[0], example.image.shape[1]
    try:
        with Image.open(example.image) as image:
            width, height = image.size
            rotated = image.getexif().get(_ORIENTATION) in _ROTATED
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as exc:
        raise unreadable_image(example, exc) from exc
    return (width, height) if rotated else (height, width)
