"""Quality against the number of corrected images, on real data, for Mask2Former and OneFormer.

`python -m tests.benchmarks.learning_curves` fine-tunes a small model of each family on 2 to 64 images of each
source, with several seeds, judges it on a holdout that stays the same, and writes the page in docs/ from all
results. Results are JSON lines; what stands there is not done again, so that it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import transformers
from torch.utils.data import Dataset

from maskloop.lab.imagenet import with_imagenet_backbone
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.lab.tiny_models import Tiny, build_tiny_mask2former, build_tiny_oneformer
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.collate import Collator
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.index_map import TrainingItem, draw_index_map
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl, TrainingProgress, TrainingRun
from maskloop.learning.training.recipe import FinetuneRecipe, recipe_for
from maskloop.learning.training.training_loop import train_model
from maskloop.segmentation.checkpoint import Checkpoint, Family, load_checkpoint, save_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.settings import Settings
from maskloop.types import SegmentationTask

from .curve_data import SOURCES, Pool, draw, load_pool, mosaic
from .curve_report import write_page

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "learning-curves.jsonl"
PAGE = ROOT / "docs" / "learning-curves.md"
PLAN = 2  # of sizes, model and recipe: results of another one are left out
FAMILIES: tuple[Family, ...] = ("mask2former", "oneformer")
SEEDS = (0, 1, 2)
MODEL = Tiny(queries=40, decoder_layers=3)
BASE_STEPS = 1200
BASE_RATE = 1e-3
SERVED = Thresholds(part=0.02, duplicate=0.7)  # as the settings have them; pieces stay, as in PLAN 2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fine-tuning."""

    source: str
    family: Family
    images: int
    seed: int


class ShapeStream(Dataset[TrainingItem]):
    """Made-up images, every other one of four smaller ones, so that up to 20 objects are on it."""

    def __init__(self, *, length: int, edge: int, max_objects: int) -> None:
        self._length = length
        self._edge = edge
        self._max_objects = max_objects

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> TrainingItem:
        if not 0 <= index < self._length:
            raise IndexError(index)
        whole = index % 2 == 0
        edge = self._edge if whole else self._edge // 2
        made = [make_image(4 * index + part, size_hw=(edge, edge)) for part in range(1 if whole else 4)]
        pairs = [(one.image_hwc, one.segments) for one in made]
        image_hwc, segments = pairs[0]
        if not whole:
            joined = mosaic(pairs)
            image_hwc, segments = joined.image, joined.segments  # type: ignore[assignment]
        index_hw, labels = draw_index_map(segments, (self._edge, self._edge), max_objects=self._max_objects)
        class_ids = tuple(SHAPE_CLASSES.index(label) for label in labels)
        return TrainingItem(image_hwc=image_hwc, index_hw=index_hw, class_ids=class_ids)


def build_base(family: Family, folder: Path, *, steps: int = BASE_STEPS, edge: int = 128) -> Path:
    """Return the folder of a model with ImageNet's backbone whose decoder knows made-up shapes; made once."""
    if (folder / "config.json").is_file():
        return folder
    if family == "mask2former":
        fresh = build_tiny_mask2former(SHAPE_CLASSES, seed=0, backbone="efficientnet", tiny=MODEL)
    else:
        fresh = build_tiny_oneformer(
            SHAPE_CLASSES, seed=0, backbone="efficientnet", tiny=MODEL, training=True
        )
    fresh = with_imagenet_backbone(fresh)
    recipe = FinetuneRecipe(
        steps=steps,
        learning_rate=BASE_RATE,
        freeze_backbone=True,
        warmup=min(100, steps // 4),
        save_every=max(1, min(200, steps)),
        threads=1,
        precision="float32",
        augmentation=Augmentation(),
    )
    state_dir = folder.with_name(f"{folder.name}-training")
    most = MODEL.queries - (0 if fresh.task_text is None else MODEL.text_context)
    run = TrainingRun(
        dataset=ShapeStream(length=recipe.steps * recipe.batch, edge=edge, max_objects=most),
        collator=Collator(
            preprocessing=fresh.preprocessing,
            labels=fresh.labels,
            task=SegmentationTask.INSTANCE,
            task_text=fresh.task_text,
        ),
        recipe=recipe,
        state_dir=state_dir,
        device=fresh.device,
    )

    def report(progress: TrainingProgress) -> None:
        print(
            f"  base {family}: step {progress.step} of {progress.steps}, loss {progress.loss:.2f}", flush=True
        )

    train_model(fresh.model, run, TrainingControl(on_progress=report))
    save_checkpoint(fresh, folder)
    shutil.rmtree(state_dir, ignore_errors=True)
    return folder


def cell_recipe(
    pool: Pool, examples: Sequence[TrainingExample], base: Checkpoint, seed: int
) -> FinetuneRecipe:
    """Return the recipe that the worker would choose for these examples, on one thread."""
    settings = Settings.model_construct(seed=seed, train_precision="float32")  # whatever this machine has set
    return replace(recipe_for(base, examples, pool.labels, settings), threads=1)


def run_cell(cell: Cell, pool: Pool, base_folder: Path, work: Path) -> dict[str, object]:
    """Return the row of results of one fine-tuning."""
    started, cpu = time.monotonic(), time.process_time()
    loaded = load_checkpoint(base_folder, device="cpu", training=True)
    edge = SOURCES[cell.source].edge
    base = replace(
        loaded, preprocessing=replace(loaded.preprocessing, shortest_edge=edge, longest_edge=2 * edge)
    )
    examples = draw(pool, cell.images, cell.seed)
    recipe = cell_recipe(pool, examples, base, cell.seed)
    folder = work / f"{cell.source}-{cell.family}-{cell.images}-{cell.seed}"
    learnt = finetune(
        FinetuneJob(base=base, examples=examples, recipe=recipe, output_dir=folder, labels=pool.labels)
    )
    found = evaluate_checkpoint(learnt, pool.holdout, labels=pool.labels, thresholds=SERVED)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        **asdict(cell),
        "plan": PLAN,
        "ap50": round(found.ap50, 4),
        "ap": None if found.ap is None else round(found.ap, 4),
        "pq": round(found.pq, 4),
        "miou": round(found.miou, 4),
        "objects": sum(len(example.segments) for example in examples),
        "steps": recipe.steps,
        "backbone_rate": 0.0 if recipe.freeze_backbone else recipe.backbone_factor,
        "learning_rate": recipe.learning_rate,
        "base_steps": BASE_STEPS,
        "holdout": len(pool.holdout),
        "holdout_objects": sum(len(example.segments) for example in pool.holdout),
        "cpu_s": round(time.process_time() - cpu, 1),
        "seconds": round(time.monotonic() - started, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


def planned_cells(
    sources: Iterable[str],
    families: Iterable[Family],
    seeds: Iterable[int],
    sizes: Iterable[int] | None = None,
) -> Iterator[Cell]:
    """Yield the cells, whole curves first to last; of each curve one seed after the other."""
    wanted = None if sizes is None else set(sizes)
    names, kinds, all_seeds = tuple(sources), tuple(families), tuple(seeds)
    for late in (False, True):
        group = [name for name in names if SOURCES[name].late is late]
        for family, name, seed in itertools.product(kinds, group, all_seeds):
            for images in SOURCES[name].sizes:
                if wanted is None or images in wanted:
                    yield Cell(source=name, family=family, images=images, seed=seed)


def read_lines(path: Path) -> list[dict[str, object]]:
    """Return the results of a file of JSON lines; a line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def read_rows(path: Path) -> list[dict[str, object]]:
    """Return the results of this plan."""
    return [row for row in read_lines(path) if row.get("plan") == PLAN]


def cell_of(row: dict[str, object]) -> Cell:
    """Return the cell that a row is the result of."""
    return Cell(**{name: row[name] for name in ("source", "family", "images", "seed")})  # type: ignore[arg-type]


def append_row(path: Path, row: dict[str, object]) -> None:
    """Add a line at once; one that was cut off by a kill stays alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def run(arguments: argparse.Namespace) -> None:
    """Fill the cells that are missing, as long as there is time, then write the page."""
    until = time.monotonic() + 60 * arguments.minutes
    torch.set_num_threads(1)
    planned = list(planned_cells(arguments.datasets, arguments.families, arguments.seeds, arguments.sizes))
    done = {cell_of(row) for row in read_rows(arguments.results)}
    pools: dict[str, Pool] = {}
    for cell in planned:
        if cell in done:
            continue
        if time.monotonic() >= until:
            break
        base = build_base(cell.family, arguments.work / f"base-{PLAN}-{cell.family}")
        if cell.source not in pools:
            pools[cell.source] = load_pool(arguments.data, SOURCES[cell.source])
        row = run_cell(cell, pools[cell.source], base, arguments.work)
        append_row(arguments.results, row)
        rewrite_page(arguments)
        print(
            f"{cell.source} {cell.family} n={cell.images} seed={cell.seed}: AP50 {row['ap50']:.3f} "
            f"PQ {row['pq']:.3f} mIoU {row['miou']:.3f}, {row['steps']} steps, {row['seconds']:.0f} s",
            flush=True,
        )
    rows, owed = rewrite_page(arguments)
    print(f"{arguments.page}: {rows} fine-tunings, {owed} still owed")


def rewrite_page(arguments: argparse.Namespace) -> tuple[int, int]:
    """Write the page from all results and return how many there are, and how many of the grid are owed."""
    rows = read_rows(arguments.results)
    done = {cell_of(row) for row in rows}
    owed = [cell for cell in planned_cells(SOURCES, FAMILIES, SEEDS) if cell not in done]
    write_page(rows, owed, arguments.page)
    return len(rows), len(owed)


def parse(words: list[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=sorted(SOURCES), default=list(SOURCES))
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of corrected images; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=240.0, help="no cell begins later; 0: only the page")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / ".maskloop" / "learning-curves")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
