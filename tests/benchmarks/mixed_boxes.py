"""What annotations are worth in which some objects are given as boxes.

`python -m tests.benchmarks.mixed_boxes` fine-tunes `tiny-photos` on a few images of a set. 30 % of their
objects are boxes, spread over all images but a few. The ways:

- dropped: images with a box are left out;
- ignored: the inside of boxes is neither object nor background;
- taught: ignored, and boxes teach class and extent;
- masks: every object has its mask, the upper bound.

Results are JSON lines; what stands there is not done again, so that it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from maskloop.learning.data.dataset import TrainingExample
from maskloop.types import Segment

from .curve_data import draw
from .few_images import ROOT, load_set, load_start, names, train_and_judge
from .few_images_ways import Data, recipe_1, with_steps
from .learning_curves import append_row, read_lines

RESULTS = ROOT / "tests" / "benchmarks" / "results" / "mixed-boxes.jsonl"
BASE = ROOT / "backend" / "maskloop" / "models" / "tiny-photos"
WAYS = ("dropped", "ignored", "taught", "masks")
CELLS = {"fruits": (12, 600), "nuclei": (16, 280)}  # images and steps
SHARE = 0.3  # of the objects
WITHOUT = 0.15  # of the images have no box


def to_box(segment: Segment) -> Segment:
    """Return the segment as the rectangle around it."""
    return replace(segment, mask_hw=np.ones_like(segment.mask_hw))


def choose_boxes(examples: Sequence[TrainingExample], seed: int) -> list[set[int]]:
    """Return which objects of each example are boxes: one of each image but a few, then any of the same."""
    rng = np.random.default_rng([seed, 30])
    wanted = round(SHARE * sum(len(example.segments) for example in examples))
    with_boxes = rng.permutation(len(examples))[round(WITHOUT * len(examples)) :]
    chosen: list[set[int]] = [set() for _ in examples]
    for image in with_boxes[:wanted]:
        chosen[image].add(int(rng.integers(len(examples[image].segments))))
    others = [
        (image, number)
        for image in with_boxes
        for number in range(len(examples[image].segments))
        if number not in chosen[image]
    ]
    left = wanted - sum(map(len, chosen))
    for place in rng.permutation(len(others))[: max(left, 0)]:
        image, number = others[place]
        chosen[image].add(number)
    return chosen


def as_given(
    examples: Sequence[TrainingExample], chosen: Sequence[set[int]], way: str
) -> tuple[TrainingExample, ...]:
    """Return the examples that one way learns from."""
    if way == "masks":
        return tuple(examples)
    if way == "dropped":
        return tuple(one for one, boxes in zip(examples, chosen, strict=True) if not boxes)
    field = {"ignored": "ignored", "taught": "boxes"}[way]
    made = []
    for one, places in zip(examples, chosen, strict=True):
        boxes = tuple(to_box(part) for place, part in enumerate(one.segments) if place in places)
        masks = tuple(part for place, part in enumerate(one.segments) if place not in places)
        made.append(replace(one, segments=masks, **{field: boxes}))
    return tuple(made)


def run(arguments: argparse.Namespace) -> None:
    """Fill the cells that are missing."""
    torch.set_num_threads(1)
    for name, seed, way in itertools.product(arguments.sets, arguments.seeds, arguments.ways):
        done = {(row["set"], row["seed"], row["way"]) for row in read_lines(arguments.results)}
        if (name, seed, way) in done:
            continue
        pool, edge = load_set(name, arguments.data)
        images, steps = CELLS[name]
        every = draw(pool, images, seed)
        chosen = choose_boxes(every, seed)
        examples = as_given(every, chosen, way)
        data = Data(images=images, objects=0, classes=1, new_classes=0, parameters=0, seed=seed)
        started = time.monotonic()
        found = train_and_judge(
            load_start(arguments.base, edge),
            examples,
            with_steps(recipe_1(data), steps),
            pool=pool,
            folder=arguments.work / f"{name}-{way}-{seed}",
        )
        counts = {
            "learnt_images": len(examples),
            "masks": sum(len(one.segments) for one in examples),
            "boxes": 0 if way in ("masks", "dropped") else sum(map(len, chosen)),
        }
        row = {"set": name, "images": images, "way": way, "seed": seed} | counts | found
        append_row(arguments.results, row)
        print(round(time.monotonic() - started), json.dumps(row), flush=True)


def parse(words: list[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=names(CELLS), default=list(CELLS), help=", ".join(CELLS))
    parser.add_argument("--ways", type=names(WAYS), default=list(WAYS), help=", ".join(WAYS))
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1])
    parser.add_argument("--base", type=Path, default=BASE, help="checkpoint that is fine-tuned")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / ".maskloop" / "mixed-boxes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
