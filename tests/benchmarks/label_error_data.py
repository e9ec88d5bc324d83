"""What the label-error benchmark works on: images, truth, and what models see that had not seen them.

The models learn in folds from labels with errors of all kinds, as a project's models do. Predictions are kept
on disk, so that every method is measured on the same.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from maskloop.curation.review.injection import inject
from maskloop.curation.review.look import look_at
from maskloop.curation.review.suspicion import Evidence, SuspicionKind
from maskloop.lab.simulation.data import coco_to_example, common_labels, name_digest
from maskloop.lab.synthetic.coco import read_coco
from maskloop.lab.synthetic.shapes import make_image
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import recipe_for
from maskloop.masks import mask_to_segment
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.settings import BASE_MODEL, Settings
from maskloop.types import Segment, SegmentationTask

from .label_error_shapes import BENCHMARK

FIRST_SEED = 60_000_000  # of made-up images: no model has learnt from these
LEARNT_SHARE = 0.15  # of the regions that the models learn from have an error of a kind drawn by chance
PLAN = 3  # of sizes, models, recipe and evidence: predictions of another one are made again


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """How one source becomes a set."""

    name: str
    edge: int  # pixels: the shorter side that the model sees
    folds: int
    steps: int  # of each fold's training, at most
    tile: int | None = None
    images: int | None = None  # at most


SETS: dict[str, LabelSet] = {
    "made-up": LabelSet(name="made-up", edge=128, folds=0, steps=0, images=120),
    "nuclei": LabelSet(name="nuclei", edge=128, folds=3, steps=600, tile=80),
    "fruits": LabelSet(name="fruits", edge=160, folds=3, steps=300),
    "coco104": LabelSet(name="coco104", edge=128, folds=3, steps=120),
    "panoptic2": LabelSet(name="panoptic2", edge=160, folds=2, steps=150),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """One image whose truth is known, and what a model sees on it."""

    key: str
    size_hw: tuple[int, int]
    truth: tuple[Segment, ...]
    ignored: tuple[Segment, ...]
    evidence: tuple[Evidence, ...]


def load_images(
    chosen: LabelSet,
    data: Path,
    work: Path,
    say: Callable[[str], None] = print,
    *,
    base: Path = BASE_MODEL,
) -> list[LabelledImage]:
    """Return the images of a set with out-of-sample evidence of models made from `base`, made once."""
    examples = load_examples(chosen, data)
    model = "" if base == BASE_MODEL else f"-{base.name}"
    kept = work / f"label-errors-{chosen.name}{model}-{_digest(chosen, examples)}.pickle"
    if not kept.is_file():
        work.mkdir(parents=True, exist_ok=True)
        evidence = _predict_out_of_sample(chosen, examples, base, work / f"folds-{chosen.name}{model}", say)
        kept.with_suffix(".part").write_bytes(pickle.dumps(evidence))
        kept.with_suffix(".part").rename(kept)
    seen: list[tuple[Evidence, ...]] = pickle.loads(kept.read_bytes())
    return [
        LabelledImage(
            key=example.key,
            size_hw=found[0].size_hw,
            truth=example.segments,
            ignored=example.ignored,
            evidence=found,
        )
        for example, found in zip(examples, seen, strict=True)
    ]


def load_examples(chosen: LabelSet, data: Path) -> list[TrainingExample]:
    """Return the set's images with their true regions, in an order by their names."""
    if chosen.name == "made-up":
        made = ((number, make_image(FIRST_SEED + number)) for number in range(chosen.images or 0))
        return [
            TrainingExample(image=one.image_hwc, segments=one.segments, key=f"made-up-{number}")
            for number, one in made
        ]
    folder = data / chosen.name
    if (folder / "panoptic.json").is_file() and not (folder / "instances.json").is_file():
        return _panoptic(folder)
    images = sorted(read_coco(folder), key=lambda image: name_digest(image.path.name))
    examples = [coco_to_example(image, common_labels(images, None), chosen.tile) for image in images]
    return [example for example in examples if example.segments][: chosen.images]


def _panoptic(folder: Path) -> list[TrainingExample]:
    content = json.loads((folder / "panoptic.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    files = {one["id"]: one["file_name"] for one in content["images"]}
    examples = []
    for record in content["annotations"]:
        bgr_hwc = cv2.imread(str(folder / "panoptic" / record["file_name"])).astype(np.int64)
        ids_hw = bgr_hwc[..., 2] + 256 * bgr_hwc[..., 1] + 65536 * bgr_hwc[..., 0]
        segments = [
            mask_to_segment(ids_hw == one["id"], label=names[one["category_id"]])
            for one in record["segments_info"]
            if not one.get("iscrowd")
        ]
        examples.append(
            TrainingExample(
                image=folder / "images" / files[record["image_id"]],
                segments=tuple(one for one in segments if one is not None),
                key=files[record["image_id"]],
            )
        )
    return examples


def _predict_out_of_sample(
    chosen: LabelSet,
    examples: Sequence[TrainingExample],
    base_folder: Path,
    work: Path,
    say: Callable[[str], None],
) -> list[tuple[Evidence, ...]]:
    task = SegmentationTask.INSTANCE
    base = load_checkpoint(base_folder, device="cpu", training=True)
    base = replace(
        base,
        preprocessing=replace(base.preprocessing, shortest_edge=chosen.edge, longest_edge=2 * chosen.edge),
    )
    if not chosen.folds:
        return [(look_at(base, load_example_image(example), task=task),) for example in examples]
    labels = tuple(sorted({segment.label for example in examples for segment in example.segments}))
    noisy = [_with_errors(example, labels, number) for number, example in enumerate(examples)]
    seen: dict[int, tuple[Evidence, ...]] = {}
    for fold in range(chosen.folds):
        learnt = [one for number, one in enumerate(noisy) if number % chosen.folds != fold]
        settings = Settings.model_construct(seed=fold, train_precision="float32")
        recipe = recipe_for(base, learnt, labels, settings)
        recipe = replace(recipe, threads=1, steps=min(recipe.steps, chosen.steps))
        say(f"{chosen.name}: fold {fold + 1} of {chosen.folds}, {recipe.steps} steps on {len(learnt)} images")
        student = finetune(
            FinetuneJob(
                base=base,
                examples=learnt,
                recipe=recipe,
                output_dir=work / str(fold),
                labels=labels,
                task=task,
            )
        )
        for number, example in enumerate(examples):
            if number % chosen.folds == fold:
                seen[number] = (look_at(student, load_example_image(example), task=task),)
    shutil.rmtree(work, ignore_errors=True)
    return [seen[number] for number in range(len(examples))]


def _with_errors(example: TrainingExample, labels: Sequence[str], number: int) -> TrainingExample:
    """Return the example as a careless annotator leaves it; the errors are others than those to be found."""
    rng = np.random.default_rng([991, number])
    kinds = list(SuspicionKind)
    chosen = {
        index: kinds[int(rng.integers(len(kinds)))]
        for index in range(len(example.segments))
        if rng.random() < LEARNT_SHARE
    }
    height, width = load_example_image(example).shape[:2]
    found = inject(example.segments, (height, width), chosen, labels=labels, rng=rng, shapes=BENCHMARK)
    return replace(example, segments=found.regions)


def _digest(chosen: LabelSet, examples: Sequence[TrainingExample]) -> str:
    digest = hashlib.sha256(repr((PLAN, LEARNT_SHARE, chosen)).encode())
    for example in examples:
        digest.update(example.key.encode())
        for segment in example.segments:
            digest.update(repr((segment.label, segment.offset_yx, segment.area)).encode())
    return digest.hexdigest()[:16]
