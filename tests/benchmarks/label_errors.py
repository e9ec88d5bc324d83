"""Which ranking finds label errors? Errors of known kinds put into true annotations, method against method.

`python -m tests.benchmarks.label_errors` puts 10 and 20 % errors of each kind, and of all kinds mixed, into
the annotations of each set, ranks regions and missing regions by every method on the same out-of-sample
predictions, and prints a table. `label_error_data` makes the predictions, `label_error_shapes` the errors.

Where the errors are of one kind, the review is also asked for that kind alone: what can be none of it comes
last. `auprc_own` and `recall_own` are of every method over what can be of the kind: regions, or missing ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from maskloop.curation.review.error_classifier import image_numbers
from maskloop.curation.review.injection import Corrupted, inject
from maskloop.curation.review.rank import rank
from maskloop.curation.review.suspicion import ReviewImage, Suspicion, SuspicionKind
from maskloop.masks import segment_iou
from maskloop.settings import BASE_MODEL

from .label_error_baselines import BASELINES
from .label_error_data import SETS, LabelledImage, LabelSet, load_images
from .label_error_shapes import BENCHMARK

ROOT = Path(__file__).parents[2]
OURS = "maskloop review"
ASKED = "maskloop review, one kind"
MIXED = "all kinds"
KINDS = (MIXED, *map(str, SuspicionKind))
SHARES = (0.1, 0.2)
FOUND_IOU = 0.3  # of an object that is shown as missing with the one that was taken away
FALSE_ALARMS = 0.1
FIRST = 0.2
LEAST_ERRORS = 3  # a row with fewer says nothing
RESAMPLES = 200
NOT_SHOWN = -1.0  # score of what can be none of the kinds asked for: after all else


@dataclass(frozen=True, kw_only=True, eq=False)
class Items:
    """Everything a method ranks, of all images of one run: N regions, missing regions and errors."""

    is_error_n: NDArray[np.bool_]
    image_n: NDArray[np.int64]
    score_n: NDArray[np.float64]
    is_region_n: NDArray[np.bool_]  # else a missing one

    def of(self, chosen_n: NDArray[np.bool_]) -> Items:
        """Return some of them."""
        return Items(
            is_error_n=self.is_error_n[chosen_n],
            image_n=self.image_n[chosen_n],
            score_n=self.score_n[chosen_n],
            is_region_n=self.is_region_n[chosen_n],
        )


def corrupt(
    images: Sequence[LabelledImage], kind: str, share: float, seed: int
) -> tuple[list[ReviewImage], list[Corrupted]]:
    """Return the images with errors of a kind, or of all, in a share of their regions."""
    rng = np.random.default_rng([seed, round(100 * share), zlib.crc32(kind.encode())])
    labels = sorted({segment.label for image in images for segment in image.truth})
    kinds = list(SuspicionKind) if kind == MIXED else [SuspicionKind(kind)]
    copies = []
    for image in images:
        chosen = {
            index: kinds[int(rng.integers(len(kinds)))]
            for index in range(len(image.truth))
            if rng.random() < share
        }
        copies.append(inject(image.truth, image.size_hw, chosen, labels=labels, rng=rng, shapes=BENCHMARK))
    shown = [
        ReviewImage(
            key=image.key,
            size_hw=image.size_hw,
            regions=copy.regions,
            evidence=image.evidence,
            ignored=image.ignored,
        )
        for image, copy in zip(images, copies, strict=True)
    ]
    return shown, copies


def gather(
    images: Sequence[ReviewImage],
    copies: Sequence[Corrupted],
    suspicions: Sequence[Suspicion],
    scores: Callable[[int], tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Items:
    """Return what is ranked: an error counts once, with the highest score that points at it."""
    missing = _missing(images, suspicions)
    rows: list[tuple[bool, int, float, bool]] = []
    for number, copy in enumerate(copies):
        region_r, missing_m = scores(number)
        shown = missing[number]
        touched = {region for error in copy.errors for region in error.regions}
        explained: set[int] = set()
        for error in copy.errors:
            if error.removed is None:
                rows.append((True, number, max(float(region_r[region]) for region in error.regions), True))
                continue
            hits = [
                place
                for place, one in enumerate(shown)
                if one.proposal is not None and segment_iou(one.proposal, error.removed) >= FOUND_IOU
            ]
            explained.update(hits)
            best = max((float(missing_m[place]) for place in hits), default=-np.inf)
            rows.append((True, number, best, False))
        rows += [
            (False, number, float(score), True)
            for index, score in enumerate(region_r)
            if index not in touched
        ]
        rows += [
            (False, number, float(score), False)
            for place, score in enumerate(missing_m)
            if place not in explained
        ]
    is_error, image_of, score, is_region = zip(*rows, strict=True)
    score_n = np.array(score, dtype=np.float64)
    floor = score_n[np.isfinite(score_n)].min(initial=0.0) - 1.0  # an error that nothing points at comes last
    return Items(
        is_error_n=np.array(is_error),
        image_n=np.array(image_of),
        score_n=np.maximum(score_n, floor),
        is_region_n=np.array(is_region),
    )


def figures(items: Items) -> dict[str, float]:
    """Return the figures of a row; ties are broken by chance."""
    truth_n, score_n = items.is_error_n, items.score_n
    fpr, tpr, _ = roc_curve(truth_n, score_n)
    order = np.lexsort((np.random.default_rng(0).random(len(score_n)), -score_n))
    first = order[: max(1, round(FIRST * len(order)))]
    return {
        "auroc": float(roc_auc_score(truth_n, score_n)),
        "auprc": float(average_precision_score(truth_n, score_n)),
        "recall_fpr10": float(np.interp(FALSE_ALARMS, fpr, tpr)),
        "found_first20": float(truth_n[first].sum() / truth_n.sum()),
        "precision_at_errors": float(truth_n[order[: int(truth_n.sum())]].mean()),
    }


def auprc_interval(items: Items, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the AUPRC over images drawn with replacement."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(items.image_n == image) for image in np.unique(items.image_n)]
    found = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([members[index] for index in rng.integers(len(members), size=len(members))])
        if items.is_error_n[drawn].any():
            found.append(average_precision_score(items.is_error_n[drawn], items.score_n[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def measure(
    images: Sequence[LabelledImage], kind: str, share: float, seed: int, *, asked_only: bool = False
) -> list[dict[str, object]]:
    """Return the rows of all methods of one run; none where too few errors could be drawn."""
    shown, copies = corrupt(images, kind, share, seed)
    if sum(len(copy.errors) for copy in copies) < LEAST_ERRORS:
        return []
    labels = sorted({segment.label for image in images for segment in image.truth})
    methods = {}
    if kind == MIXED or not asked_only:
        suspicions = rank(shown, labels=labels, seed=seed).suspicions
        methods[OURS] = _scores(shown, suspicions, suspicions)
    else:
        suspicions = _candidates(shown)
    missing = _missing(shown, suspicions)
    if kind != MIXED:
        asked = rank(shown, labels=labels, seed=seed, kinds=[SuspicionKind(kind)]).suspicions
        methods[ASKED] = _scores(shown, suspicions, asked)
    rng = np.random.default_rng(seed)
    for name, baseline in BASELINES.items():
        made = [
            baseline(image, [one.proposal for one in missing[number] if one.proposal is not None], rng)
            for number, image in enumerate(shown)
        ]
        methods[name] = lambda number, made=made: (made[number].region_r, made[number].missing_m)  # type: ignore[misc]
    rows: list[dict[str, object]] = []
    for name, scores in methods.items():
        items = gather(shown, copies, suspicions, scores)
        low, high = auprc_interval(items, seed)
        found = figures(items)
        if kind != MIXED:
            own = figures(items.of(items.is_region_n == (kind != SuspicionKind.OVERLOOKED)))
            found |= {"auprc_own": own["auprc"], "recall_own": own["recall_fpr10"]}
        rows.append(
            {
                "kind": kind,
                "share": share,
                "seed": seed,
                "method": name,
                "errors": int(items.is_error_n.sum()),
                "items": len(items.is_error_n),
                **{figure: round(value, 4) for figure, value in found.items()},
                "auprc_low": round(low, 4),
                "auprc_high": round(high, 4),
            }
        )
    return rows


def _candidates(images: Sequence[ReviewImage]) -> tuple[Suspicion, ...]:
    return tuple(
        Suspicion(image=image.key, kind=SuspicionKind.OVERLOOKED, score=0.0, region=None, proposal=one)
        for image in images
        for one in image_numbers(image.regions, image).missing
    )


def _missing(images: Sequence[ReviewImage], suspicions: Sequence[Suspicion]) -> list[list[Suspicion]]:
    of_image: defaultdict[str, list[Suspicion]] = defaultdict(list)
    for suspicion in suspicions:
        if suspicion.region is None:
            of_image[suspicion.image].append(suspicion)
    return [of_image[image.key] for image in images]


def _scores(
    images: Sequence[ReviewImage], listed: Sequence[Suspicion], ranked: Sequence[Suspicion]
) -> Callable[[int], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the scores of each image by a ranking, missing regions in the order of `listed`."""
    found = {_place(one): one.score for one in ranked}
    missing = _missing(images, listed)

    def of_image(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        image = images[number]
        regions = [(image.key, index) for index in range(len(image.regions))]
        return (
            np.array([found.get(one, NOT_SHOWN) for one in regions], dtype=np.float64),
            np.array([found.get(_place(one), NOT_SHOWN) for one in missing[number]], dtype=np.float64),
        )

    return of_image


def _place(one: Suspicion) -> tuple[object, ...]:
    if one.region is not None:
        return one.image, one.region
    assert one.proposal is not None  # where a region is missing there is an object
    return one.image, None, one.proposal.offset_yx, one.proposal.mask_hw.shape, one.proposal.area


def summary(rows: Sequence[dict[str, object]]) -> str:
    """Return two tables: our figures by set and kind, and every method's AUPRC on all kinds mixed."""
    lines = [
        "| set | kind | method | errors | AUROC | AUPRC | recall at 10 % false alarms | in the first 20 % |",
        "|---" * 8 + "|",
    ]
    groups: defaultdict[tuple[object, object, object], list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        groups[row["set"], row["kind"], row["method"]].append(row)
    for (name, kind, method), some in groups.items():
        if method in (OURS, ASKED):
            shown = " | ".join(f"{_mean(some, figure):.2f}" for figure in FIGURES)
            errors = sum(int(str(one["errors"])) for one in some)
            lines.append(f"| {name} | {kind} | {method} | {errors} | {shown} |")
    sets = list(dict.fromkeys(name for name, kind, _ in groups if kind == MIXED))
    lines += ["", "| method | " + " | ".join(map(str, sets)) + " |", "|---" * (len(sets) + 1) + "|"]
    for method in (OURS, *BASELINES):
        cells = [groups[name, MIXED, method] for name in sets]
        shown = " | ".join(
            f"{_mean(some, 'auprc'):.2f} ({_mean(some, 'auprc_low'):.2f} to "
            f"{_mean(some, 'auprc_high'):.2f}), {_mean(some, 'found_first20'):.2f}"
            for some in cells
        )
        lines.append(f"| {method} | {shown} |")
    return "\n".join(lines)


FIGURES = ("auroc", "auprc", "recall_fpr10", "found_first20")


def _mean(rows: Sequence[dict[str, object]], figure: str) -> float:
    return float(np.mean([float(str(row[figure])) for row in rows])) if rows else float("nan")


def run(arguments: argparse.Namespace, say: Callable[[str], None] = print) -> None:
    """Measure every run that is not in the JSON file yet, then print the tables."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    if arguments.json is not None and arguments.json.is_file():
        rows = json.loads(arguments.json.read_text())["rows"]
    done = {(row["set"], row["kind"], row["share"], row["seed"]) for row in rows}
    sets = [SETS[name] for name in arguments.sets]
    if arguments.data_set is not None:
        sets.append(LabelSet(name=arguments.data_set.name, edge=160, folds=3, steps=200))
    for chosen in sets:
        data = arguments.data if chosen.name in SETS else arguments.data_set.parent
        images = load_images(chosen, data, arguments.work, say, base=arguments.base)
        for seed in range(arguments.seeds):
            for share in arguments.shares:
                for kind in arguments.kinds:
                    if (chosen.name, kind, share, seed) in done or not _possible(images, kind):
                        continue
                    started = time.monotonic()
                    found = measure(images, kind, share, seed, asked_only=arguments.asked_only)
                    rows += [{"set": chosen.name, **row} for row in found]
                    if arguments.json is not None:
                        arguments.json.write_text(json.dumps({"rows": rows}))
                    if found:
                        say(
                            f"{chosen.name}, {kind}, {share:.0%}, seed {seed}: {found[0]['errors']} "
                            f"errors, AUPRC {found[0]['auprc']}, recall {found[0]['recall_fpr10']}, "
                            f"{time.monotonic() - started:.0f} s"
                        )
    say(summary(rows))


def _possible(images: Sequence[LabelledImage], kind: str) -> bool:
    labels = {segment.label for image in images for segment in image.truth}
    return kind != SuspicionKind.WRONG_CLASS or len(labels) > 1


def parse(words: list[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--data", dest="data_set", type=Path, help="a folder in COCO form as one more set")
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="each by itself")
    parser.add_argument(
        "--asked-only", action="store_true", help="of one kind alone, leave the review of all kinds out"
    )
    parser.add_argument("--real", dest="data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / ".maskloop" / "label-errors")
    parser.add_argument(
        "--base", type=Path, default=BASE_MODEL, help="what the models are made from; a JSON file of its own"
    )
    parser.add_argument("--json", type=Path, help="rows; runs that stand there are not done again")
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
