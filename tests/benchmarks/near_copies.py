"""How far apart the perceptual hashes of copies are, and of different images.

`python -m tests.benchmarks.near_copies --data FOLDER`: each subfolder with `images/` is a row; the copies are
made of its first 60 images, the distances between images are those of all.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from maskloop.similarity import hash_distances, near_pairs, perceptual_hash
from maskloop.types import RgbImage

COPIED = 60
LONGEST_SIDE = 800  # pixels


def as_jpeg(image: RgbImage) -> RgbImage:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=30)
    return np.asarray(Image.open(stream))


def cropped(image: RgbImage, share: float) -> RgbImage:
    return np.ascontiguousarray(image[int(image.shape[0] * share) :, int(image.shape[1] * share) :])


COPIES: dict[str, Callable[[RgbImage], RgbImage]] = {
    "half size": lambda image: np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5), np.uint8),
    "JPEG 30": as_jpeg,
    "brighter by .3": lambda image: np.clip(image * 1.3, 0, 255).astype(np.uint8),
    "blurred, sigma 2": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 2), np.uint8),
    "cropped by 2 %": lambda image: cropped(image, 0.02),
    "cropped by 5 %": lambda image: cropped(image, 0.05),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
}


def read(path: Path) -> RgbImage:
    with Image.open(path) as image:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return np.asarray(image.convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    print("| images | nearest two | 1 % of pairs nearer than | " + " | ".join(COPIES) + " |")
    print("|---|" + "---|" * (len(COPIES) + 2))
    for folder in sorted(arguments.data.glob("*/images")):
        images = [read(path) for path in sorted(folder.iterdir())]
        if len(images) < 10:
            continue
        hashes = np.stack([perceptual_hash(image) for image in images])
        pairs = [pair[2] for pair in near_pairs(hashes, distance=1.0)]
        cells = [
            f"{folder.parent.name}, {len(images)}",
            f"{min(pairs):.2f}",
            f"{np.quantile(pairs, 0.01):.2f}",
        ]
        for copied in COPIES.values():
            apart = [
                float(hash_distances(perceptual_hash(copied(image)), one[None])[0])
                for image, one in zip(images[:COPIED], hashes, strict=False)
            ]
            cells.append(f"{np.quantile(apart, 0.95):.2f}")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
