"""The same fine-tuning twice: as maskloop's worker does it, and as transformers' own example does.

The example is `run_instance_segmentation` with the options of its README: the image processor in the
dataset, masks as float planes, Trainer with fp16 on a GPU. OneFormer has no example; it gets the same loop,
with a text for each object.
"""

from __future__ import annotations

import gc
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.collate import Collator
from maskloop.learning.data.dataset import ExampleDataset, TrainingExample
from maskloop.learning.data.index_map import draw_index_map
from maskloop.learning.training.job import TrainingControl, TrainingRun
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.learning.training.training_loop import train_model
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.segmentation.task_text import TaskText
from maskloop.types import SegmentationTask

from .swin import swin_config

__all__ = [
    "Load",
    "Measured",
    "ReferenceDataset",
    "build_model",
    "made_examples",
    "our_batches",
    "train_both",
]

IMAGES = 64  # made-up ones that are learnt from
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEXT_TOKENS, LEARNED_TEXTS = 77, 16  # of published OneFormer checkpoints


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is trained."""

    family: str
    edge: int  # pixels
    batch: int
    steps: int  # that are timed
    warmup: int  # that are not
    tiny: bool
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one training came to."""

    images_per_s: list[float]  # of each step
    cpu_s: float  # a step, of this process's threads
    peak_mib: float | None  # of the GPU's memory


@dataclass(kw_only=True)
class StepClock(TrainerCallback):
    """When each optimiser step ended, with all that the device still had to do."""

    device: torch.device
    ends: list[tuple[float, float]] = field(default_factory=list)

    def tick(self) -> bool:
        """Note a step; never asks to stop."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), time.process_time()))
        return False

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Note a step of transformers' Trainer."""
        self.tick()


class ReferenceDataset(Dataset[dict[str, Any]]):
    """Images as the example's transform makes them: flip, brightness, then the image processor."""

    def __init__(
        self, examples: Sequence[TrainingExample], length: int, edge: int, text: TaskText | None = None
    ) -> None:
        self._examples, self._length, self._edge, self._text = examples, length, edge, text
        self._processor = Mask2FormerImageProcessorPil(
            size={"height": edge, "width": edge}, ignore_index=255, do_reduce_labels=True
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = np.random.default_rng([index, 1])
        example = self._examples[index % len(self._examples)]
        image, instances, classes = _instance_map(example, self._edge)
        if draw.random() < 0.5:
            image, instances = image[:, ::-1], instances[:, ::-1]
        if draw.random() < 0.5:
            gain, shift = draw.uniform(0.8, 1.2), draw.uniform(-0.2, 0.2) * 255
            image = np.clip(image * gain + shift, 0, 255).astype(np.uint8)
        made = self._processor(
            [np.ascontiguousarray(image)],
            [np.ascontiguousarray(instances)],
            instance_id_to_semantic_id=classes,
            return_tensors="pt",
        )
        item = {name: made[name][0] for name in ("pixel_values", "pixel_mask", "mask_labels", "class_labels")}
        if self._text is not None:
            cpu, task = torch.device("cpu"), SegmentationTask.INSTANCE
            names = [SHAPE_CLASSES[class_id] for class_id in item["class_labels"].tolist()]
            item["task_inputs"] = self._text.task_inputs(task, 1, cpu)[0]
            item["text_inputs"] = self._text.text_inputs([names], task, cpu)[0]
        return item


class ReferenceTrainer(Trainer):
    """transformers' own, which stops at OneFormer's two main inputs and at its loss of shape (1,)."""

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return nothing."""
        return 0

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return the model's loss as a number without axes."""
        return super().compute_loss(*args, **kwargs).mean()


def collate_reference(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch as the example's `collate_fn` makes it."""
    lists = ("mask_labels", "class_labels")
    return {
        name: [item[name] for item in items] if name in lists else torch.stack([item[name] for item in items])
        for name in items[0]
    }


def build_model(load: Load) -> tuple[Any, TaskText | None]:
    """Return Swin-T with random weights, the same at each call, and OneFormer's words; or a tiny model."""
    if load.tiny:
        made = (
            build_tiny_mask2former(SHAPE_CLASSES, seed=0)
            if load.family == "mask2former"
            else build_tiny_oneformer(SHAPE_CLASSES, seed=0, training=True)
        )
        return made.model, made.task_text
    names = dict(enumerate(SHAPE_CLASSES))
    common: dict[str, Any] = {
        "backbone_config": swin_config(),
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if load.family == "mask2former":
            return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**common)), None
        model = OneFormerForUniversalSegmentation(OneFormerConfig(is_training=True, **common))
    words = build_tiny_oneformer(SHAPE_CLASSES, seed=0).task_text
    assert words is not None
    count = model.config.num_queries - LEARNED_TEXTS
    return model, replace(words, task_length=TEXT_TOKENS, text_length=TEXT_TOKENS, text_count=count)


def made_examples(edge: int, count: int = IMAGES) -> list[TrainingExample]:
    """Return made-up images with shapes on them."""
    images = [make_image(seed, size_hw=(edge, edge)) for seed in range(count)]
    return [
        TrainingExample(image=made.image_hwc, segments=made.segments, key=str(seed))
        for seed, made in enumerate(images)
    ]


def our_batches(
    load: Load, examples: Sequence[TrainingExample], queries: int, text: TaskText | None
) -> tuple[ExampleDataset, Collator]:
    """Return the dataset and the collator that maskloop's worker trains with."""
    dataset = ExampleDataset(
        examples,
        length=(load.warmup + load.steps) * load.batch,
        augmentation=Augmentation(),
        balance=False,
        labels=SHAPE_CLASSES,
        resize=lambda size_hw: (load.edge, load.edge),
        seed=0,
        max_objects=queries,
    )
    preprocessing = Preprocessing(
        shortest_edge=load.edge, longest_edge=load.edge, mean=MEAN, std=STD, size_divisor=32
    )
    task = SegmentationTask.INSTANCE
    return dataset, Collator(preprocessing=preprocessing, labels=SHAPE_CLASSES, task=task, task_text=text)


def train_both(load: Load, examples: Sequence[TrainingExample]) -> tuple[Measured, Measured]:
    """Train as maskloop does and as the example does, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        reference = _train_reference(load, examples, Path(folder))
        return _train_ours(load, examples, Path(folder)), reference


def _train_ours(load: Load, examples: Sequence[TrainingExample], folder: Path) -> Measured:
    steps = load.warmup + load.steps
    recipe = FinetuneRecipe(
        steps=steps, batch=load.batch, learning_rate=1e-4, backbone_factor=0.1, save_every=steps + 1
    )
    model, text = build_model(load)
    dataset, collator = our_batches(load, examples, int(model.config.num_queries), text)
    run = TrainingRun(
        dataset=dataset,
        collator=collator,
        recipe=recipe,
        state_dir=folder / "ours",
        device=load.device,
    )
    clock = StepClock(device=load.device)
    return _measured(
        lambda: train_model(model, run, TrainingControl(should_stop=clock.tick)),
        clock,
        load,
    )


def _train_reference(load: Load, examples: Sequence[TrainingExample], folder: Path) -> Measured:
    steps, on_gpu = load.warmup + load.steps, load.device.type == "cuda"
    workers = min(8, (os.cpu_count() or 1) - 1) if on_gpu else 0
    model, text = build_model(load)
    arguments = TrainingArguments(
        output_dir=str(folder / "reference"),
        max_steps=steps,
        per_device_train_batch_size=load.batch,
        fp16=on_gpu,
        use_cpu=not on_gpu,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        dataloader_prefetch_factor=4 if workers else None,
        dataloader_pin_memory=on_gpu,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=0,
    )
    clock = StepClock(device=load.device)
    trainer = ReferenceTrainer(
        model=model,
        args=arguments,
        train_dataset=ReferenceDataset(examples, steps * load.batch, load.edge, text),
        data_collator=collate_reference,
        callbacks=[clock],
    )
    return _measured(trainer.train, clock, load)


def _measured(train: Callable[[], object], clock: StepClock, load: Load) -> Measured:
    gc.collect()
    on_gpu = load.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    train()
    ends = clock.ends[load.warmup - 1 :]
    pairs = list(itertools.pairwise(ends))
    return Measured(
        images_per_s=[load.batch / (after[0] - before[0]) for before, after in pairs],
        cpu_s=(ends[-1][1] - ends[0][1]) / len(pairs),
        peak_mib=torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
    )


def _instance_map(example: TrainingExample, edge: int) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Return image, int map of instances (0 is nothing) and instance -> class + 1."""
    assert isinstance(example.image, np.ndarray)
    index_hw, labels = draw_index_map(example.segments, (edge, edge), max_objects=100)
    classes = {number + 1: SHAPE_CLASSES.index(label) + 1 for number, label in enumerate(labels)}
    return example.image, index_hw.astype(np.int32), {0: 0} | classes
