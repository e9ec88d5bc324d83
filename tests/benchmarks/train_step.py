"""Images a second of a fine-tuning, and its peak memory, against transformers' own recipe on the same card.

`python -m tests.benchmarks.train_step --sizes 512 1024 --json FILE` trains a Swin-T Mask2Former with random
weights on made-up images, as maskloop does and as transformers' example `run_instance_segmentation` does with
the options of its README (fp16 on a GPU, batches of 8, data workers). Without a GPU it takes minutes a step:
`--tiny` runs all of it on a small model, to see that it runs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    SwinConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from maskloop.learning.augmentation import Augmentation
from maskloop.learning.collate import Collator
from maskloop.learning.dataset import ExampleDataset, TrainingExample, draw_index_map
from maskloop.learning.recipe import FinetuneRecipe
from maskloop.learning.training import train_model
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.types import SegmentationTask

IMAGES = 64  # made-up ones that are learnt from
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is trained."""

    edge: int  # pixels
    batch: int
    steps: int  # that are timed
    warmup: int  # that are not
    tiny: bool
    device: torch.device


@dataclass(kw_only=True)
class StepClock(TrainerCallback):
    """When each optimiser step ended, with all that the device still had to do."""

    device: torch.device
    ends: list[float] = field(default_factory=list)

    def tick(self) -> bool:
        """Note a step; never asks to stop."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        return False

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Note a step of transformers' Trainer."""
        self.tick()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a training came to."""

    images_per_s: float  # median over the steps
    spread: float  # interquartile range over the median
    peak_mib: float | None  # of the GPU's memory


class ReferenceDataset(Dataset[dict[str, Any]]):
    """Images as the example's transform makes them: flip, brightness, then the image processor."""

    def __init__(self, examples: Sequence[TrainingExample], length: int, edge: int) -> None:
        self._examples, self._length, self._edge = examples, length, edge
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
        return {
            "pixel_values": made["pixel_values"][0],
            "pixel_mask": made["pixel_mask"][0],
            "mask_labels": made["mask_labels"][0],
            "class_labels": made["class_labels"][0],
        }


def collate_reference(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch as the example's `collate_fn` makes it."""
    stacked = {name: torch.stack([item[name] for item in items]) for name in ("pixel_values", "pixel_mask")}
    return stacked | {name: [item[name] for item in items] for name in ("mask_labels", "class_labels")}


def build_model(load: Load) -> Mask2FormerForUniversalSegmentation:
    """Return a Swin-T Mask2Former with random weights; a tiny one where that is asked for."""
    torch.manual_seed(0)
    swin: dict[str, Any] = {"image_size": 224, "window_size": 7}
    sizes: dict[str, Any] = {}
    if load.tiny:
        swin = {
            "image_size": 128,
            "embed_dim": 24,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 4, 8],
            "window_size": 4,
        }
        sizes = {
            "feature_size": 64,
            "mask_feature_size": 64,
            "hidden_dim": 64,
            "encoder_feedforward_dim": 128,
            "dim_feedforward": 128,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 4,
            "num_queries": 20,
            "train_num_points": 256,
        }
    backbone = SwinConfig(out_features=["stage1", "stage2", "stage3", "stage4"], **swin)
    names = dict(enumerate(SHAPE_CLASSES))
    config = Mask2FormerConfig(
        backbone_config=backbone,
        id2label=names,
        label2id={name: index for index, name in names.items()},
        **sizes,
    )
    return Mask2FormerForUniversalSegmentation(config)


def train_ours(load: Load, examples: Sequence[TrainingExample], folder: Path) -> Measured:
    """Train as maskloop's worker does."""
    steps = load.warmup + load.steps
    recipe = FinetuneRecipe(
        steps=steps,
        batch=load.batch,
        learning_rate=1e-4,
        backbone_factor=0.1,
        save_every=steps + 1,
        augmentation=Augmentation(),
    )
    model = build_model(load)
    preprocessing = Preprocessing(
        shortest_edge=load.edge, longest_edge=load.edge, mean=MEAN, std=STD, size_divisor=32
    )
    dataset = ExampleDataset(
        examples,
        length=steps * load.batch,
        augmentation=recipe.augmentation,
        balance=False,
        labels=SHAPE_CLASSES,
        resize=lambda size_hw: (load.edge, load.edge),
        seed=0,
        max_objects=int(model.config.num_queries),
    )
    collator = Collator(preprocessing=preprocessing, labels=SHAPE_CLASSES, task=SegmentationTask.INSTANCE)
    clock = StepClock(device=load.device)
    return _measured(
        lambda: train_model(
            model,
            dataset,
            collator,
            recipe=recipe,
            state_dir=folder / "ours",
            device=load.device,
            should_stop=clock.tick,
        ),
        clock,
        load,
    )


def train_reference(load: Load, examples: Sequence[TrainingExample], folder: Path) -> Measured:
    """Train as transformers' example does."""
    steps, on_gpu = load.warmup + load.steps, load.device.type == "cuda"
    workers = min(8, (os.cpu_count() or 1) - 1) if on_gpu else 0
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
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=0,
    )
    clock = StepClock(device=load.device)
    trainer = Trainer(
        model=build_model(load),
        args=arguments,
        train_dataset=ReferenceDataset(examples, steps * load.batch, load.edge),
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
    ends = clock.ends[load.warmup :]
    rates = [load.batch / (after - before) for before, after in itertools.pairwise(ends)]
    low, median, high = statistics.quantiles(rates, n=4) if len(rates) > 1 else (rates[0],) * 3
    return Measured(
        images_per_s=median,
        spread=(high - low) / median,
        peak_mib=torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
    )


def _instance_map(example: TrainingExample, edge: int) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Return image, int map of instances (0 is nothing) and instance -> class + 1."""
    assert isinstance(example.image, np.ndarray)
    index_hw, labels = draw_index_map(example.segments, (edge, edge), max_objects=100)
    classes = {number + 1: SHAPE_CLASSES.index(label) + 1 for number, label in enumerate(labels)}
    return example.image, index_hw.astype(np.int32), {0: 0} | classes


def run_case(load: Load, repeats: int) -> dict[str, object]:
    """Return the comparison at one size, the two sides taking turns."""
    examples = []
    for seed in range(IMAGES):
        made = make_image(seed, size_hw=(load.edge, load.edge))
        examples.append(TrainingExample(image=made.image_hwc, segments=made.segments, key=str(seed)))
    ours: list[Measured] = []
    reference: list[Measured] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            reference.append(train_reference(load, examples, Path(folder)))
            ours.append(train_ours(load, examples, Path(folder)))
    fast = statistics.median(one.images_per_s for one in ours)
    slow = statistics.median(one.images_per_s for one in reference)
    return {
        "name": f"train-step-{'tiny' if load.tiny else 'swin-t'}-{load.edge}",
        "ours": round(fast, 3),
        "reference": round(slow, 3),
        "unit": "images/s",
        "reference_name": "transformers run_instance_segmentation",
        "ratio": round(fast / slow, 3),
        "ours_spread": round(max(one.spread for one in ours), 3),
        "reference_spread": round(max(one.spread for one in reference), 3),
        "ours_peak_mib": ours[-1].peak_mib,
        "reference_peak_mib": reference[-1].peak_mib,
        "batch": load.batch,
        "steps": load.steps * repeats,
    }


def main(words: Sequence[str]) -> None:
    """Run the comparison and print it, one case a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024], help="pixels of an edge")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30, help="that are timed, in each turn")
    parser.add_argument("--warmup", type=int, default=5, help="steps before them")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--tiny", action="store_true", help="a small model, for a machine without a GPU")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = []
    for edge in asked.sizes:
        load = Load(
            edge=edge,
            batch=asked.batch,
            steps=asked.steps,
            warmup=asked.warmup,
            tiny=asked.tiny,
            device=device,
        )
        cases.append(run_case(load, asked.repeats))
        print(json.dumps(cases[-1]), flush=True)
    told = {
        "cases": cases,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "cores": os.cpu_count(),
    }
    if asked.json is not None:
        asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
