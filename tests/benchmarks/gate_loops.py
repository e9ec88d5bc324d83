"""How often the gate promotes what is no better, when one holdout judges many challengers; what it misses.

`python -m tests.benchmarks.gate_loops --loops 100 --rounds 20,100`: made-up models find each object of
made-up images with some probability; images differ in difficulty. A challenger redraws a share of its
champion's findings, with or without a true change. The real gate decides on counts of its holdout; each
promoted version is compared with its champion on 2,000 fresh images. Nothing is trained, so that thousands of
judgements take minutes. `fixed` is the same confidence for every challenger, `shared` the rule in use.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from maskloop.learning.evaluation.coco_matching import IOU_THRESHOLDS, Detections
from maskloop.learning.evaluation.comparison import compare
from maskloop.learning.evaluation.gate import GateRule, decide
from maskloop.learning.evaluation.prediction_metrics import Evaluation

LABELS = ("a", "b", "c")
PREVALENCE = (0.9, 0.6, 0.4)  # share of images with the class
MOST_OBJECTS = 4  # of a class on an image that has it
QUALITY = 0.6  # share of the objects that the first champion finds on an image of mean difficulty
SPURIOUS = 0.3  # wrong findings for each object that is not found
REDRAWN = 0.5  # share of its champion's findings that a challenger draws anew
IOU, AREA = 0.9, 100.0
FRESH = 2000
TURNS = (1, 2, 5, 10, 20)
POWER_HOLDOUTS = (8, 24, 60)
GAINS = (0.05, 0.1, 0.2)  # of the share of objects that is found
QUICK_RESAMPLES, QUICK_CONFIDENCE = 200, 0.75
WORLDS: dict[str, Callable[[np.random.Generator], float]] = {  # true change of the share that is found
    "all equal": lambda rng: 0.0,
    "all a little worse": lambda rng: -0.02,
    "as often better as worse": lambda rng: float(rng.normal(0.0, 0.02)),
}
RULES: dict[str, Callable[[int], GateRule]] = {
    # requires 0.9 of its first challenger; both with half of the resamples, to save time
    "fixed": lambda judged: GateRule(confidence=0.8, resamples=1000),
    "shared": lambda judged: GateRule(judged_before=judged, resamples=1000),
}
CASES = [("all equal", "fixed"), *((world, "shared") for world in WORLDS)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Objects of N images and C classes, and how difficult each image is."""

    objects_nc: NDArray[np.int64]
    difficulty_n: NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator, images: int) -> Images:
        counts = rng.integers(1, MOST_OBJECTS + 1, (images, len(LABELS)))
        return cls(
            objects_nc=counts * (rng.random(counts.shape) < PREVALENCE),
            difficulty_n=rng.normal(0, 1, images),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What a model finds: an object is found where its draw is below the chance on its image."""

    quality: float
    draws_nco: NDArray[np.float64]  # (N, C, MOST_OBJECTS), 0..1

    @classmethod
    def drawn(cls, rng: np.random.Generator, images: int) -> Model:
        return cls(quality=QUALITY, draws_nco=rng.random((images, len(LABELS), MOST_OBJECTS)))

    def challenger(self, rng: np.random.Generator, change: float) -> Model:
        anew = rng.random(self.draws_nco.shape) < REDRAWN
        draws = np.where(anew, rng.random(self.draws_nco.shape), self.draws_nco)
        return Model(quality=float(np.clip(self.quality + change, 0.02, 0.98)), draws_nco=draws)


def evaluated(model: Model, images: Images) -> Evaluation:
    """Return what the holdout's evaluation counts of a model."""
    chance_n = stats.logistic.cdf(stats.logistic.ppf(model.quality) - images.difficulty_n)
    exists_nco = np.arange(MOST_OBJECTS) < images.objects_nc[..., None]
    found_nco = exists_nco & (model.draws_nco < chance_n[:, None, None])
    # The same draw says where a wrong object appears instead, and how sure the model is.
    wrong_nco = exists_nco & ~found_nco & (model.draws_nco > 1 - SPURIOUS * (1 - chance_n[:, None, None]))
    hits, wrong = found_nco.sum(axis=2), wrong_nco.sum(axis=2)
    matched, predicted, true = (value.astype(float) for value in (hits, hits + wrong, images.objects_nc))
    where = [np.nonzero(found_nco), np.nonzero(wrong_nco)]
    correct_d = np.concatenate(
        [np.full(len(part[0]), value) for part, value in zip(where, (True, False), strict=True)]
    )
    image_d, class_d, object_d = (np.concatenate([part[axis] for part in where]) for axis in range(3))
    thresholds = len(IOU_THRESHOLDS)
    return Evaluation(
        labels=LABELS,
        known=frozenset(LABELS),
        stuff=frozenset(),
        keys=tuple(map(str, range(len(true)))),
        panoptic_4nc=np.stack([IOU * matched, matched, predicted, true]),
        area_3nc=np.stack([IOU * matched, predicted, true]) * AREA,
        boundary_3nc=np.stack([IOU * matched, predicted, true]),
        objects_nc=true,
        detections=Detections(
            class_d=class_d,
            image_d=image_d,
            score_d=np.where(correct_d, 1 - 0.5 * model.draws_nco[image_d, class_d, object_d], 0.6),
            correct_td=np.tile(correct_d, (thresholds, 1)),
            ignored_td=np.zeros((thresholds, len(correct_d)), np.bool_),
        ),
        seconds_n=np.full(len(true), np.nan),
    )


def score_change(before: Evaluation, after: Evaluation) -> tuple[float, float]:
    """Return the champion's score and the change of it."""
    seen = compare(before, after, confidence=0.9, margin=0.0, class_drop=1.0, resamples=1, seed=0)
    return seen.before, seen.gain


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What became of one loop by the end of a round."""

    promoted: int
    worse: int  # of them, where 2,000 fresh images say that it was the worse one
    optimism: float  # champion's score on the holdout minus that on fresh images


def is_promoted(before: Evaluation, after: Evaluation, rule: GateRule) -> bool:
    """Return the gate's decision; a short bootstrap spares most of the hopeless ones the whole one."""
    quick = compare(
        before, after, confidence=0.9, margin=0.0, class_drop=1.0, resamples=QUICK_RESAMPLES, seed=1
    )
    return quick.confidence >= QUICK_CONFIDENCE and decide(before, after, rule).promote


def run_loop(seed: int, *, world: str, rule: str, holdout: int, rounds: Sequence[int]) -> list[Loop]:
    """Return how a loop stands after each of some numbers of rounds, in rising order."""
    rng = np.random.default_rng([seed, holdout])
    images, fresh = Images.drawn(rng, holdout), Images.drawn(rng, FRESH)
    champion, elsewhere = Model.drawn(rng, holdout), Model.drawn(rng, FRESH)
    promoted = worse = judged = 0
    stands = []
    for number in range(1, rounds[-1] + 1):
        change = WORLDS[world](rng)
        challenger = champion.challenger(rng, change)
        seed_elsewhere = int(rng.integers(2**32))
        judged += 1
        if is_promoted(evaluated(champion, images), evaluated(challenger, images), RULES[rule](judged - 1)):
            its_elsewhere = elsewhere.challenger(np.random.default_rng(seed_elsewhere), change)
            gain = score_change(evaluated(elsewhere, fresh), evaluated(its_elsewhere, fresh))[1]
            promoted, worse, judged = promoted + 1, worse + (gain < 0), 0
            champion, elsewhere = challenger, its_elsewhere
        if number in rounds:
            last = [evaluated(champion, images), evaluated(elsewhere, fresh)]
            here, there = (score_change(one, one)[0] for one in last)
            stands.append(Loop(promoted=promoted, worse=worse, optimism=here - there))
    return stands


def confidence_of_gain(seed: int, *, holdout: int, gain: float) -> float:
    """Return the confidence of the gate that a challenger that truly finds more is better."""
    rng = np.random.default_rng([seed, holdout, round(100 * gain)])
    images, champion = Images.drawn(rng, holdout), Model.drawn(rng, holdout)
    challenger = champion.challenger(rng, gain)
    verdict = decide(evaluated(champion, images), evaluated(challenger, images))
    blocked = verdict.comparison is None or verdict.gain <= 0 or "fell" in verdict.reason
    return 0.0 if blocked or verdict.comparison is None else verdict.comparison.confidence


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper and Pearson)."""
    found = stats.binomtest(count, total).proportion_ci(method="exact")
    return round(float(found.low), 3), round(float(found.high), 3)


def loops_table(
    loops: int, rounds: Sequence[int], holdouts: Sequence[int], worlds: Sequence[str]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    cases = [(world, rule) for world, rule in CASES if world in worlds]
    for holdout in holdouts if loops else ():
        for world, rule in cases:
            ended = [
                run_loop(seed, world=world, rule=rule, holdout=holdout, rounds=rounds)
                for seed in range(loops)
            ]
            for place, length in enumerate(rounds):
                stands = [one[place] for one in ended]
                worse = sum(one.worse > 0 for one in stands)
                optimism = [one.optimism for one in stands]
                rows.append(
                    {
                        "holdout": holdout,
                        "world": world,
                        "rule": rule,
                        "rounds": length,
                        "loops": loops,
                        "loops_with_worse": worse,
                        "interval": share_interval(worse, loops),
                        "loops_with_promotion": sum(one.promoted > 0 for one in stands),
                        "optimism": round(float(np.mean(optimism)), 4),
                        "optimism_error": round(float(np.std(optimism) / np.sqrt(loops)), 4),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def power_table(tries: int, holdouts: Sequence[int]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for gain in GAINS:
        for holdout in holdouts:
            found = np.array([confidence_of_gain(seed, holdout=holdout, gain=gain) for seed in range(tries)])
            row: dict[str, object] = {"gain": gain, "holdout": holdout, "tries": tries}
            row["fixed"] = round(float(np.mean(found >= RULES["fixed"](0).required)), 3)
            for turn in TURNS:
                row[f"challenger {turn}"] = round(
                    float(np.mean(found >= RULES["shared"](turn - 1).required)), 3
                )
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", type=int, default=100, help="0 for the table of true gains alone")
    parser.add_argument("--rounds", default="20,100")
    parser.add_argument("--holdouts", default="8,24", help="images; of the loops")
    parser.add_argument("--worlds", nargs="+", choices=sorted(WORLDS), default=list(WORLDS))
    parser.add_argument("--tries", type=int, default=200, help="of each true gain; 0 for the loops alone")
    parser.add_argument("--json", type=Path, help="where the numbers go as well")
    arguments = parser.parse_args()
    started = time.process_time()
    holdouts = [int(value) for value in arguments.holdouts.split(",")]
    report = {
        "loops": loops_table(
            arguments.loops,
            [int(value) for value in arguments.rounds.split(",")],
            holdouts,
            arguments.worlds,
        ),
        "power": power_table(arguments.tries, POWER_HOLDOUTS) if arguments.tries else [],
        "rule": asdict(replace(GateRule(), class_floors={})),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(f"{report['cpu_seconds']} s of one core")


if __name__ == "__main__":
    main()
