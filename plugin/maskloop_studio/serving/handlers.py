"""What the server answers to each request of Label Studio, free of HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from maskloop.errors import CodecError, MaskloopError
from maskloop.log import log_action, log_failures
from maskloop.store.jobs import JobKind
from maskloop.types import ImageResult, Prediction, PredictionFailure
from maskloop_studio.dispatch import request as request_job
from maskloop_studio.formats.label_config import LabelConfig, map_labels, parse_label_config
from maskloop_studio.intake.webhook import START_TRAINING, project_of, read_event
from maskloop_studio.labelstudio.protocol import (
    JobStatusRequest,
    JobStatusResponse,
    PredictRequest,
    PredictResponse,
    PredictTask,
    SetupRequest,
    SetupResponse,
    TaskPrediction,
    ValidateRequest,
    VersionsResponse,
    WebhookEvent,
    WebhookResponse,
    project_number,
)
from maskloop_studio.projects.prediction_plan import (
    PredictionPlan,
    ProjectOptions,
    parse_options,
    plan_prediction,
)
from maskloop_studio.serving.event_writer import Inbox
from maskloop_studio.serving.model_directory import ModelDirectory, ServedModel
from maskloop_studio.serving.predict import draw_uris
from maskloop_studio.serving.prompts import keep_prompted
from maskloop_studio.serving.shadow import ShadowImage, ShadowRunner
from maskloop_studio.serving.webhook_guard import WebhookGuard

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["StudioBackend"]

logger = logging.getLogger(__name__)


class StudioBackend:
    """One per process; safe to call from many threads."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.directory = ModelDirectory(services)
        self.shadows = ShadowRunner(services)
        self.inbox = Inbox(services)
        self.guard = WebhookGuard(services)
        self._options: dict[int, ProjectOptions] = {}  # as the last /setup said

    def setup(self, request: SetupRequest) -> SetupResponse:
        """Tell the version that answers; Label Studio waits 3 s for it, so nothing is loaded here.

        The host and token that Label Studio sends along are left alone: whoever calls this could name any
        host. Only LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY are used.

        Raises:
            LabelConfigError: the backend's extra_params hold a value that cannot work.
        """
        project_id, options = self._connected(request.project), parse_options(request.extra_params)
        if project_id is not None:
            self.directory.follow(project_id)
            self._remember_options(project_id, options)
        return SetupResponse(model_version=self.directory.tag(project_id))

    def versions(self) -> VersionsResponse:
        """Tell all versions that answer; the request names no project."""
        return VersionsResponse(versions=self.directory.tags())

    def validate(self, request: ValidateRequest) -> None:
        """Check a label config.

        Raises:
            LabelConfigError: it has no image, nothing to draw with, or no label that the model knows.
        """
        config = parse_label_config(request.config)
        map_labels(config, self.directory.current(None, timeout_s=5.0).labels)

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Return one entry a task, in order.

        A task that cannot be predicted gets an empty result and a logged reason; one that the deadline cut
        off gets no prediction at all, so that Label Studio asks again, and is predicted in the background.

        Raises:
            LabelConfigError: the label config has no image or nothing to draw with.
            ModelLoadError: the model cannot be loaded.
        """
        settings = self.services.settings
        started = time.monotonic()
        deadline = started + settings.predict_deadline_s
        project_id = self._connected(request.project)
        model = self.directory.current(project_id, timeout_s=settings.predict_deadline_s / 2)
        config = parse_label_config(request.label_config)
        plan = plan_prediction(
            settings, self._options_of(project_id), config, model.labels, model_version=model.tag
        )
        shadow = self.directory.shadow(project_id)
        shown: dict[int, Prediction] = {}  # to the shadow: one of them, by its place
        failed: list[tuple[int | None, MaskloopError]] = []  # task and error

        def draw(place: int, prediction: ImageResult) -> TaskPrediction:  # in many threads
            if wanted and isinstance(prediction, Prediction) and not shown:
                shown[place] = prediction
            return self._entry(request.tasks[place], prediction, request, plan, model, failed=failed)

        wanted = project_id is not None and self.shadows.wants(shadow)
        results = draw_uris(
            [task.data.get(config.image_field) for task in request.tasks],
            draw,
            task_ids=[task.id for task in request.tasks],
            source=model.source,
            plan=plan,
            services=self.services,
            deadline=deadline,
        )
        if project_id is not None and shadow is not None:
            self._show_to_shadow(project_id, request, config, shown, model, shadow)
        late = results.count(None)
        if late and project_id is not None:
            self._predict_later(project_id, late)
        log_failures(logger, "tasks_not_predicted", failed, project_id=project_id, model_version=model.tag)
        log_action(
            logger,
            "tasks_predicted",
            project_id=project_id,
            tasks=len(request.tasks),
            late=late,
            model_version=model.tag,
            duration_s=time.monotonic() - started,
        )
        return PredictResponse(
            results=[[] if entry is None else entry for entry in results], model_version=model.tag
        )

    async def webhook(self, event: WebhookEvent, *, secret: str | None) -> WebhookResponse:
        """Keep an event and answer once it is durable; its work is done by a worker.

        Args:
            event: what happened.
            secret: what the sender gave as the webhook's secret. Start Training, which Label Studio sends by
                itself and without headers, needs none.

        Raises:
            RefusedError: the secret is wrong, or the event is of unknown kind or of a foreign project.
            StoreError: the database cannot keep it.
        """
        if event.action != START_TRAINING or secret is not None:
            await self.guard.check_secret(secret)
        project_id = project_of(event)
        await self.guard.check_project(project_id)
        if event.action == START_TRAINING:
            number = await self.inbox.want_training(project_id, "Start Training button")
            return WebhookResponse(status="accepted", job=f"training-{number}")
        new = read_event(event)
        if new is None:
            return WebhookResponse(status="ignored")
        return WebhookResponse(status="known" if await self.inbox.add(new) is None else "accepted")

    def job_status(self, request: JobStatusRequest) -> JobStatusResponse:
        """Tell how far a training is.

        Raises:
            CodecError: there is no such job.
        """
        head, _, number = request.job.rpartition("-")
        training = (
            self.services.store.trainings.get(int(number))
            if head == "training" and number.isascii() and number.isdecimal() and len(number) < 19
            else None
        )
        if training is None:
            raise CodecError(
                "job_status",
                expected="the job of a START_TRAINING answer",
                got="another",
                remedy="press Start Training again",
            )
        status = {"running": "started"}.get(training.status, training.status)
        created = training.started_at.isoformat() if training.started_at else None
        return JobStatusResponse(job_status=status, created_at=created, error=training.error)

    def _connected(self, uid: str | int | None) -> int | None:
        # Only connected projects have models and options of their own: a sender cannot make us keep more.
        project_id = project_number(uid)
        return project_id if project_id in self.services.store.projects.ids() else None

    def _remember_options(self, project_id: int, options: ProjectOptions) -> None:
        self._options[project_id] = options
        # The worker that renews predictions is another process: it reads them from the database.
        projects, said = self.services.store.projects, options.model_dump(mode="json", exclude_defaults=True)
        if projects.options(project_id) != said:
            projects.set_options(project_id, said)

    def _options_of(self, project_id: int | None) -> ProjectOptions:
        if project_id is None:
            return ProjectOptions()
        if project_id not in self._options:
            self._options[project_id] = parse_options(self.services.store.projects.options(project_id))
        return self._options[project_id]

    def _entry(
        self,
        task: PredictTask,
        prediction: ImageResult,
        request: PredictRequest,
        plan: PredictionPlan,
        model: ServedModel,
        *,
        failed: list[tuple[int | None, MaskloopError]],
    ) -> TaskPrediction:
        try:
            if isinstance(prediction, PredictionFailure):
                raise prediction.error
            if request.params.context is not None:
                prediction = keep_prompted(prediction, request.params.context)
            regions = plan.regions(prediction, model_version=model.tag, task_id=task.id)
        except MaskloopError as exc:
            failed.append((task.id, exc))
            return TaskPrediction(result=[], score=0.0, model_version=model.tag)
        return TaskPrediction(result=regions, score=prediction.confidence, model_version=model.tag)

    def _show_to_shadow(
        self,
        project_id: int,
        request: PredictRequest,
        config: LabelConfig,
        shown: Mapping[int, Prediction],
        model: ServedModel,
        shadow: ServedModel,
    ) -> None:
        for place, prediction in list(shown.items())[:1]:
            task = request.tasks[place]
            uri = task.data.get(config.image_field)
            if isinstance(uri, str):
                self.shadows.offer(
                    ShadowImage(
                        project_id=project_id,
                        task_id=task.id,
                        uri=uri,
                        config=config,
                        options=self._options_of(project_id),
                        champion=model,
                        shadow=shadow,
                        prediction=prediction,
                    )
                )

    def _predict_later(self, project_id: int, late: int) -> None:
        log_action(logger, "deadline_reached", level=logging.WARNING, project_id=project_id, tasks_left=late)
        request_job(
            JobKind.PRELABEL,
            project_id,
            "a request that was cut off",
            store=self.services.store,
            queue=self.services.queue,
        )
