"""What the learning curves learn from and are judged on: real images at a size that a CPU can train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskloop.lab.simulation.data import coco_to_example, common_labels, name_digest
from maskloop.lab.synthetic.coco import read_coco
from maskloop.learning.data.dataset import TrainingExample
from maskloop.types import RgbImage, Segment


@dataclass(frozen=True, kw_only=True)
class Source:
    """How one folder becomes examples."""

    folder: str
    edge: int  # pixels: the shorter side that the model sees
    sizes: tuple[int, ...]  # corrected images
    holdout: int  # images that only judge
    tile: int | None = None  # pixels: only a square around the object nearest to the image's middle
    classes: int | None = None  # the so many that are on the most images; None for all
    late: bool = False  # its turn comes when all others are done
    words: str = ""  # for the report


SOURCES: dict[str, Source] = {
    "nuclei": Source(
        folder="nuclei",
        edge=128,
        sizes=(4, 16, 64),
        holdout=36,
        tile=80,
        words="80 x 80 pixels around the middle of each microscopy image, seen at 128, one class",
    ),
    "fruits": Source(
        folder="fruits",
        edge=160,
        sizes=(4, 12),
        holdout=6,
        words="photos of 800 x 600 pixels seen at 213 x 160, three classes",
    ),
    "coco10": Source(
        folder="coco104",
        edge=160,
        sizes=(8, 56),
        holdout=24,
        classes=10,
        late=True,
        words="the photos of coco104 with any of the ten classes that most of them show, seen at 160 pixels",
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """The examples of one source, apart for good."""

    labels: tuple[str, ...]
    training: tuple[TrainingExample, ...]
    holdout: tuple[TrainingExample, ...]


def load_pool(data: Path, source: Source) -> Pool:
    """Return the examples of a source; a hash of the file's name says which of them judge."""
    images = sorted(read_coco(data / source.folder), key=lambda image: name_digest(image.path.name))
    labels = common_labels(images, source.classes)
    shown = [image for image in images if any(segment.label in labels for segment in image.segments)]
    examples = [coco_to_example(image, labels, source.tile) for image in shown]
    filled = [example for example in examples if example.segments]
    return Pool(
        labels=labels, training=tuple(filled[source.holdout :]), holdout=tuple(filled[: source.holdout])
    )


def draw(pool: Pool, images: int, seed: int) -> tuple[TrainingExample, ...]:
    """Return the training examples of one cell; of one seed, a smaller number is part of a larger one."""
    order = np.random.default_rng(seed).permutation(len(pool.training))
    return tuple(pool.training[index] for index in order[:images])


def mosaic(images: Sequence[tuple[RgbImage, tuple[Segment, ...]]]) -> TrainingExample:
    """Return four images of one size as one, two by two."""
    rows = [np.concatenate([images[row][0], images[row + 1][0]], axis=1) for row in (0, 2)]
    height, width = images[0][0].shape[:2]
    segments = []
    for place, (_, parts) in enumerate(images):
        down, right = height * (place // 2), width * (place % 2)
        for part in parts:
            offset_yx = (part.offset_yx[0] + down, part.offset_yx[1] + right)
            segments.append(Segment(mask_hw=part.mask_hw, offset_yx=offset_yx, label=part.label))
    return TrainingExample(image=np.concatenate(rows, axis=0), segments=tuple(segments), key="mosaic")
