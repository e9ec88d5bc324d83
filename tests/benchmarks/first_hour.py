"""What annotators are shown after 0, 4, 8 and 12 annotated images, and what it saves, by honest costs.

`python -m tests.benchmarks.first_hour` fine-tunes the shipped model on ever more images of a source, as the
worker does, finds on a holdout which segments are worth drawing (`showing_search`), and lets a simulated
annotator correct, on all images that neither trained nor judged, what is drawn then. Every region that is not
within IoU .95 of the truth costs an edit. Results are JSON lines; what is there is not done again, and what
was trained is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskloop.lab.simulation.data import coco_to_example, common_labels, name_digest
from maskloop.lab.synthetic.coco import read_coco
from maskloop.lab.synthetic.pools import make_pool_image
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.evaluation.annotation_cost import DEFAULT_WEIGHTS, work_saved
from maskloop.learning.evaluation.calibration import calibration_error
from maskloop.learning.evaluation.evaluate import ground_truth
from maskloop.learning.evaluation.fragments import count_fragments
from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.learning.evaluation.region_edits import compare_segments
from maskloop.learning.evaluation.showing import Showing, shown_segments
from maskloop.learning.evaluation.showing_search import ShowingRule, find_showing
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import recipe_for
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.settings import BASE_MODEL, Settings
from maskloop.types import EditCounts, Prediction, SegmentationTask

from .few_images import renamed

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "first-hour.jsonl"
STEPS = (0, 4, 8, 12)  # annotated images
SERVED = Thresholds.from_settings(Settings.model_construct())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The images of one source, and how they are shared out."""

    edge: int  # pixels: the shorter side that the model sees
    holdout: int
    rest: int  # images that are only corrected, at most
    tile: int | None = None  # pixels: only a square around the object nearest to the image's middle


PLANS = {
    "fruits": Plan(edge=192, holdout=4, rest=2),
    "nuclei": Plan(edge=128, holdout=8, rest=24, tile=80),
    "made-up": Plan(edge=128, holdout=8, rest=24),
}


def load_examples(source: str, data: Path, seed: int) -> list[TrainingExample]:
    """Return a source's images in the order of a seed."""
    plan = PLANS[source]
    if source == "made-up":
        made = [(number, make_pool_image(1000 * seed + number)) for number in range(44)]
        found = [
            TrainingExample(image=one.image_hwc, segments=one.segments, key=str(number))
            for number, one in made
        ]
    else:
        images = sorted(read_coco(data / source), key=lambda image: name_digest(image.path.name))
        labels = common_labels(images, None)
        found = [coco_to_example(image, labels, plan.tile) for image in images]
    filled = [example for example in found if example.segments]
    return [filled[index] for index in np.random.default_rng(seed).permutation(len(filled))]


def train(
    base: Checkpoint, examples: Sequence[TrainingExample], new: int, seed: int, work: Path
) -> Checkpoint:
    """Return the checkpoint fine-tuned on the examples, of which the last `new` are new."""
    labels = sorted({segment.label for example in examples for segment in example.segments})
    settings = Settings.model_construct(seed=seed, train_precision="float32")
    recipe = recipe_for(base, examples, labels, settings)
    first = len(examples) - new
    return finetune(
        FinetuneJob(
            base=base,
            examples=[replace(one, fresh=place >= first) for place, one in enumerate(examples)],
            recipe=replace(recipe, threads=1),
            output_dir=work,
            labels=tuple(labels),
            task=SegmentationTask.INSTANCE,
            kinds=SERVED.kinds,
        )
    )


def predict(model: Checkpoint, examples: Sequence[TrainingExample]) -> list[Prediction]:
    """Return the predictions of the examples' images."""
    images = [load_example_image(example) for example in examples]
    return predict_images(model, images, task=SegmentationTask.INSTANCE, thresholds=SERVED)


def truths_of(examples: Sequence[TrainingExample], found: Sequence[Prediction]) -> list[GroundTruth]:
    """Return what is really on the images."""
    return [ground_truth(example, one.size_hw) for example, one in zip(examples, found, strict=True)]


def figures(
    found: Sequence[Prediction], truths: Sequence[GroundTruth], labels: Sequence[str]
) -> Mapping[str, object]:
    """Return what an annotator has to do, and how good the segments are."""
    edits = [
        sum(compare_segments(one.segments, truth.segments).values(), EditCounts())
        for one, truth in zip(found, truths, strict=True)
    ]
    metrics = evaluate_predictions(found, truths, labels).metrics
    saved = work_saved(sum(edits, EditCounts()), DEFAULT_WEIGHTS)
    return {
        "work_saved": None if saved is None else round(saved, 3),
        "regions": sum(len(one.segments) for one in found),
        "fragments": sum(
            count_fragments(one.segments, truth.segments) for one, truth in zip(found, truths, strict=True)
        ),
        "edits": {name: value for name, value in vars(sum(edits, EditCounts())).items() if value},
        "ap": round(metrics.ap or 0.0, 3),
        "ap50": round(metrics.ap50, 3),
        "pq": round(metrics.pq, 3),
    }


def calibration_figures(
    found: Sequence[Prediction], truths: Sequence[GroundTruth], labels: Sequence[str], showing: Showing
) -> Mapping[str, object]:
    """Return the expected calibration error of the model's scores and of the displayed ones."""
    detections = evaluate_predictions(found, truths, labels).detections
    judged_d = ~detections.ignored_td[0]
    score_d, right_d = detections.score_d[judged_d], detections.correct_td[0][judged_d]
    displayed_d = np.array([showing.displayed(float(score)) for score in score_d])
    return {
        "segments": int(judged_d.sum()),
        "right": int(right_d.sum()),
        "before": round(calibration_error(score_d, right_d), 3),
        "after": round(calibration_error(displayed_d, right_d), 3),
    }


def run_source(
    source: str,
    seed: int,
    steps: Sequence[int],
    *,
    base: Path,
    data: Path,
    work: Path,
    mapped: str | None = None,
) -> Iterator[dict[str, object]]:
    """Yield one row for each number of annotated images; 0 is the base as it is.

    With `mapped` all labels are this class of the base.
    """
    plan = PLANS[source]
    examples = load_examples(source, data, seed)
    if mapped is not None:
        names = {segment.label: mapped for example in examples for segment in example.segments}
        examples = [renamed(example, names) for example in examples]
    holdout, others = examples[: plan.holdout], examples[plan.holdout :]
    loaded = load_checkpoint(base, device="cpu", training=True)
    model = replace(
        loaded,
        preprocessing=replace(loaded.preprocessing, shortest_edge=plan.edge, longest_edge=2 * plan.edge),
    )
    before = 0
    for count in steps:
        started = time.monotonic()
        if count:
            kept = work / f"{source}-{seed}-{count}"
            if not kept.is_dir():
                trained = train(model, others[:count], count - before, seed, work / f"{source}-{seed}-run")
                save_checkpoint(trained, kept)
            model, before = load_checkpoint(kept, device="cpu", training=True), count
        yield {
            "source": source,
            "seed": seed,
            "annotated": count,
            "train_seconds": round(time.monotonic() - started, 1),
            **judge(model, holdout, others[count : max(STEPS) + plan.rest]),
        }


def judge(
    model: Checkpoint, holdout: Sequence[TrainingExample], rest: Sequence[TrainingExample]
) -> Mapping[str, object]:
    """Return what the holdout says is worth drawing, and what this is worth on the other images."""
    judged = predict(model, holdout)
    showing = find_showing(judged, truths_of(holdout, judged), labels=model.labels, rule=ShowingRule())
    found = predict(model, rest)
    truths = truths_of(rest, found)
    labels = sorted({*model.labels, *(one.label for truth in truths for one in truth.segments)})
    drawn = [shown_segments(one, showing.floors) for one in found]
    return {
        "images": len(rest),
        "objects": sum(len(truth.segments) for truth in truths),
        "all": figures(found, truths, labels),
        "shown": figures(drawn, truths, labels),
        "calibration": calibration_figures(found, truths, labels, showing),
        "showing": showing.as_json(),
    }


def run(arguments: argparse.Namespace) -> None:
    """Do what is missing until the time is over."""
    until = time.monotonic() + 60 * arguments.minutes
    results: Path = arguments.results
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    done = {(row["source"], row["seed"], row["annotated"]) for row in map(json.loads, lines)}
    for seed in arguments.seeds:
        for source in arguments.sources:
            steps = [count for count in arguments.steps if (source, seed, count) not in done]
            if not steps or time.monotonic() > until:
                continue
            rows = run_source(
                source,
                seed,
                arguments.steps,
                base=arguments.base,
                data=arguments.data,
                work=arguments.work / f"{arguments.base.name}-{arguments.mapped or 'labels'}",
                mapped=arguments.mapped,
            )
            for row in rows:
                if (source, seed, row["annotated"]) not in done:
                    print(json.dumps(row), flush=True)
                    results.parent.mkdir(parents=True, exist_ok=True)
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                if time.monotonic() > until:
                    break


def parse(words: list[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", choices=sorted(PLANS), default=list(PLANS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS), help="annotated images")
    parser.add_argument(
        "--base", type=Path, default=BASE_MODEL, help="what is fine-tuned; give it results of its own"
    )
    parser.add_argument("--mapped", metavar="CLASS", help="of the base: all labels are this class")
    parser.add_argument("--minutes", type=float, default=60.0, help="no training begins later")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / ".maskloop" / "first-hour")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
