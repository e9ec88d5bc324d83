"""Quality after few corrected images, for each way to train: the old recipe, one addition alone, all.

`python -m tests.benchmarks.few_images` fine-tunes the shipped model on 4 to 256 images of each set with
some seeds and judges it on a holdout that stays the same. `recipe-1` is the recipe before these additions.
With `pool` the model also learns from 100 images without annotations, by what it was sure of on them;
`again` trains a second time, from the model of the first time, and `again-pool` does so with that model's
pseudo-labels. `rounds` trains on the first quarter of the images, then goes on with all, as a project does,
by the recipe for classes that the model knows; `rounds-new` goes on by the one for new classes. `deleted`
weighs queries that find again what an annotator of the model's own predictions would have deleted.
`newest-of-3`, `consensus-of-3` and `soft-of-3` learn what three careless annotators drew instead of the
truth: one of them, or soft targets. `all-tasks` trains a OneFormer in all three of its tasks, each of which
is then judged; `untrained` is the model as it is. `transformers` is transformers' own example, with the
processor time that `all` took, whose row has to be there. Results are JSON lines; what stands there is not
done again, so that it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.data.pseudo_labels import pseudo_examples
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import FinetuneRecipe, count_new_classes
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.types import HoldoutMetrics, SegmentationTask

from .curve_data import SOURCES, Pool, Source, draw, load_pool
from .few_images_ways import WAYS, Data
from .learning_curves import append_row, read_lines
from .several_annotators import drawn_by_several
from .shown_regions import shown_predictions, with_deleted
from .transformers_example import RATE, finetune_as_transformers

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "few-images.jsonl"
BASE = ROOT / "backend" / "maskloop" / "models" / "tiny-mask2former"
SIZES = (4, 16, 64, 256)
MADE_UP_HOLDOUT = 40
SERVED = Thresholds(part=0.02, duplicate=0.7)
UNFILTERED = Thresholds(score=0.0, part=0.02, duplicate=0.7)
POOL_IMAGES = 100


def made_up_pool(domain: str) -> Pool:
    """Return made-up images of a domain that the shipped model has not learnt."""

    def example(seed: int) -> TrainingExample:
        made = make_image(seed, domain=domain)  # type: ignore[arg-type]
        return TrainingExample(image=made.image_hwc, segments=made.segments, key=f"{domain}-{seed}")

    first = 60_000_000
    return Pool(
        labels=SHAPE_CLASSES,
        training=tuple(example(first + number) for number in range(SIZES[-1])),
        holdout=tuple(example(first + 10_000 + number) for number in range(MADE_UP_HOLDOUT)),
    )


def load_set(name: str, data: Path) -> tuple[Pool, int]:
    """Return the images of a set and the pixels of the shorter side that the model sees."""
    if name in ("base", "shifted"):
        return made_up_pool(name), 128
    source = SOURCES.get(name) or Source(folder=name, edge=160, sizes=SIZES, holdout=12)
    return load_pool(data, source), source.edge


def with_names(pool: Pool, names: Mapping[str, str]) -> Pool:
    """Return the pool with other names for some of its classes; several may get one name."""
    return replace(
        pool,
        labels=tuple(dict.fromkeys(names.get(label, label) for label in pool.labels)),
        training=tuple(renamed(one, names) for one in pool.training),
        holdout=tuple(renamed(one, names) for one in pool.holdout),
    )


def renamed(example: TrainingExample, names: Mapping[str, str]) -> TrainingExample:
    """Return the example with other names for some of its classes."""
    segments = tuple(replace(one, label=names.get(one.label, one.label)) for one in example.segments)
    return replace(example, segments=segments)


def run_cell(
    pool: Pool,
    edge: int,
    *,
    images: int,
    way: str,
    seed: int,
    base: Path,
    work: Path,
    cpu_minutes: float | None = None,
    keep: Path | None = None,
) -> dict[str, object]:
    """Return the row of results of one cell; `cpu_minutes` is what transformers' example may take."""
    if way == "untrained":
        return judge(load_start(base, edge, training=False), pool)
    start = load_start(base, edge)
    examples = draw(pool, images, seed)
    folder = work / f"{way}-{images}-{seed}"
    if way.startswith("deleted"):
        examples = with_deleted(examples, shown_predictions(start, examples, pool.labels, SERVED))
    if way.endswith("-of-3"):
        examples = drawn_by_several(examples, pool.labels, way=way, seed=seed)

    def recipe(base: Checkpoint, guessed: int = 0) -> FinetuneRecipe:
        return WAYS[way](_measure(base, examples, pool.labels, seed, guessed=guessed))

    if way.startswith("transformers"):
        if cpu_minutes is None:
            raise SystemExit(f"{way}: its time is that of `all`, whose row is missing: run --ways all first")
        rate = 4e-4 if way.endswith("4e-4") else RATE
        began, cpu_began = time.monotonic(), time.process_time()
        learnt, steps = finetune_as_transformers(
            base,
            start,
            examples,
            pool.labels,
            cpu_s=60 * cpu_minutes,
            seed=seed,
            folder=folder,
            rate=rate,
        )
        times = _minutes(began, cpu_began)
        row = judge(learnt, pool) | {"steps": steps} | times
        shutil.rmtree(folder, ignore_errors=True)
        return row
    if way.startswith("again"):
        first = FinetuneJob(
            base=start, examples=examples, recipe=recipe(start), output_dir=folder, labels=pool.labels
        )
        start = finetune(first)
    if way.startswith("rounds"):
        examples = later_are_fresh(examples)
        start = first_round(start, edge, [one for one in examples if not one.fresh], pool, seed, work)
    unlabelled = label_pool(start, pool, examples, seed, folder) if way.endswith("pool") else ()
    found = train_and_judge(
        start,
        (*examples, *unlabelled),
        recipe(start, len(unlabelled)),
        pool=pool,
        folder=folder / "last",
        keep=keep,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return found


def later_are_fresh(examples: Sequence[TrainingExample]) -> tuple[TrainingExample, ...]:
    """Return the examples of two rounds: all but the first quarter are fresh in the second."""
    first = max(len(examples) // 4, 1)
    return tuple(replace(one, fresh=place >= first) for place, one in enumerate(examples))


def first_round(
    base: Checkpoint, edge: int, examples: Sequence[TrainingExample], pool: Pool, seed: int, work: Path
) -> Checkpoint:
    """Return what the worker's recipe makes of the first images; it is trained once for all ways."""
    kept = work / f"first-{len(examples)}-{seed}"
    if not kept.is_dir():
        recipe = WAYS["all"](_measure(base, examples, pool.labels, seed))
        folder = work / f"{kept.name}-training"
        learnt = finetune(
            FinetuneJob(base=base, examples=examples, recipe=recipe, output_dir=folder, labels=pool.labels)
        )
        save_checkpoint(learnt, kept)
        shutil.rmtree(folder, ignore_errors=True)
    return load_start(kept, edge)


def load_start(base: Path, edge: int, *, training: bool = True) -> Checkpoint:
    """Return a checkpoint that sees images with so many pixels on the shorter side."""
    loaded = load_checkpoint(base, device="cpu", training=training)
    return replace(
        loaded, preprocessing=replace(loaded.preprocessing, shortest_edge=edge, longest_edge=2 * edge)
    )


def train_and_judge(
    start: Checkpoint,
    examples: Sequence[TrainingExample],
    recipe: FinetuneRecipe,
    *,
    pool: Pool,
    folder: Path,
    keep: Path | None = None,
) -> dict[str, object]:
    """Return what a fine-tuning comes to on the pool's holdout; the folder is deleted at the end.

    With `keep`, what was learnt is saved in that folder.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    learnt = finetune(
        FinetuneJob(base=start, examples=examples, recipe=recipe, output_dir=folder, labels=pool.labels)
    )
    times = _minutes(began, cpu_began)
    shutil.rmtree(folder, ignore_errors=True)
    if keep is not None:
        save_checkpoint(learnt, keep)
    return judge(learnt, pool) | {"steps": recipe.steps} | times


def judge(learnt: Checkpoint, pool: Pool) -> dict[str, object]:
    """Return the quality of a model on the pool's holdout, at the served threshold and without one.

    A OneFormer is judged in its other tasks too.
    """
    served, all_regions = (
        evaluate_checkpoint(learnt, pool.holdout, labels=pool.labels, thresholds=thresholds)
        for thresholds in (SERVED, UNFILTERED)
    )
    return {
        "ap50": round(served.ap50, 4),
        "ap": None if served.ap is None else round(served.ap, 4),
        "pq": round(served.pq, 4),
        "miou": round(served.miou, 4),
        "ap50_unfiltered": round(all_regions.ap50, 4),
        "score": score(served),
    } | (_judge_other_tasks(learnt, pool) if learnt.family == "oneformer" else {})


def _judge_other_tasks(learnt: Checkpoint, pool: Pool) -> dict[str, object]:
    panoptic, semantic = (
        evaluate_checkpoint(learnt, pool.holdout, labels=pool.labels, task=task, thresholds=SERVED)
        for task in (SegmentationTask.PANOPTIC, SegmentationTask.SEMANTIC)
    )
    return {
        "panoptic_pq": round(panoptic.pq, 4),
        "panoptic_score": score(panoptic),
        "semantic_miou": round(semantic.miou, 4),
        "semantic_score": score(semantic),
    }


def score(metrics: HoldoutMetrics) -> float:
    """Return the mean of AP50, PQ and mean IoU, by which the gate decides."""
    return round((metrics.ap50 + metrics.pq + metrics.miou) / 3, 4)


def _minutes(began: float, cpu_began: float) -> dict[str, object]:
    return {
        "minutes": round((time.monotonic() - began) / 60, 2),
        "cpu_minutes": round((time.process_time() - cpu_began) / 60, 2),
    }


def label_pool(
    teacher: Checkpoint, pool: Pool, examples: Sequence[TrainingExample], seed: int, folder: Path
) -> tuple[TrainingExample, ...]:
    """Return up to 100 images of the set without their annotations, with the teacher's pseudo-labels."""
    annotated = {example.key for example in examples}
    others = [one for one in draw(pool, len(pool.training), seed) if one.key not in annotated]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, one in enumerate(others[:POOL_IMAGES]):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), cv2.cvtColor(load_example_image(one), cv2.COLOR_RGB2BGR))
        paths.append(path)
    return pseudo_examples(
        teacher,
        paths,
        labels=pool.labels,
        thresholds=SERVED,
        floors={},
        kept_in=folder / "pseudo-labels.json",
    )


def _measure(
    start: Checkpoint,
    examples: Sequence[TrainingExample],
    labels: Sequence[str],
    seed: int,
    guessed: int = 0,
) -> Data:
    return Data(
        images=len(examples),
        objects=sum(len(example.segments) for example in examples),
        classes=len(labels),
        new_classes=count_new_classes(start, labels),
        parameters=sum(parameter.numel() for parameter in start.model.parameters()),
        seed=seed,
        guessed=guessed,
    )


def run(arguments: argparse.Namespace) -> None:
    """Fill the cells that are missing, as long as there is time."""
    until = time.monotonic() + 60 * arguments.minutes
    torch.set_num_threads(1)
    done = {_cell(row) for row in read_lines(arguments.results)}
    for name in arguments.sets:
        pool, edge = load_set(name, arguments.data)
        if arguments.mapped is not None:
            pool = with_names(pool, dict.fromkeys(pool.labels, arguments.mapped))
        pool = with_names(pool, {label: f"new {label}" for label in arguments.new})
        sizes = sorted({min(images, len(pool.training)) for images in arguments.images})
        for seed, images, way in itertools.product(range(arguments.seeds), sizes, arguments.ways):
            cell = (name, images, way, seed)
            if cell in done or time.monotonic() >= until:
                continue
            found = run_cell(
                pool,
                edge,
                images=images,
                way=way,
                seed=seed,
                base=arguments.base,
                work=arguments.work / name,
                cpu_minutes=_cpu_minutes(arguments.results, (name, images, "all", seed)),
                keep=arguments.keep,
            )
            append_row(arguments.results, {"set": name, "images": images, "way": way, "seed": seed} | found)
            print(*cell, json.dumps(found), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps({"rows": read_lines(arguments.results)}, indent=1), encoding="utf-8"
        )


def _cpu_minutes(results: Path, cell: tuple[object, ...]) -> float | None:
    rows = [row for row in read_lines(results) if _cell(row) == cell and "cpu_minutes" in row]
    return float(str(rows[-1]["cpu_minutes"])) if rows else None


def _cell(row: dict[str, object]) -> tuple[object, ...]:
    return row["set"], row["images"], row["way"], row["seed"]


def numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas."""
    return [int(part) for part in text.split(",")]


def names(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """Return the reader of a list with commas whose words have to be among these."""
    known = tuple(allowed)

    def read(text: str) -> list[str]:
        words = text.split(",")
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"expected {', '.join(known)}, got {', '.join(unknown)}")
        return words

    return read


def parse(words: list[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["nuclei", "fruits", "shifted"])
    parser.add_argument("--images", type=numbers, default=list(SIZES), help="16,64; more than a set has: all")
    parser.add_argument("--ways", type=names(WAYS), default=["recipe-1", "all"], help=", ".join(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=240.0, help="no cell begins later")
    parser.add_argument("--base", type=Path, default=BASE, help="checkpoint that is fine-tuned")
    parser.add_argument("--mapped", metavar="CLASS", help="of the base: all labels are this class")
    parser.add_argument(
        "--new",
        type=lambda text: text.split(","),
        default=[],
        help="star,ring: called otherwise, so that the base lacks them",
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / ".maskloop" / "few-images")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="folder for the model that was trained last")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
