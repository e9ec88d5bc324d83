"""What the cross-validation of unlabelled images says, and what they really gain on a holdout.

`python -m tests.benchmarks.pool_check` takes 16 annotated images of a set and 100 without annotations, asks
the folds that a worker with MASKLOOP_TRAIN_POOL_CHECK trains, then trains both ways on all 16 and judges them
on images that neither has seen. With `--teacher folds` each fold's own model labels the unlabelled images, as
where the served version has learnt from the annotated ones. Results are JSON lines; what stands there is not
done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.evaluate import evaluate_side_by_side
from maskloop.learning.pool_check import PoolFold, fold_scores, make_folds
from maskloop.learning.pool_verdict import judge_folds
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import recipe_for
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.settings import Settings

from .curve_data import Pool, draw
from .few_images import BASE, ROOT, SERVED, label_pool, load_set, load_start, names, run_cell
from .learning_curves import append_row, read_lines

RESULTS = ROOT / "tests" / "benchmarks" / "results" / "pool-check.jsonl"
NEAR = 0.2  # as MASKLOOP_NEAR_DISTANCE


def check(
    pool: Pool, edge: int, *, images: int, seed: int, teacher: str, base: Path, work: Path
) -> dict[str, object]:
    """Return what the folds say: `gain`, `needed`, `use` and the figures of each; killed, it goes on."""
    start = load_start(base, edge)
    examples = draw(pool, images, seed)
    settings = Settings.model_construct(seed=seed, train_precision="float32")

    def train(fold: PoolFold, guessed: Sequence[TrainingExample], folder: Path) -> Checkpoint:
        learnt = (*fold.rest, *guessed)
        recipe = replace(recipe_for(start, learnt, pool.labels, settings), threads=1)
        return finetune(
            FinetuneJob(base=start, examples=learnt, recipe=recipe, output_dir=folder, labels=pool.labels)
        )

    def label(fold: PoolFold, model: Checkpoint) -> Sequence[TrainingExample]:
        chosen = (start, work / "labelled") if teacher == "start" else (model, fold.folder / "labelled")
        return label_pool(chosen[0], pool, examples, seed, chosen[1])

    began = time.process_time()
    folds = make_folds(examples, {one.key for one in examples}, work / "folds")
    scores = fold_scores(
        folds,
        train=train,
        label=label,
        evaluate=lambda models, judged: evaluate_side_by_side(
            models, judged, labels=pool.labels, thresholds=SERVED
        ),
        near_distance=NEAR,
    )
    use, gain, needed = judge_folds(scores)
    return {
        "gain": round(gain, 4),
        "needed": round(needed, 4),
        "use": use,
        "folds": [
            {name: round(value, 4) for name, value in (asdict(one) | {"gain": one.gain}).items()}
            for one in scores
        ],
        "cpu_minutes": round((time.process_time() - began) / 60, 2),
    }


def run(arguments: argparse.Namespace) -> None:
    """Fill the rows that are missing."""
    torch.set_num_threads(1)
    done = [(row["set"], row["seed"], row["way"]) for row in read_lines(arguments.results)]
    for name, seed in itertools.product(arguments.sets, arguments.seeds):
        pool, edge = load_set(name, arguments.data)
        for way in arguments.ways:
            if (name, seed, way) in done:
                continue
            work = arguments.work / f"{name}-{seed}-{way}"
            common = {"images": arguments.images, "seed": seed, "base": arguments.base}
            if way in ("start", "folds"):
                found = check(pool, edge, teacher=way, work=work, **common)
            else:
                found = run_cell(pool, edge, way=way, work=work, **common)
            row = {"set": name, "images": arguments.images, "seed": seed, "way": way} | found
            append_row(arguments.results, row)
            print(json.dumps(row), flush=True)
            shutil.rmtree(work, ignore_errors=True)


def parse(words: list[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    ways = ("start", "folds", "all", "pool")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["shifted"])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument(
        "--ways",
        type=names(ways),
        default=["start", "all", "pool"],
        help="start, folds: the check, by teacher; all, pool: on the holdout, without and with the pool",
    )
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / ".maskloop" / "pool-check")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
