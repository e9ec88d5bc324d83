"""How often the gate refuses poisoned batches and accepts true gains.

`python -m tests.benchmarks.gate_trials`: each try fine-tunes a champion for a few steps on a made-up batch of
its own seed and lets the gate decide on a holdout drawn from a pool of images; the rest of the pool says what
the truth was. The tiny shipped Mask2Former at 64 pixels, so that hundreds of tries take minutes. "base" knows
another domain, "adapted" has learnt from 64 images of this one.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers

from maskloop.lab.base_model import made_up_examples
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.comparison import compare
from maskloop.learning.evaluation.evaluate import evaluate_side_by_side
from maskloop.learning.evaluation.gate import GateRule, decide
from maskloop.learning.evaluation.prediction_metrics import Evaluation
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.settings import BASE_MODEL
from maskloop.types import Segment

EDGE = 64
SIZE_HW = (EDGE, EDGE)
BATCH_IMAGES = 16
STEPS = 12
HOLDOUT = 24
POOL = 72
SEEDS_APART = 1000  # of two tries; no image is seen twice
POOL_SEED, ADAPT_SEED = 8_000_000, 9_000_000
CONFIDENCES = (0.5, 0.8, 0.95, 0.99)
DROPS = (0.05, 0.2, 1.0)
HOLDOUTS = (4, 8, 12, 48)

Poison = Callable[[TrainingExample, np.random.Generator], TrainingExample]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One batch: the group it belongs to, the champion it starts from, what is done to it."""

    group: str
    kind: str
    champion: str
    seed: int
    poison: Poison | None = None
    images_seed: int | None = None  # None: images of its own


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one try came to, before any rule."""

    trial: Trial
    champion: Evaluation  # on the whole pool
    challenger: Evaluation
    order: tuple[int, ...]  # of the pool: the holdout is its beginning


def relabelled(segments: Iterable[Segment], label_of: Callable[[str], str]) -> tuple[Segment, ...]:
    return tuple(replace(segment, label=label_of(segment.label)) for segment in segments)


def swap_labels(example: TrainingExample, rng: np.random.Generator) -> TrainingExample:
    following = dict(zip(SHAPE_CLASSES, (*SHAPE_CLASSES[1:], SHAPE_CLASSES[0]), strict=True))
    return replace(example, segments=relabelled(example.segments, following.__getitem__))


def random_labels(example: TrainingExample, rng: np.random.Generator) -> TrainingExample:
    return replace(example, segments=relabelled(example.segments, lambda _: str(rng.choice(SHAPE_CLASSES))))


def moved_masks(example: TrainingExample, rng: np.random.Generator) -> TrainingExample:
    moved = []
    for segment in example.segments:
        height, width = segment.mask_hw.shape
        top, left = (
            int(np.clip(start + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0) * side, 0, EDGE - side))
            for start, side in zip(segment.offset_yx, (height, width), strict=True)
        )
        moved.append(replace(segment, offset_yx=(top, left)))
    return replace(example, segments=tuple(moved))


def garbage_masks(example: TrainingExample, rng: np.random.Generator) -> TrainingExample:
    made = []
    for segment in example.segments:
        height, width = (int(side) for side in rng.integers(6, EDGE // 2, size=2))
        top, left = int(rng.integers(EDGE - height)), int(rng.integers(EDGE - width))
        mask_hw = np.ones((height, width), bool)
        made.append(Segment(mask_hw=mask_hw, offset_yx=(top, left), label=segment.label))
    return replace(example, segments=tuple(made))


def half_labels_swapped(example: TrainingExample, rng: np.random.Generator) -> TrainingExample:
    return swap_labels(example, rng) if rng.random() < 0.5 else example


def one_class_wrong(example: TrainingExample, rng: np.random.Generator) -> TrainingExample:
    return replace(
        example,
        segments=relabelled(example.segments, lambda label: "ring" if label == "disc" else label),
    )


POISONS: dict[str, Poison] = {
    "labels swapped": swap_labels,
    "labels random": random_labels,
    "masks moved": moved_masks,
    "masks garbage": garbage_masks,
}


def planned(tries: int) -> list[Trial]:
    """Return the tries of both aims, and an eighth as many of each case that has none."""
    kinds = list(POISONS)
    trials = []
    for seed in range(tries):
        kind = kinds[seed % len(kinds)]
        trials.append(Trial(group="poisoned", kind=kind, champion="adapted", seed=seed, poison=POISONS[kind]))
        trials.append(Trial(group="true gain", kind="new domain", champion="base", seed=seed))
    for number in range(-(-tries // 8)):
        seed = tries + number
        kind = kinds[number % len(kinds)]
        half, one = half_labels_swapped, one_class_wrong
        cases: list[tuple[str, str, str, Poison | None]] = [
            ("poisoned, domain new", kind, "base", POISONS[kind]),
            ("half poisoned", "labels swapped", "adapted", half),
            ("one class wrong", "disc drawn as ring", "adapted", one),
            ("one class wrong, domain new", "disc drawn as ring", "base", one),
            ("more of the same", "fresh images", "adapted", None),
        ]
        trials += [
            Trial(group=group, kind=kind, champion=champion, seed=seed, poison=poison)
            for group, kind, champion, poison in cases
        ]
        trials.append(
            Trial(
                group="nothing new",
                kind="its own images",
                champion="adapted",
                seed=seed,
                images_seed=ADAPT_SEED,
            )
        )
    return trials


def tuned(champion: Checkpoint, examples: Sequence[TrainingExample], *, steps: int, seed: int) -> Checkpoint:
    recipe = FinetuneRecipe(steps=steps, warmup=2, seed=seed, save_every=10 * steps, threads=1)
    with tempfile.TemporaryDirectory(prefix="maskloop-gate-") as scratch:
        return finetune(
            FinetuneJob(base=champion, examples=examples, recipe=recipe, output_dir=Path(scratch))
        )


def tried(
    trial: Trial,
    champions: dict[str, tuple[Checkpoint, Evaluation]],
    pool: Sequence[TrainingExample],
) -> Outcome:
    model, before = champions[trial.champion]
    # groups that start from one seed learn from the same images: what differs is what was done to them
    first = trial.seed * SEEDS_APART if trial.images_seed is None else trial.images_seed
    rng = np.random.default_rng([trial.seed, 1])
    examples = made_up_examples(first, BATCH_IMAGES, domain="shifted", size_hw=SIZE_HW)
    if trial.poison is not None:
        examples = [trial.poison(example, rng) for example in examples]
    challenger = tuned(model, examples, steps=STEPS, seed=trial.seed)
    (after,) = evaluate_side_by_side([challenger], pool)
    order = np.random.default_rng([trial.seed, 2]).permutation(len(pool))
    return Outcome(
        trial=trial,
        champion=before,
        challenger=timeless(after),
        order=tuple(int(place) for place in order),
    )


def timeless(evaluation: Evaluation) -> Evaluation:
    """Return it without times: champions are evaluations once, when the machine did other things."""
    return replace(evaluation, seconds_n=np.full(evaluation.images, np.nan))


def part_of(evaluation: Evaluation, images: Sequence[int]) -> Evaluation:
    """Return the evaluation on some of the images."""
    place = np.full(evaluation.images, -1)
    place[list(images)] = np.arange(len(images))
    kept = place[evaluation.detections.image_d] >= 0
    seen = evaluation.detections
    return replace(
        evaluation,
        keys=tuple(evaluation.keys[image] for image in images),
        groups=tuple(evaluation.groups[image] for image in images) if evaluation.groups else (),
        panoptic_4nc=evaluation.panoptic_4nc[:, list(images)],
        area_3nc=evaluation.area_3nc[:, list(images)],
        boundary_3nc=evaluation.boundary_3nc[:, list(images)],
        objects_nc=evaluation.objects_nc[list(images)],
        seconds_n=evaluation.seconds_n[list(images)],
        detections=replace(
            seen,
            class_d=seen.class_d[kept],
            image_d=place[seen.image_d[kept]],
            score_d=seen.score_d[kept],
            correct_td=seen.correct_td[:, kept],
            ignored_td=seen.ignored_td[:, kept],
        ),
    )


def accepted(outcome: Outcome, rule: GateRule, images: int = HOLDOUT) -> bool:
    holdout = outcome.order[:images]
    return decide(part_of(outcome.champion, holdout), part_of(outcome.challenger, holdout), rule).promote


def true_gain(outcome: Outcome) -> float:
    """Return the change of the score on the pool's images that were not in the holdout."""
    rest = outcome.order[HOLDOUT:]
    seen = compare(
        part_of(outcome.champion, rest), part_of(outcome.challenger, rest),
        confidence=0.9, margin=0.0, class_drop=0.1, resamples=1, seed=0,
    )  # fmt: skip
    return seen.gain


def slowdowns(
    champions: dict[str, tuple[Checkpoint, Evaluation]], pool: Sequence[TrainingExample]
) -> list[float]:
    """Return what is measured of two models of one make, one untrained on the domain, taking turns."""
    models = [champions["base"][0], champions["adapted"][0]]
    measured = []
    for start in range(0, len(pool), HOLDOUT):
        first, second = evaluate_side_by_side(models, pool[start : start + HOLDOUT])
        measured.append(float(np.median(second.seconds_n / first.seconds_n)) - 1)
    return measured


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Return a row for each group and kind under the default rule."""
    cases = [(outcome.trial.group, None, None) for outcome in outcomes]
    cases += [(item.trial.group, item.trial.kind, item.trial.champion) for item in outcomes]
    verdicts = {outcome: accepted(outcome, GateRule()) for outcome in outcomes}
    rows: list[dict[str, object]] = []
    for group, kind, champion in sorted(set(cases), key=lambda case: tuple(map(str, case))):
        mine = [
            outcome
            for outcome in outcomes
            if outcome.trial.group == group
            and kind in (None, outcome.trial.kind)
            and champion in (None, outcome.trial.champion)
        ]
        gains = [true_gain(outcome) for outcome in mine]
        rows.append(
            {
                "group": group,
                "kind": kind or "all",
                "champion": champion or "all",
                "tries": len(mine),
                "accepted": sum(verdicts[outcome] for outcome in mine),
                "true_gain_median": round(statistics.median(gains), 4),
                "true_gain_min": round(min(gains), 4),
                "true_gain_max": round(max(gains), 4),
                "truly_better": sum(gain > 0 for gain in gains),
            }
        )
    return rows


def sweep(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Return what other settings would have accepted, in each group, in percent."""
    settings: list[tuple[str, float, GateRule, int]] = [
        ("default", GateRule().confidence, GateRule(), HOLDOUT)
    ]
    settings += [("confidence", value, GateRule(confidence=value), HOLDOUT) for value in CONFIDENCES]
    settings += [("class drop", value, GateRule(class_drop=value), HOLDOUT) for value in DROPS]
    settings += [("holdout images", value, GateRule(), value) for value in HOLDOUTS]
    groups = sorted({outcome.trial.group for outcome in outcomes})
    rows: list[dict[str, object]] = []
    for name, value, rule, images in settings:
        row: dict[str, object] = {"setting": name, "value": value}
        for group in groups:
            mine = [outcome for outcome in outcomes if outcome.trial.group == group]
            row[group] = round(100 * sum(accepted(item, rule, images) for item in mine) / len(mine), 1)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return rows as Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def run(tries: int, *, quiet: bool = False) -> dict[str, object]:
    """Try and count; the same tries give the same numbers on the same versions."""
    torch.set_num_threads(1)
    started, started_cpu = time.monotonic(), time.process_time()
    shipped = load_checkpoint(str(BASE_MODEL), device="cpu")
    base = replace(shipped, preprocessing=replace(shipped.preprocessing, shortest_edge=EDGE))
    pool = made_up_examples(POOL_SEED, POOL, domain="shifted", size_hw=SIZE_HW)
    adapted = tuned(
        base,
        made_up_examples(ADAPT_SEED, 4 * BATCH_IMAGES, domain="shifted", size_hw=SIZE_HW),
        steps=6 * STEPS,
        seed=0,
    )
    evaluations = evaluate_side_by_side([base, adapted], pool)
    champions = {
        name: (model, timeless(evaluation))
        for name, model, evaluation in zip(("base", "adapted"), (base, adapted), evaluations, strict=True)
    }
    outcomes = []
    trials = planned(tries)
    for number, trial in enumerate(trials, start=1):
        outcomes.append(tried(trial, champions, pool))
        if not quiet and number % 25 == 0:
            print(f"{number}/{len(trials)} tries, {time.monotonic() - started:.0f} s", flush=True)
    return {
        "tries": tries,
        "rule": {"confidence": GateRule().confidence, "class_drop": GateRule().class_drop},
        "holdout_images": HOLDOUT,
        "champion_scores": {
            name: [round(value, 4) for value in (seen.metrics.ap50, seen.metrics.pq, seen.metrics.miou)]
            for name, (_, seen) in champions.items()
        },
        "summary": summary(outcomes),
        "sweep": sweep(outcomes),
        "slowdowns": [round(value, 3) for value in slowdowns(champions, pool)],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "machine": f"{platform.machine()}, 1 thread",
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - started_cpu, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=100, help="of each aim")
    parser.add_argument("--json", type=Path, help="where the numbers go as well")
    arguments = parser.parse_args()
    report = run(arguments.tries)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    rows = report["summary"]
    for name in ("summary", "sweep"):
        found = report[name]
        assert isinstance(found, list)
        print(f"\n{name}\n\n{table(found)}")
    assert isinstance(rows, list)
    print(f"\nslowdowns {report['slowdowns']}, {report['seconds']} s, {report['cpu_seconds']} s of one core")


if __name__ == "__main__":
    main()
