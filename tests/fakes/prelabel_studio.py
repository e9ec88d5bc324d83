"""A Label Studio in memory for prelabelling, and a model that knows every image by its task's number."""

import itertools
import threading

import numpy as np

from maskloop.errors import ImageError, StudioError
from maskloop.selection.pool import Preference
from maskloop.types import Prediction, PredictionFailure, SelectionInputs, Signals
from maskloop_studio.labelstudio.client import StudioClient
from maskloop_studio.labelstudio.models import to_project
from maskloop_studio.labelstudio.predictions import TaskStand

__all__ = ["FakePipeline", "PrelabelStudio", "by_confidence", "predict_task", "refusal", "register_versions"]

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="disc"/></BrushLabels></View>'
)


def refusal(status):
    error = StudioError("Label Studio", expected="success", got=f"status {status}", remedy="wait")
    error.status = status
    return error


class PrelabelStudio(StudioClient):
    """One project; `before_create` and `after_create` may raise."""

    def __init__(self):
        super().__init__("http://studio", "token")
        self.tasks = {}  # number -> uri
        self.predictions = {}  # number -> what was sent
        self.of_task = {}  # task -> the numbers of its predictions, some of them gone
        self.annotations = {}  # task -> their parents
        self.drafts = set()
        self.tabs = []
        self.model_version = ""
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.before_create = self.after_create = lambda task_id: None
        self.page_size = 40
        self.config_reads = 0  # how often the project was fetched

    def add_tasks(self, count):
        new = [next(self.numbers) for _ in range(count)]
        self.tasks.update((number, f"http://images/{number}") for number in new)
        return new

    def add_prediction(self, task_id, model_version, **values):
        number = next(self.numbers)
        fields = {"score": 0.5, "cluster": None, "result": []} | values
        self.of_task.setdefault(task_id, []).append(number)
        self.predictions[number] = {"id": number, "task": task_id, "model_version": model_version, **fields}
        return number

    def of(self, model_version):
        found = [one for one in self.predictions.values() if one["model_version"] == model_version]
        return {one["task"]: (one["score"], one["cluster"]) for one in found}

    def project(self, project_id):
        self.config_reads += 1
        return to_project({"id": project_id, "label_config": CONFIG, "model_version": self.model_version})

    def update_project(self, project_id, *, model_version):
        assert self.of(model_version), "Label Studio takes no version that it has no prediction of"
        self.model_version = model_version

    def views(self, project_id):
        return [{"id": number, "data": data} for number, data in enumerate(self.tabs)]

    def create_view(self, project_id, data):
        self.tabs.append(data)
        return len(self.tabs) - 1

    def count_tasks(self, project_id, *, only_unlabelled=False):
        return len(self.tasks) - (len(self.annotations) if only_unlabelled else 0)

    def _stand(self, number):
        versions = [one["model_version"] for one in self._stored(number)]
        return TaskStand(
            id=number,
            data={"image": self.tasks[number]},
            annotated=number in self.annotations,
            has_draft=number in self.drafts,
            prediction_count=len(versions),
            versions=frozenset(versions),
        )

    def task_stands(self, project_id, task_ids, *, with_data=False):
        with self.lock:
            return {number: self._stand(number) for number in task_ids if number in self.tasks}

    def unlabelled_stands(self, project_id, *, prediction_score=None):
        left = sorted(set(self.tasks) - set(self.annotations))
        if prediction_score is not None:
            left = [number for number in left if self._mean_score(number) == prediction_score]
        for first in range(0, len(left), self.page_size):
            page = left[first : first + self.page_size]
            yield list(self.task_stands(project_id, page).values())

    def _mean_score(self, task_id):
        scores = [one["score"] for one in self._stored(task_id)]
        return sum(scores) / len(scores) if scores else None

    def _stored(self, task_id):
        return [
            self.predictions[number] for number in self.of_task.get(task_id, ()) if number in self.predictions
        ]

    def predictions_of(self, task_id):
        with self.lock:
            return [dict(one) for one in self._stored(task_id)]

    def task_annotations(self, task_id):
        return [{"parent_prediction": parent} for parent in self.annotations.get(task_id, ())]

    def create_prediction(self, task_id, result, *, score=None, cluster=None, model_version):
        self.before_create(task_id)
        with self.lock:
            number = self.add_prediction(task_id, model_version, score=score, cluster=cluster, result=result)
        self.after_create(task_id)
        return number

    def update_prediction(self, prediction_id, **fields):
        with self.lock:
            self.predictions[prediction_id].update(fields)
        return True

    def delete_prediction(self, prediction_id):
        with self.lock:
            self.predictions.pop(prediction_id, None)


def predict_task(number):
    """Return what the model predicts for a task: four groups of images, an error for 99, 199 and so on."""
    if number % 100 == 99:
        error = ImageError(f"task {number}", expected="an image", got="none", remedy="upload it")
        return PredictionFailure(error=error)
    angle = number % 4 * np.pi / 2 + number * 1e-4  # four groups of images
    return Prediction(
        segments=(),
        size_hw=(8, 8),
        confidence=number % 10 / 10,
        selection_inputs=SelectionInputs(
            signals=Signals(entropy=0.5, margin=0.5, border=0.5, missing=0.5),
            embedding_d=np.array([np.cos(angle), np.sin(angle)], dtype=np.float32),
        ),
    )


class FakePipeline:
    """Predicts by `predict_task`; remembers which tasks it got, in order."""

    def __init__(self):
        self.predicted = []

    def predict(self, inputs, **_others):
        self.predicted.extend(image.task_id for image in inputs)
        return [predict_task(image.task_id) for image in inputs]


def register_versions(registry, name, folder, count=3):
    """Register versions that nothing is computed with, and make the first the champion."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    for number in range(1, count + 1):
        registry.register(name, folder, labels=("disc",), metrics=None, parent=number - 1 or None)
    registry.promote(name, 1)


def by_confidence(pool, rng):
    """Prefer, in each cluster, the lowest confidence: a strategy whose scores a test can compute."""
    return Preference(score_n=pool.confidence_n, cluster_n=pool.clustering.cluster_n)
