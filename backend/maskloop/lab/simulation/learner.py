"""The real learner: fine-tunes a checkpoint, evaluates it, scores the pool; results are kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskloop.files import replace_file, write_whole
from maskloop.lab.simulation.data import ExperimentData
from maskloop.lab.simulation.loop import Learnt, PoolScores
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.evaluation.annotation_cost import weighted_edits
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.evaluation.region_edits import compare_segments
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import FinetuneRecipe, recipe_for
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.settings import Settings
from maskloop.types import EditCounts, HoldoutMetrics, Prediction, SegmentationTask

__all__ = ["ModelLearner"]

LOOK_BATCH = 32  # images in memory at once


class ModelLearner:
    """Trains, evaluates and scores the pool with a checkpoint; finished results are read from its folder."""

    def __init__(
        self, data: ExperimentData, *, settings: Settings, folder: Path, edge: int | None, warm: bool
    ) -> None:
        self._data = data
        self._settings = settings
        self._folder = folder
        self._edge = edge
        self._warm = warm
        self._thresholds = Thresholds.from_settings(settings)
        self._base: Checkpoint | None = None

    def learn(self, images: Sequence[int], *, seed: int, previous: Learnt | None, score_pool: bool) -> Learnt:
        """Return the quality of a model that learns from these images; see `Learner`.

        A training that was killed goes on from its last state.
        """
        parent = previous if self._warm else None
        key = _key(images, seed, parent)
        known = self._read(key, score_pool)
        if known is not None:
            return known
        start = self._start(parent)
        fresh = frozenset(images[self._seen(parent) :]) if parent else frozenset()
        examples = [dataclasses.replace(self._data.pool[index], fresh=index in fresh) for index in images]
        scratch = self._folder / f"{key}-training"
        student = finetune(
            FinetuneJob(
                base=start,
                examples=examples,
                recipe=self._recipe(start, examples, seed),
                output_dir=scratch,
                labels=self._data.labels,
                task=self._settings.task,
                kinds=self._thresholds.kinds,
            )
        )
        found = evaluate_checkpoint(
            student,
            self._data.holdout,
            labels=self._data.labels,
            task=self._settings.task,
            thresholds=self._thresholds,
        )
        learnt = Learnt(key=key, quality=_quality(found), scores=self._score(student) if score_pool else None)
        self._write(learnt, student, len(images))
        shutil.rmtree(scratch, ignore_errors=True)
        return learnt

    def _start(self, parent: Learnt | None) -> Checkpoint:
        if parent is not None:
            return self._sized(load_checkpoint(self._folder / parent.key, device=self._settings.device))
        if self._base is None:
            self._base = self._sized(
                load_checkpoint(self._settings.model, device=self._settings.device, training=True)
            )
        return self._base

    def _sized(self, checkpoint: Checkpoint) -> Checkpoint:
        if self._edge is None:
            return checkpoint
        seen = dataclasses.replace(
            checkpoint.preprocessing, shortest_edge=self._edge, longest_edge=2 * self._edge
        )
        return dataclasses.replace(checkpoint, preprocessing=seen)

    def _recipe(self, start: Checkpoint, examples: Sequence[TrainingExample], seed: int) -> FinetuneRecipe:
        return dataclasses.replace(
            recipe_for(start, examples, self._data.labels, self._settings.model_copy(update={"seed": seed})),
            threads=1,  # the same numbers on a machine with other cores
        )

    def _score(self, student: Checkpoint) -> PoolScores:
        """Return how sure the model is of each image of the pool, what it sees in it, and what is wrong."""
        confidences: list[float] = []
        found: list[int] = []
        edits: list[list[int]] = []
        embeddings = []
        pool = self._data.pool
        for first in range(0, len(pool), LOOK_BATCH):
            examples = pool[first : first + LOOK_BATCH]
            batch = [load_example_image(example) for example in examples]
            predictions = predict_images(
                student, batch, task=self._settings.task, thresholds=self._thresholds, for_selection=True
            )
            for example, prediction in zip(examples, predictions, strict=True):
                assert prediction.selection_inputs is not None
                confidences.append(prediction.confidence)
                found.append(len(prediction.segments))
                edits.append(_edits(prediction, example))
                embeddings.append(prediction.selection_inputs.embedding_d)
        return PoolScores(
            confidence_n=np.asarray(confidences, dtype=np.float64),
            found_n=np.asarray(found, dtype=np.int64),
            embedding_nd=np.asarray(embeddings, dtype=np.float32),
            # In the other tasks the objects of a class are one segment, and the truth is not kept like that.
            edits_ne=np.asarray(edits) if self._settings.task is SegmentationTask.INSTANCE else None,
        )

    def _seen(self, parent: Learnt) -> int:
        return int(json.loads((self._folder / f"{parent.key}.json").read_text())["images"])

    def _read(self, key: str, score_pool: bool) -> Learnt | None:
        record, numbers = self._folder / f"{key}.json", self._folder / f"{key}.npz"
        if not record.is_file() or (score_pool and not numbers.is_file()):
            return None
        scores = None
        if score_pool:
            with np.load(numbers) as arrays:
                scores = PoolScores(
                    **{name: arrays[name] for name in ("confidence_n", "found_n", "embedding_nd")},
                    edits_ne=arrays.get("edits_ne"),
                )
        return Learnt(key=key, quality=json.loads(record.read_text())["quality"], scores=scores)

    def _write(self, learnt: Learnt, student: Checkpoint, images: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._warm:
            save_checkpoint(student, self._folder / learnt.key)
        if learnt.scores is not None:
            with replace_file(self._folder / f"{learnt.key}.npz") as new:
                arrays = vars(learnt.scores).items()
                np.savez(new, **{name: array for name, array in arrays if array is not None})
        known = {"images": images, "quality": dict(learnt.quality)}
        write_whole(self._folder / f"{learnt.key}.json", json.dumps(known))


def _key(images: Sequence[int], seed: int, parent: Learnt | None) -> str:
    record = json.dumps([list(map(int, images)), seed, None if parent is None else parent.key])
    return hashlib.sha256(record.encode()).hexdigest()[:24]


def _edits(prediction: Prediction, example: TrainingExample) -> list[int]:
    """Return the edits that turn a prediction into the truth, as in `weighted_edits`."""
    counts = sum(compare_segments(prediction.segments, example.segments).values(), EditCounts())
    return weighted_edits(partial(getattr, counts))


def _quality(found: HoldoutMetrics) -> dict[str, float]:
    numbers = {"ap50": found.ap50, "pq": found.pq, "miou": found.miou}
    numbers["score"] = sum(numbers.values()) / len(numbers)  # what the gate compares
    return {name: round(value, 6) for name, value in numbers.items()}
