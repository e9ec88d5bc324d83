"""Drift: false alarms on exchangeable values, and how soon injected changes are told with the shipped model.

    python -m tests.benchmarks.drift --runs 200 --seeds 5

Images are made up. Another camera: gamma and a colour cast; blur: a Gaussian of 2 pixels; a new class: images
of stars and rings alone, after ones without; another site: the dim, striped domain.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from maskloop.drift.detector import watch
from maskloop.drift.signals import learnt_distances
from maskloop.lab.synthetic.shapes import make_image
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.predict import predict_images
from maskloop.settings import Settings
from maskloop.types import RgbImage, SegmentationTask
from maskloop_studio.projects.drift_watch import THRESHOLD

Looked: TypeAlias = tuple[np.ndarray, np.ndarray, list[float]]  # embeddings (N, D), looks, confidences
FAMILIAR = ("disc", "square", "triangle")
LEARNT, KNOWN, BEFORE, AFTER = 40, 20, 150, 100
IMAGES = 10_000  # of a run on exchangeable values


def _camera(image: RgbImage) -> RgbImage:
    bright = (image / 255.0) ** 1.6 * np.array([1.0, 0.85, 0.7])
    return (255 * np.clip(bright, 0, 1)).astype(np.uint8)


def _blur(image: RgbImage) -> RgbImage:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0))


def familiar(seed: int) -> RgbImage:
    return make_image(seed, size_hw=(96, 96), classes=FAMILIAR).image_hwc


CHANGES: dict[str, Callable[[int], RgbImage]] = {
    "other camera": lambda seed: _camera(familiar(seed)),
    "blur": lambda seed: _blur(familiar(seed)),
    "new class": lambda seed: make_image(seed, size_hw=(96, 96), classes=("star", "ring")).image_hwc,
    "other site": lambda seed: (
        make_image(seed, size_hw=(96, 96), classes=FAMILIAR, domain="shifted").image_hwc
    ),
}


def false_alarms(runs: int, two_sided: bool) -> dict[str, float]:
    alarms, with_one = 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        values, ties = rng.standard_normal(IMAGES), rng.random(IMAGES)
        found = watch(
            [rng.standard_normal(KNOWN).tolist()],
            [values.tolist()],
            ties.tolist(),
            images_per_alarm=THRESHOLD,
            two_sided=two_sided,
        ).alarms
        alarms, with_one = alarms + len(found), with_one + bool(found)
    return {"runs": runs, "images": runs * IMAGES, "alarms": alarms, "runs_with_one": with_one}


def look(checkpoint: Checkpoint, images: Sequence[RgbImage]) -> Looked:
    found = predict_images(
        checkpoint,
        images,
        task=SegmentationTask.INSTANCE,
        for_selection=True,
    )
    inputs = [one.selection_inputs for one in found]
    embeddings_nd = np.stack([one.embedding_d for one in inputs])
    return embeddings_nd, np.stack([one.look_k for one in inputs]), [one.confidence for one in found]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A project before anything changes: images learnt from, of the holdout, and new ones."""

    first: int  # seed of its first image
    learnt: Looked
    known: Looked
    before: Looked

    @classmethod
    def look(cls, checkpoint: Checkpoint, *, first: int) -> Scene:
        """Return what the model sees in them."""
        return cls(
            first=first,
            learnt=look(checkpoint, [familiar(first + n) for n in range(LEARNT)]),
            known=look(checkpoint, [familiar(first + 1000 + n) for n in range(KNOWN)]),
            before=look(checkpoint, [familiar(first + 2000 + n) for n in range(BEFORE)]),
        )

    def told_after(self, checkpoint: Checkpoint, change: str, seed: int) -> dict[str, int | None]:
        """Return signal -> after how many changed images it told; None: it did not; negative: before them."""
        after = look(checkpoint, [CHANGES[change](self.first + 3000 + n) for n in range(AFTER)])
        stream = [np.concatenate([self.before[kind], after[kind]]) for kind in (0, 1)]
        ties = np.random.default_rng(seed).random(BEFORE + AFTER).tolist()
        by_images = watch(
            [learnt_distances(self.learnt[kind], self.known[kind]).tolist() for kind in (0, 1)],
            [learnt_distances(self.learnt[kind], stream[kind]).tolist() for kind in (0, 1)],
            ties,
            images_per_alarm=THRESHOLD,
        ).alarms
        by_scores = watch(
            [self.known[2]],
            [self.before[2] + after[2]],
            ties,
            images_per_alarm=THRESHOLD,
            two_sided=True,
        ).alarms
        return {
            name: found[0] + 1 - BEFORE if found else None
            for name, found in (("images", by_images), ("scores", by_scores))
        }


def main() -> None:
    """Print JSON: false alarms, and for each change after how many images each signal told it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    started = time.monotonic()
    result: dict[str, object] = {
        "false_alarms": {
            "one-sided": false_alarms(options.runs, False),
            "two-sided": false_alarms(options.runs, True),
        }
    }
    checkpoint = load_checkpoint(Settings().model, device="cpu")
    told: dict[str, list[dict[str, int | None]]] = {name: [] for name in CHANGES}
    for seed in range(options.seeds):
        scene = Scene.look(checkpoint, first=100_000 * (seed + 1))
        for name in CHANGES:
            told[name].append(scene.told_after(checkpoint, name, seed))
    print(json.dumps(result | {"told_after": told, "seconds": round(time.monotonic() - started)}, indent=1))


if __name__ == "__main__":
    main()
