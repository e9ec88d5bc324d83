"""POST /predict: the images of each task -> one prediction a task, or why there is none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import CodecError, MaskloopError
from maskloop.learning.evaluation.showing import read_showing
from maskloop.log import log_action, log_failures
from maskloop.selection.familiarity import EMPTY_CONFIDENCE
from maskloop.types import ImageResult, Prediction, PredictionFailure
from maskloop_studio.formats import Region, TaskImage, parse_label_config
from maskloop_studio.images.image_pipeline import ImageInput, ImagePipeline
from maskloop_studio.labelstudio.protocol import (
    PredictRequest,
    PredictResponse,
    PredictTask,
    RefusedPrediction,
    TaskPrediction,
)
from maskloop_studio.projects.prediction_plan import PredictionPlan, ProjectPlan
from maskloop_studio.serving.click_answers import ClickAnswerer, capabilities
from maskloop_studio.serving.prompts import read_interaction
from maskloop_studio.serving.refusals import refused_entry
from maskloop_studio.serving.shadow import ShadowImage

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop_studio.images.image_looks import ImageLooks
    from maskloop_studio.images.time_limit import TimeLimit
    from maskloop_studio.serving.background import BackgroundPredictions
    from maskloop_studio.serving.floor_cache import FloorCache
    from maskloop_studio.serving.model_directory import ModelDirectory, ServedModel
    from maskloop_studio.serving.options_cache import OptionsCache
    from maskloop_studio.serving.shadow import ShadowRunner

__all__ = ["PredictorParts", "TaskPredictor"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictorParts:
    """What predictions for Label Studio are made with."""

    settings: Settings
    directory: ModelDirectory  # which version answers for which project
    options: OptionsCache  # of the projects
    floors: FloorCache  # what annotators kept
    shadows: ShadowRunner  # gets some of the predictions to compare with
    background: BackgroundPredictions  # for tasks that are left
    images: Callable[[], ImagePipeline]  # made at the first request: it needs torch
    looks: Callable[[], ImageLooks]  # the same, for clicks


class TaskPredictor:
    """One per process; safe to call from many threads."""

    def __init__(self, parts: PredictorParts) -> None:
        self._parts = parts
        self._clicks = ClickAnswerer(parts.looks, crops=parts.settings.click_crops)

    def predict(
        self, request: PredictRequest, *, project_id: int | None, limit: TimeLimit
    ) -> PredictResponse:
        """Return one entry a task, in order, when the limit comes at the latest.

        A task that has no prediction gets `[]`, so that Label Studio stores nothing and asks again; where
        its project is connected, a job predicts it in the background. Interactive requests: ClickAnswerer.

        Args:
            request: the tasks.
            project_id: the connected project; None for any other.
            limit: when the answer has to be there.

        Raises:
            LabelConfigError: the label config has no image or nothing to draw with.
            ModelLoadError: the model cannot be loaded.
        """
        started = time.monotonic()
        parts = self._parts
        try:
            interaction = read_interaction(request.params.context)
        except CodecError as exc:
            return _refuse(request, parts.directory.tag(project_id), exc)
        if interaction is not None and interaction.event == "capabilities":
            tag = parts.directory.tag(project_id)
            return PredictResponse(results=[capabilities(tag)], model_version=tag)
        model = parts.directory.current(project_id, timeout_s=_model_patience(limit))
        plan = ProjectPlan(
            settings=parts.settings,
            options=parts.options.get(project_id),
            config=parse_label_config(request.label_config),
            model_labels=model.labels,
            model_version=model.tag,
            showing=read_showing(model.source),
            kept_floors=parts.floors.get(project_id, model.tag),
        )
        if interaction is not None:
            return self._clicks.respond(request, interaction, plan, model, limit)
        work = _RequestWork(request.tasks, plan, limit, keep_features=len(request.tasks) == 1)
        shadow = parts.directory.shadow(project_id)
        offered = _Offered(wanted=project_id is not None and parts.shadows.wants(shadow))

        def use(index: int, result: ImageResult) -> _ImageAnswer | PredictionFailure:  # in many threads
            if isinstance(result, Prediction):
                offered.offer(index, result)
            return work.answer(index, result)

        answers = parts.images().predict_and_use(work.inputs, use, source=model.source, limit=limit)
        if project_id is not None and shadow is not None and offered.prediction is not None:
            shown = work.images[offered.index]
            parts.shadows.offer(
                ShadowImage(
                    project_id=project_id,
                    task_id=request.tasks[shown.place].id,
                    uri=shown.image.address,
                    data=request.tasks[shown.place].data,
                    plan=plan,
                    champion=model,
                    shadow=shadow,
                    prediction=offered.prediction,
                )
            )
        outcome = work.outcome(answers)
        self._follow_up(request, outcome, project_id)
        log_action(
            logger,
            "tasks_predicted",
            project_id=project_id,
            tasks=len(request.tasks),
            failed=len(outcome.failures),
            left=len(outcome.left),
            model_version=model.tag,
            duration_s=time.monotonic() - started,
        )
        return outcome.response(model, note=plan.why_empty)

    def _follow_up(self, request: PredictRequest, outcome: _Outcome, project_id: int | None) -> None:
        ids = [task.id for task in request.tasks]
        log_failures(
            logger,
            "tasks_not_predicted",
            [(ids[place], error) for place, error in outcome.failures.items()],
            project_id=project_id,
        )
        if outcome.left:
            log_action(
                logger,
                "deadline_reached",
                level=logging.WARNING,
                project_id=project_id,
                tasks_left=len(outcome.left),
                tasks=len(ids),
                follows="in the background" if project_id is not None else "never: not connected",
            )
        if project_id is None:
            return
        if outcome.left:
            self._parts.background.predict_left(project_id, left=len(outcome.left), of=len(ids))
        elif outcome.failures:
            first = next(iter(outcome.failures.values()))
            self._parts.background.predict_failed(project_id, len(outcome.failures), first)


@dataclass(frozen=True, kw_only=True, eq=False)
class _ImageAnswer:
    """The regions of one image."""

    regions: list[Region]
    confidence: float


@dataclass(frozen=True, kw_only=True)
class _PlacedImage:
    """One image and the place of its task in the request."""

    place: int
    image: TaskImage
    plan: PredictionPlan


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of each task of a request, by its place; every place is in exactly one of them."""

    predictions: Mapping[int, _ImageAnswer]
    failures: Mapping[int, MaskloopError]
    left: Sequence[int]  # the deadline came first

    def response(self, model: ServedModel, *, note: str | None) -> PredictResponse:
        """Return one entry a task, in order; the note says why all are empty."""
        entries: dict[int, RefusedPrediction | TaskPrediction | list[TaskPrediction]] = {
            place: TaskPrediction(result=found.regions, score=found.confidence, model_version=model.tag)
            for place, found in self.predictions.items()
        }
        for place in (*self.failures, *self.left):
            entries[place] = []
        return PredictResponse(
            results=[entries[place] for place in range(len(entries))], model_version=model.tag, note=note
        )


class _RequestWork:
    """The images of a request's tasks, and what is made of their predictions."""

    def __init__(
        self, tasks: Sequence[PredictTask], plan: ProjectPlan, limit: TimeLimit, *, keep_features: bool
    ) -> None:
        self._tasks, self._version, self._keep_features = tasks, plan.model_version, keep_features
        self._errors: dict[int, MaskloopError] = {}
        self.images: list[_PlacedImage] = []
        self._first_left = len(tasks)  # from this place on, the limit came before the images were known
        for place, task in enumerate(tasks):
            if limit.is_over:
                self._first_left = place
                break
            try:
                task_plan = plan.of_task(task.data)
                images = plan.images(task.data, place=f"task {task.id}")
            except MaskloopError as exc:
                self._errors[place] = exc
                continue
            self.images += [_PlacedImage(place=place, image=image, plan=task_plan) for image in images]

    @property
    def inputs(self) -> list[ImageInput]:
        """What is fetched and predicted."""
        return [
            ImageInput(
                uri=one.image.address,
                task_id=self._tasks[one.place].id,
                task=one.plan.task,
                thresholds=one.plan.thresholds,
                keep_features=self._keep_features,
            )
            for one in self.images
        ]

    def answer(self, index: int, result: ImageResult) -> _ImageAnswer | PredictionFailure:
        """Return the regions of an image's prediction, or why there are none."""
        if isinstance(result, PredictionFailure):
            return result
        one = self.images[index]
        found = bool(result.segments)
        try:
            # A person who points at an object gets it, however unsure the model is: `click_answers`.
            regions = one.plan.regions(
                one.plan.shown(result),
                model_version=self._version,
                task_id=self._tasks[one.place].id,
                image=one.image,
            )
        except MaskloopError as exc:
            return PredictionFailure(error=exc)
        confidence = result.confidence if found else min(result.confidence, EMPTY_CONFIDENCE)
        return _ImageAnswer(regions=regions, confidence=confidence)

    def outcome(self, answers: Sequence[_ImageAnswer | PredictionFailure | None]) -> _Outcome:
        """Return what became of each task: it has a prediction where all its images have one.

        Args:
            answers: of each image; None where the deadline came first.
        """
        of_task: dict[int, list[_ImageAnswer | PredictionFailure | None]] = {}
        for one, found in zip(self.images, answers, strict=True):
            of_task.setdefault(one.place, []).append(found)
        predictions: dict[int, _ImageAnswer] = {}
        failures = dict(self._errors)
        left = []
        for place in range(len(self._tasks)):
            found_all = of_task.get(place, [])
            failure = next((one for one in found_all if isinstance(one, PredictionFailure)), None)
            if place in failures:
                continue
            if failure is not None:
                failures[place] = failure.error
            elif None in found_all or place >= self._first_left:
                left.append(place)
            else:
                whole = [one for one in found_all if isinstance(one, _ImageAnswer)]
                predictions[place] = _ImageAnswer(
                    regions=[region for one in whole for region in one.regions],
                    # The least sure image decides when the annotator sees the task.
                    confidence=min((one.confidence for one in whole), default=0.0),
                )
        return _Outcome(predictions=predictions, failures=dict(sorted(failures.items())), left=left)


class _Offered:
    """The first prediction of a request, for the shadow model."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._lock = threading.Lock()
        self.index = -1
        self.prediction: Prediction | None = None

    def offer(self, index: int, prediction: Prediction) -> None:
        """Keep the prediction where it is the first."""
        with self._lock:
            if self._wanted and self.prediction is None:
                self.index, self.prediction = index, prediction


def _model_patience(limit: TimeLimit) -> float:
    left_s = limit.left_s
    return 60.0 if left_s is None else left_s / 2


def _refuse(request: PredictRequest, tag: str, error: MaskloopError) -> PredictResponse:
    log_action(logger, "prompt_refused", level=logging.WARNING, tasks=len(request.tasks), error=error)
    return PredictResponse(results=[refused_entry(tag, error) for _ in request.tasks], model_version=tag)
