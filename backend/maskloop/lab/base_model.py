"""The tiny base models that ship with maskloop: trained on made-up images alone, by one command."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, Domain, make_image
from maskloop.lab.tiny_models import TINY, build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.collate import Collator
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.index_map import TrainingItem, draw_index_map
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.training.click_training import ClickTrainer
from maskloop.learning.training.job import TrainingControl, TrainingProgress, TrainingRun
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.learning.training.training_loop import train_model
from maskloop.segmentation.checkpoint import Checkpoint, Family, load_checkpoint, save_checkpoint
from maskloop.segmentation.click_queries import ClickQueries, fitting_click_queries
from maskloop.segmentation.preprocess import Batch, images_to_batch
from maskloop.types import HoldoutMetrics, RgbImage, SegmentationTask

__all__ = [
    "BASE_STEPS",
    "build_base_model",
    "made_up_examples",
    "train_click_queries",
    "train_from_scratch",
]

CLICK_STEPS = 3000
BASE_STEPS: dict[Family, int] = {"mask2former": 4000, "oneformer": 1500}

_PROPER_NAMES: dict[Family, str] = {"mask2former": "Mask2Former", "oneformer": "OneFormer"}
_HOLDOUT_SEED = 10_000_000  # training seeds stay far below
_CLICK_SEED = 1_000_000
_RECOLOURED = 0.7  # of the images that click queries are trained on


class _ShapeStream(Dataset[TrainingItem]):
    """Item i is the base domain's image of seed i: a training sees none twice."""

    def __init__(self, *, length: int, first_seed: int) -> None:
        self._length = length
        self._first_seed = first_seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> TrainingItem:
        if not 0 <= index < self._length:
            raise IndexError(index)
        size_hw = (TINY.shortest_edge, TINY.shortest_edge)
        made = make_image(self._first_seed + index, size_hw=size_hw)
        index_hw, labels = draw_index_map(made.segments, size_hw, max_objects=TINY.queries)
        class_ids = tuple(SHAPE_CLASSES.index(label) for label in labels)
        return TrainingItem(image_hwc=made.image_hwc, index_hw=index_hw, class_ids=class_ids)


class _RecolouredStream(Dataset[TrainingItem]):
    """Images that no base has learnt from, most of them in other colours; each is asked for in order."""

    def __init__(self, *, steps: int, seed: int) -> None:
        self._shapes = _ShapeStream(length=4 * steps, first_seed=_CLICK_SEED + 4 * steps * seed)
        self._rng = np.random.default_rng([seed, 4])

    def __getitem__(self, index: int) -> TrainingItem:
        item = self._shapes[index]
        return replace(item, image_hwc=_recoloured(item.image_hwc, self._rng))


def build_base_model(
    folder: Path,
    *,
    family: Family = "mask2former",
    seed: int = 0,
    steps: int | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    holdout_images: int = 200,
) -> dict[Domain, HoldoutMetrics]:
    """Train a tiny model on made-up images of the base domain and save it in float16 with its card.

    The same seed and steps on the same versions give the same weights.

    Args:
        folder: the checkpoint's; replaced if it is there.
        family: "mask2former" or "oneformer".
        seed: of weights, images and order.
        steps: of four images each; None for BASE_STEPS.
        on_progress: called every few steps.
        holdout_images: of each domain, to judge by.

    Returns:
        How good the saved model is on images it never saw, of each domain.
    """
    count = BASE_STEPS[family] if steps is None else steps
    recipe = FinetuneRecipe(
        steps=count,
        batch=4,
        learning_rate=1e-3,
        warmup=100,
        seed=seed,
        save_every=250,
        threads=1,
        augmentation=Augmentation(),
    )
    if family == "mask2former":
        fresh = build_tiny_mask2former(SHAPE_CLASSES, seed=seed)
    else:
        fresh = build_tiny_oneformer(SHAPE_CLASSES, seed=seed, training=True)
    images = count * recipe.batch
    train_from_scratch(fresh, _ShapeStream(length=images, first_seed=seed * images), recipe, on_progress)
    save_checkpoint(fresh, folder, dtype=torch.float16)
    saved = load_checkpoint(folder, device="cpu")
    click_steps = min(CLICK_STEPS, count)
    shapes = _RecolouredStream(steps=click_steps, seed=seed)
    clicks = train_click_queries(saved, shapes, seed=seed, steps=click_steps)
    saved = replace(saved, click_queries=clicks)
    save_checkpoint(saved, folder, dtype=torch.float16)
    domains: tuple[Domain, ...] = ("base", "shifted")
    metrics = {
        domain: evaluate_checkpoint(
            saved,
            made_up_examples(_HOLDOUT_SEED, holdout_images, domain=domain),
            task=SegmentationTask.INSTANCE,
        )
        for domain in domains
    }
    (folder / "README.md").write_text(_card(saved, recipe, metrics), encoding="utf-8")
    return metrics


def train_click_queries(
    checkpoint: Checkpoint, images: Dataset[TrainingItem], *, seed: int, steps: int
) -> ClickQueries:
    """Return click queries for a model that stays as it is.

    Args:
        checkpoint: a Mask2Former or OneFormer, on the CPU.
        images: four a step, each asked for once and in order.
        seed: of weights and clicks.
        steps: how many.

    Raises:
        ValueError: a model of another family.
    """
    clicks = fitting_click_queries(checkpoint.model, seed=seed)
    if clicks is None:
        raise ValueError(f"click queries: expected a mask2former or oneformer, got {checkpoint.family}")
    trainer = ClickTrainer(checkpoint.model, clicks, steps=steps, seed=seed)
    with trainer.observing():
        for step in range(steps):
            items = [images[4 * step + number] for number in range(4)]
            seen = [item.image_hwc for item in items]
            batch = images_to_batch(seen, checkpoint.preprocessing, checkpoint.device)
            _run_plainly(checkpoint, batch)
            trainer.step(torch.from_numpy(np.stack([item.index_hw for item in items])), step)
    return clicks.eval()


def _run_plainly(checkpoint: Checkpoint, batch: Batch) -> None:
    """Run transformers' own forward pass, which a ClickTrainer observes."""
    words = {}
    if checkpoint.task_text is not None:
        count = len(batch.pixel_values_bchw)
        words["task_inputs"] = checkpoint.task_text.task_inputs(
            SegmentationTask.INSTANCE, count, checkpoint.device
        )
    with torch.no_grad():
        checkpoint.model(pixel_values=batch.pixel_values_bchw, pixel_mask=batch.pixel_mask_bhw, **words)


def _recoloured(image_hwc: RgbImage, rng: np.random.Generator) -> RgbImage:
    """Return most images in other colours: a click means an object, whatever its class's usual colour."""
    if rng.random() > _RECOLOURED:
        return image_hwc
    hsv_hwc = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2HSV).astype(np.int32)
    hsv_hwc[..., 0] = (hsv_hwc[..., 0] + rng.integers(180)) % 180
    for channel, (low, high) in ((1, (0.4, 1.3)), (2, (0.4, 1.1))):
        hsv_hwc[..., channel] = np.clip(hsv_hwc[..., channel] * rng.uniform(low, high), 0, 255)
    return np.asarray(cv2.cvtColor(hsv_hwc.astype(np.uint8), cv2.COLOR_HSV2RGB))


def made_up_examples(
    first_seed: int, count: int, *, domain: Domain, size_hw: tuple[int, int] = (128, 128)
) -> list[TrainingExample]:
    """Return the made-up images of consecutive seeds with what is on them."""
    examples = []
    for seed in range(first_seed, first_seed + count):
        made = make_image(seed, size_hw=size_hw, domain=domain)
        examples.append(TrainingExample(image=made.image_hwc, segments=made.segments, key=f"{domain}-{seed}"))
    return examples


def train_from_scratch(
    fresh: Checkpoint,
    images: Dataset[TrainingItem],
    recipe: FinetuneRecipe,
    on_progress: Callable[[TrainingProgress], None] | None,
) -> None:
    """Train a model of random weights in place, on the instance task.

    Args:
        fresh: the model.
        images: one for each image of each step.
        recipe: of the training.
        on_progress: called every few steps.
    """
    with tempfile.TemporaryDirectory(prefix="maskloop-base-") as scratch:
        run = TrainingRun(
            dataset=images,
            collator=Collator(
                preprocessing=fresh.preprocessing,
                labels=fresh.labels,
                task=SegmentationTask.INSTANCE,
                task_text=fresh.task_text,
            ),
            recipe=recipe,
            state_dir=Path(scratch) / "trainer",
            device=fresh.device,
        )
        train_model(fresh.model, run, TrainingControl(on_progress=on_progress))


def _card(checkpoint: Checkpoint, recipe: FinetuneRecipe, metrics: dict[Domain, HoldoutMetrics]) -> str:
    family = checkpoint.family
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
---
# tiny-{family}

A {_PROPER_NAMES[family]} of {parameters / 1e6:.2f} million parameters that tells the shapes
{_enumerate(checkpoint.labels)} apart. It is there so that maskloop's demo and
tests run on a CPU, and as a start for fine-tuning where seconds matter; it has never seen a photograph.

Trained from random weights on made-up images (`maskloop.lab.synthetic.shapes`, domain "base") by

    maskloop base-model build --family {family} --seed {recipe.seed} --steps {recipe.steps}

with AdamW, peak learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, gradient norm
clipped to {recipe.clip:g}, {recipe.warmup} steps of warm-up, then a cosine; {recipe.steps} steps of
{recipe.batch} images of {TINY.shortest_edge} pixels, each image seen once. Most objects
there have their class's usual hue, so colour helps to tell them apart. Stored in float16. Beside the plain
weights, `click_queries.safetensors` holds what answers clicks in maskloop, trained afterwards on
{CLICK_STEPS} such steps of made-up images, most of them in other colours; the plain weights did not change.

Measured on {metrics["base"].images} images of each domain that it never saw (instance task):

| domain | AP50 | PQ | mean IoU |
|---|---|---|---|
{_rows(metrics)}

Licence: Apache-2.0, weights and images included.
"""


def _enumerate(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _rows(metrics: dict[Domain, HoldoutMetrics]) -> str:
    lines = (f"| {domain} | {m.ap50:.3f} | {m.pq:.3f} | {m.miou:.3f} |" for domain, m in metrics.items())
    return "\n".join(lines)
