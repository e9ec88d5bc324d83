"""A fine-tuning as transformers' example for instance segmentation does it, to stand beside ours.

examples/pytorch/instance-segmentation of transformers: AdamW at a constant rate of 1e-5, batches of 8
accumulated twice, no weight decay, mirrored images, jittered colours, the model's own loss, images resized to
one size. Its colour jitter comes from albumentations, which is not installed here: brightness and contrast by
up to 0.2 for half of the views, hue by 20, saturation by 30 and value by 20 for a tenth of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

from maskloop.learning.data.dataset import TrainingExample, draw_index_map, load_example_image
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.preprocess import resized_size
from maskloop.types import RgbImage

BATCH = 8  # images
ACCUMULATED = 2
RATE = 1e-5
CLIP = 1.0  # of the gradient's norm, Trainer's default


def finetune_as_transformers(
    base: Path,
    start: Checkpoint,
    examples: Sequence[TrainingExample],
    labels: Sequence[str],
    *,
    cpu_s: float,
    seed: int,
    folder: Path,
    rate: float = RATE,
) -> tuple[Checkpoint, int]:
    """Return the fine-tuned checkpoint and the number of optimiser steps.

    Args:
        base: folder of the model.
        start: the same, with the size of images that it is judged at.
        examples: to learn from.
        labels: classes.
        cpu_s: how long it may take, in seconds of processor time.
        seed: of all random numbers.
        folder: for the result.
        rate: of learning, constant.
    """
    until = time.process_time() + cpu_s
    torch.manual_seed(seed)
    first_hwc = load_example_image(examples[0])
    height, width = resized_size((first_hwc.shape[0], first_hwc.shape[1]), preprocessing=start.preprocessing)
    processor = AutoImageProcessor.from_pretrained(
        base, do_resize=True, size={"height": height, "width": width}, ignore_index=255
    )
    model = AutoModelForUniversalSegmentation.from_pretrained(
        base,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        ignore_mismatched_sizes=True,
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    views = _views(processor, examples, labels, np.random.default_rng(seed))
    steps = 0
    while time.process_time() < until:
        for _ in range(ACCUMULATED):
            batch = [next(views) for _ in range(BATCH)]
            loss = model(
                pixel_values=torch.stack([one["pixel_values"] for one in batch]),
                mask_labels=[one["mask_labels"] for one in batch],
                class_labels=[one["class_labels"] for one in batch],
            ).loss
            (loss / ACCUMULATED).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    model.eval().save_pretrained(folder)
    AutoImageProcessor.from_pretrained(base).save_pretrained(folder)
    learnt = load_checkpoint(folder, device="cpu")
    return replace(learnt, preprocessing=start.preprocessing), steps


def _views(
    processor: Any, examples: Sequence[TrainingExample], labels: Sequence[str], rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Yield views of the examples for ever, each example once an epoch, as the model takes them."""
    read = []
    for example in examples:
        image_hwc = load_example_image(example)
        size_hw = (image_hwc.shape[0], image_hwc.shape[1])
        index_hw, names = draw_index_map(example.segments, size_hw, max_objects=254, key=example.key)
        read.append((image_hwc, index_hw, [labels.index(name) for name in names]))
    while True:
        for number in rng.permutation(len(read)):
            image_hwc, index_hw, ids = read[number]
            if rng.random() < 0.5:
                image_hwc, index_hw = image_hwc[:, ::-1], index_hw[:, ::-1]
            inputs = processor(
                images=[_jitter(np.ascontiguousarray(image_hwc), rng)],
                segmentation_maps=[np.where(index_hw > 0, index_hw - 1, 255).astype(np.int32)],
                instance_id_to_semantic_id=dict(enumerate(ids)),
                return_tensors="pt",
            )
            yield {name: inputs[name][0] for name in ("pixel_values", "mask_labels", "class_labels")}


def _jitter(image_hwc: RgbImage, rng: np.random.Generator) -> RgbImage:
    if rng.random() < 0.5:
        contrast, brightness = 1 + rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
        image_hwc = np.clip(image_hwc * contrast + 255 * brightness, 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        hsv_hwc = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2HSV).astype(np.int16)
        hsv_hwc += rng.integers([-20, -30, -20], [21, 31, 21]).astype(np.int16)
        hsv_hwc[..., 0] %= 180
        image_hwc = cv2.cvtColor(np.clip(hsv_hwc, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return image_hwc
