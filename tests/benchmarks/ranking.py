"""Does the confidence rank images by correction work? Spearman's correlation, signal by signal.

`python -m tests.benchmarks.ranking` fine-tunes small models on a few images of each source, has them predict
the others, counts what an annotator would have to correct, and prints how well each signal, all together, the
formula before and chance rank the images by it. Neighbour learning_curves says how good such models become.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from maskloop.lab.base_model import made_up_examples
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.evaluation.ground_truth import merge_stuff
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.masks import LEAST_IOU, agreement, paste_segment, segment_iou
from maskloop.segmentation.checkpoint import Checkpoint, Family, load_checkpoint, save_checkpoint
from maskloop.segmentation.predict import predict_images
from maskloop.segmentation.test_time_views import VIEWS, ViewPlan
from maskloop.shipped import SHIPPED
from maskloop.types import Prediction, Segment, SegmentationTask, Signals

from .curve_data import SOURCES, draw, load_pool
from .learning_curves import ROOT, SERVED, build_base, cell_recipe

GOOD_IOU = 0.8  # a segment that overlaps the object more than this is left as it is
MADE_UP = "made-up"
FIRST_SEED = 5_000_000  # of made-up images: no model was trained on these
FAMILIES: tuple[Family, ...] = ("mask2former", "oneformer")
LEARNT = {"nuclei": (8, 48), "fruits": (8,)}  # images that a model has seen before it is asked


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and the images it is asked about."""

    source: str
    family: Family
    images: int  # it has learnt from; 0 for the shipped one
    seed: int
    task: SegmentationTask

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.source} {self.family} n={self.images} seed={self.seed} {self.task}"


class Listener:
    """Stands for a model and keeps the class probabilities of its last answer."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.config = model.config
        self.parameters = model.parameters
        self.class_probs_qk: NDArray[np.float64] = np.zeros((0, 1))

    def __call__(self, **inputs: Any) -> Any:
        output = self._model(**inputs)
        self.class_probs_qk = output.class_queries_logits[0].double().softmax(dim=-1).numpy()
        return output


def margin_doubt(class_probs_qk: NDArray[np.float64], scores: Sequence[float]) -> float:
    """Return one minus what the confidence was before: mean margin of the queries times mean score."""
    objectness_q = 1.0 - class_probs_qk[:, -1]
    ranked_qk = np.sort(class_probs_qk, axis=1)
    unsure_q = 1.0 - (ranked_qk[:, -1] - ranked_qk[:, -2])
    doubt = float((objectness_q * unsure_q).sum() / max(1.0, float(objectness_q.sum())))
    return 1.0 - (1.0 - doubt) * (float(np.mean(scores)) if len(scores) else 1.0)


def correction_work(found: Sequence[Segment], wanted: Sequence[Segment]) -> tuple[int, float]:
    """Return how many segments have to be added, removed or changed, and one minus PQ over all classes."""
    pairs = sorted(
        (
            (segment_iou(one, other), row, column)
            for row, one in enumerate(found)
            for column, other in enumerate(wanted)
            if one.label == other.label
        ),
        reverse=True,
    )
    rows: set[int] = set()
    columns: set[int] = set()
    changed = 0
    for iou, row, column in pairs:
        if iou > LEAST_IOU and row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            changed += iou <= GOOD_IOU
    edits = changed + len(found) - len(rows) + len(wanted) - len(columns)
    truth = Prediction(segments=tuple(wanted), size_hw=(1, 1), confidence=1.0)
    return edits, 1.0 - agreement(replace(truth, segments=tuple(found)), truth)


def counted(found: Sequence[Segment], example: TrainingExample, size_hw: tuple[int, int]) -> list[Segment]:
    """Return the segments that do not mostly lie where nobody judges."""
    if not example.ignored:
        return list(found)
    void_hw = np.logical_or.reduce([paste_segment(part, size_hw) for part in example.ignored])
    return [
        segment
        for segment in found
        if np.count_nonzero(paste_segment(segment, size_hw) & void_hw) <= segment.area / 2
    ]


def look(checkpoint: Checkpoint, example: TrainingExample, task: SegmentationTask) -> dict[str, float]:
    """Return the signals of one image and the work there is on it."""
    image = load_example_image(example)
    listener = Listener(checkpoint.model)
    asked = replace(checkpoint, model=listener)
    (cheap,) = predict_images(asked, [image], task=task, thresholds=SERVED)
    before = margin_doubt(listener.class_probs_qk, [segment.score for segment in cheap.segments])
    row: dict[str, float] = {}
    for count in range(1, len(VIEWS) + 1):
        (seen,) = predict_images(
            checkpoint, [image], task=task, thresholds=SERVED, for_selection=True, plan=ViewPlan(count=count)
        )
        assert seen.selection_inputs is not None
        row[f"all, {count} view{'s'[: count - 1]}"] = 1.0 - seen.confidence
        if count == 1:
            signals = seen.selection_inputs.signals
            row = {field.name: getattr(signals, field.name) for field in fields(Signals)} | row
    row |= {"all, no view": 1.0 - cheap.confidence, "margin formula before": before}
    wanted = example.segments
    if task is SegmentationTask.SEMANTIC:
        wanted = merge_stuff(wanted, (image.shape[0], image.shape[1]), checkpoint.labels)
    edits, loss = correction_work(counted(cheap.segments, example, cheap.size_hw), wanted)
    return row | {"edits": edits, "loss": loss}


def half_trained(case: Case, data: Path, work: Path) -> tuple[Checkpoint, list[TrainingExample]]:
    """Return a model that has learnt from a few images, made once, and the images it has not."""
    if case.source == MADE_UP:
        examples = made_up_examples(FIRST_SEED, 120, domain="shifted")
        return load_checkpoint(SHIPPED[f"tiny-{case.family}"], device="cpu"), examples
    pool = load_pool(data, SOURCES[case.source])
    learnt = draw(pool, case.images, case.seed)
    folder = work / f"ranking-{case.source}-{case.family}-{case.images}-{case.seed}"
    if not (folder / "config.json").is_file():
        base = load_checkpoint(
            build_base(case.family, work / f"base-1-{case.family}"), device="cpu", training=True
        )
        edge = SOURCES[case.source].edge
        base = replace(
            base, preprocessing=replace(base.preprocessing, shortest_edge=edge, longest_edge=2 * edge)
        )
        recipe = cell_recipe(pool, learnt, base, case.seed)
        state = work / f"{folder.name}-training"
        save_checkpoint(
            finetune(
                FinetuneJob(base=base, examples=learnt, recipe=recipe, output_dir=state, labels=pool.labels)
            ),
            folder,
        )
    known = {example.key for example in learnt}
    rest = [example for example in (*pool.training, *pool.holdout) if example.key not in known]
    return load_checkpoint(folder, device="cpu"), rest


def correlations(
    rows: Sequence[dict[str, float]], rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Return name -> Spearman's correlation with edits and with one minus PQ; a constant has none: 0."""
    names = [name for name in rows[0] if name not in ("edits", "loss")]
    values = {name: np.array([row[name] for row in rows]) for name in names}
    values["random"] = rng.random(len(rows))
    targets = [np.array([row[name] for row in rows]) for name in ("edits", "loss")]
    return {
        name: tuple(
            0.0 if np.ptp(found) == 0 or np.ptp(target) == 0 else float(spearmanr(found, target)[0])
            for target in targets
        )
        for name, found in values.items()
    }  # type: ignore[return-value]


def planned_cases(sources: Sequence[str], families: Sequence[Family], seeds: Sequence[int]) -> Iterator[Case]:
    """Yield the cases: every task of made-up images, instances of real ones."""
    for source in sources:
        for family in families:
            if source == MADE_UP:
                yield from (
                    Case(source=source, family=family, images=0, seed=0, task=task)
                    for task in SegmentationTask
                )
                continue
            for images in LEARNT[source]:
                for seed in seeds:
                    task = SegmentationTask.INSTANCE
                    yield Case(source=source, family=family, images=images, seed=seed, task=task)


def table(results: dict[Case, dict[str, tuple[float, float]]]) -> str:
    """Return a table of means: a source's column over its cases, the last over sources."""
    kinds = list(dict.fromkeys((case.source, case.task) for case in results))
    lines = ["| | " + " | ".join(f"{source}, {task}" for source, task in kinds) + " | mean |"]
    lines.append("|---" * (len(kinds) + 2) + "|")
    for name in next(iter(results.values())):
        cells = []
        for kind in kinds:
            found = [value[name] for case, value in results.items() if (case.source, case.task) == kind]
            cells.append(np.mean(found, axis=0))
        shown = [f"{edits:.2f} / {loss:.2f}" for edits, loss in cells]
        lines.append(f"| {name} | {' | '.join(shown)} | **{np.mean(cells):.2f}** |")
    return "\n".join(lines)


def run(arguments: argparse.Namespace, say: Callable[[str], None] = print) -> None:
    """Measure every case, then print the table."""
    torch.set_num_threads(1)
    results: dict[Case, dict[str, tuple[float, float]]] = {}
    lines = []
    for case in planned_cases(arguments.sources, arguments.families, arguments.seeds):
        started = time.monotonic()
        checkpoint, examples = half_trained(case, arguments.data, arguments.work)
        rows = [look(checkpoint, example, case.task) for example in examples[: arguments.most]]
        results[case] = correlations(rows, np.random.default_rng(case.seed))
        edits, loss = (np.mean([row[name] for row in rows]) for name in ("edits", "loss"))
        say(
            f"{case.name}: {len(rows)} images, {edits:.1f} edits and 1 - PQ of {loss:.2f} on average, "
            f"{time.monotonic() - started:.0f} s"
        )
        lines += [{"case": case.name, **row} for row in rows]
    if arguments.json is not None:
        arguments.json.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    say(table(results))


def parse(words: list[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = (MADE_UP, *LEARNT)
    parser.add_argument("--sources", nargs="+", choices=names, default=list(names))
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--most", type=int, help="images of a case")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / ".maskloop" / "learning-curves")
    parser.add_argument("--json", type=Path, help="one line an image: its signals and its work")
    return parser.parse_args(words)


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
