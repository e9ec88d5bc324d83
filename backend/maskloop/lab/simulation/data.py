"""Images whose truth is known: a folder in COCO form, or made up on the spot; a part of them only judges."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskloop.errors import ConfigurationError
from maskloop.lab.synthetic.coco import CocoImage, read_coco
from maskloop.lab.synthetic.pools import make_pool_image
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.masks import mask_to_segment, paste_segment
from maskloop.types import Segment

__all__ = [
    "LEAST_PIXELS",
    "MADE_UP",
    "MADE_UP_IMAGES",
    "ExperimentData",
    "coco_to_example",
    "common_labels",
    "load_data",
    "name_digest",
    "tile_corner",
]

MADE_UP = "made-up"  # instead of a folder
MADE_UP_IMAGES = 400
LEAST_PIXELS = 24  # of an object within a tile; less of it is ignored


@dataclass(frozen=True, kw_only=True, eq=False)
class ExperimentData:
    """What a simulation works on: the same for all strategies and seeds."""

    labels: tuple[str, ...]  # alphabetical
    pool: tuple[TrainingExample, ...]  # may be labelled
    holdout: tuple[TrainingExample, ...]  # only judge
    digest: str  # SHA-256 of images, truth and split


def load_data(
    source: str,
    *,
    holdout: float,
    limit: int | None = None,
    tile: int | None = None,
    images: int = MADE_UP_IMAGES,
) -> ExperimentData:
    """Return the images of a source, in an order that depends on their names alone.

    A hash of the name says which of them judge, so that it is the same ones whatever else is asked for.

    Args:
        source: a folder with `images/` and `instances.json`, or "made-up". An image without annotations
            counts as one on which nothing is to be found.
        holdout: share of the images that judge, 0..1.
        limit: images of the pool at most.
        tile: pixels: only a square around the object nearest to each image's middle; None for all of it.
        images: how many are made up.

    Raises:
        CodecError: the folder is not of that form.
        ConfigurationError: too few images for a pool and a holdout.
    """
    examples = _made_up(images) if source == MADE_UP else _from_folder(Path(source), tile)
    ranked = sorted(examples, key=lambda example: name_digest(example.key))
    judges = round(holdout * len(ranked))
    pool, judged = ranked[judges:][:limit], ranked[:judges]
    if len(pool) < 2 or not judged:
        raise ConfigurationError(
            f"simulate --data {source}",
            expected="at least two images to choose from and one to judge by",
            got=f"{len(pool)} and {len(judged)}",
            remedy="give more images, or another --holdout",
        )
    labels = {segment.label for example in (*pool, *judged) for segment in example.segments}
    return ExperimentData(
        labels=tuple(sorted(labels)), pool=tuple(pool), holdout=tuple(judged), digest=_digest(pool, judged)
    )


def name_digest(name: str) -> str:
    """Return what orders images as if by chance, and always alike."""
    return hashlib.sha256(name.encode()).hexdigest()


def common_labels(images: Sequence[CocoImage], count: int | None) -> tuple[str, ...]:
    """Return the labels on the most images, in alphabetical order; all of them for None."""
    shown = Counter(label for image in images for label in {segment.label for segment in image.segments})
    ranked = sorted(shown, key=lambda label: (-shown[label], label))
    return tuple(sorted(ranked[:count]))


def coco_to_example(image: CocoImage, labels: Sequence[str], tile: int | None) -> TrainingExample:
    """Return the image, or a tile of it, with the objects of these labels; crowds are ignored."""
    wanted = [segment for segment in image.segments if segment.label in labels]
    crowds = [segment for segment in image.crowds if segment.label in labels]
    if tile is None:
        return TrainingExample(
            image=image.path,
            segments=tuple(part for part in wanted if part.area >= LEAST_PIXELS),
            ignored=(*(part for part in wanted if part.area < LEAST_PIXELS), *crowds),
            key=image.path.name,
        )
    pixels = load_example_image(TrainingExample(image=image.path, segments=(), key=image.path.name))
    top, left = tile_corner(wanted, image.size_hw, tile)
    area = (slice(top, top + tile), slice(left, left + tile))
    kept = list(_cut(wanted, image.size_hw, area))
    return TrainingExample(
        image=np.ascontiguousarray(pixels[area]),
        segments=tuple(part for part in kept if part.area >= LEAST_PIXELS),
        ignored=(*(part for part in kept if part.area < LEAST_PIXELS), *_cut(crowds, image.size_hw, area)),
        key=image.path.name,
    )


def tile_corner(segments: Sequence[Segment], size_hw: tuple[int, int], tile: int) -> tuple[int, int]:
    """Return top and left of a square around the object nearest to the middle, inside the image."""
    middle_yx = np.asarray(size_hw) / 2
    boxes = np.asarray([segment.box_yxyx for segment in segments] or [(0, 0, *size_hw)], dtype=np.float64)
    centres_yx = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest_yx = centres_yx[np.argmin(np.linalg.norm(centres_yx - middle_yx, axis=1))]
    top, left = np.clip(nearest_yx - tile / 2, 0, np.maximum(np.asarray(size_hw) - tile, 0)).astype(int)
    return int(top), int(left)


def _cut(
    segments: Iterable[Segment], size_hw: tuple[int, int], area: tuple[slice, slice]
) -> Iterable[Segment]:
    for segment in segments:
        part = mask_to_segment(paste_segment(segment, size_hw)[area], label=segment.label)
        if part is not None:
            yield part


def _made_up(count: int) -> list[TrainingExample]:
    made = ((seed, make_pool_image(seed)) for seed in range(count))
    return [
        TrainingExample(image=one.image_hwc, segments=one.segments, key=f"{MADE_UP}-{seed}")
        for seed, one in made
    ]


def _from_folder(folder: Path, tile: int | None) -> list[TrainingExample]:
    images = read_coco(folder)
    labels = common_labels(images, None)
    return [coco_to_example(image, labels, tile) for image in images]


def _digest(pool: Sequence[TrainingExample], holdout: Sequence[TrainingExample]) -> str:
    digest = hashlib.sha256()
    for part in (pool, holdout):
        digest.update(f"{len(part)} images".encode())
        for example in part:
            digest.update(example.key.encode())
            image = example.image
            digest.update(image.read_bytes() if isinstance(image, Path) else image.tobytes())
            for segment in (*example.segments, *example.ignored):
                digest.update(repr((segment.label, segment.offset_yx, segment.mask_hw.shape)).encode())
                digest.update(segment.mask_hw.tobytes())
    return digest.hexdigest()
