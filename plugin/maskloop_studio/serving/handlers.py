"""What the server answers to each request of Label Studio, free of HTTP."""

from __future__ import annotations

import logging
import time
from functools import cached_property
from typing import TYPE_CHECKING

from maskloop.errors import CodecError
from maskloop.log import log_action
from maskloop.store.job_types import JobKind
from maskloop_studio.errors import UnauthorizedError
from maskloop_studio.formats import map_labels, parse_label_config
from maskloop_studio.images.time_limit import TimeLimit
from maskloop_studio.intake.webhook import START_TRAINING, note_webhook, project_of, read_event
from maskloop_studio.labelstudio.protocol import (
    JobStatusRequest,
    JobStatusResponse,
    PredictRequest,
    PredictResponse,
    SetupRequest,
    SetupResponse,
    ValidateRequest,
    VersionsResponse,
    WebhookEvent,
    WebhookResponse,
    project_number,
)
from maskloop_studio.projects.prediction_plan import parse_options
from maskloop_studio.serving.background import BackgroundPredictions
from maskloop_studio.serving.event_writer import EventWriter
from maskloop_studio.serving.floor_cache import FloorCache
from maskloop_studio.serving.model_directory import ModelDirectory
from maskloop_studio.serving.options_cache import OptionsCache
from maskloop_studio.serving.outbox import Outbox
from maskloop_studio.serving.pauses import ShortCollections, freeze_heap
from maskloop_studio.serving.sender_guard import SenderGuard
from maskloop_studio.serving.shadow import ShadowRunner

if TYPE_CHECKING:
    from maskloop.store.database import Store
    from maskloop_studio.images.image_pipeline import ImagePipeline
    from maskloop_studio.services import Services
    from maskloop_studio.serving.request_threads import RunInThread
    from maskloop_studio.serving.task_predictor import TaskPredictor

__all__ = ["RequestHandlers", "WebhookHandler"]


logger = logging.getLogger(__name__)


class RequestHandlers:
    """Setup, predictions and jobs; one per process, safe to call from many threads."""

    def __init__(self, services: Services, *, collections: ShortCollections | None = None) -> None:
        """Args:
        services: their parts are made at the first use, so that the server answers before torch is
            imported and while the database is away.
        collections: those of garbage, where the process is the server's own.
        """
        self._services, self._collections = services, collections
        store = self._store
        self._strangers: set[int] = set()  # connected projects only
        self.outbox = Outbox(lambda: services.queue)
        self.directory = ModelDirectory(
            services.settings,
            registry=lambda: services.registry,
            engine=lambda: services.engine,
            store=store,
            on_swap=self._forget_model,
            after_load=None if collections is None else freeze_heap,
        )
        self.shadows = ShadowRunner(services.settings, fetcher=lambda: services.fetcher, store=store)
        self.options = OptionsCache(store)
        self.background = BackgroundPredictions(store=store, outbox=self.outbox)

    def start(self) -> None:
        """Begin to follow the registry and to queue jobs."""
        self.directory.start()
        self.outbox.start()

    def stop(self) -> None:
        """End what `start` began."""
        self.directory.stop()
        self.shadows.stop()
        self.outbox.stop()

    def setup(self, request: SetupRequest, *, is_trusted: bool) -> SetupResponse:
        """Return the version that answers; Label Studio waits 3 s for it, so nothing is loaded here.

        The host and token that Label Studio sends along are not used: any client could name any host. Only
        LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY are used.

        Args:
            request: names the project and its options.
            is_trusted: the request has the credentials that `connect` stored in Label Studio.

        Raises:
            LabelConfigError: the backend's extra_params hold a value that cannot work.
            UnauthorizedError: it changes the options of a project without the credentials.
        """
        options = parse_options(request.extra_params)
        project_id = self.connected(request.project)
        if project_id is not None:
            self.directory.follow(project_id)
            if not is_trusted:
                self._note_stranger(project_id)
            if self.options.would_change(project_id, options):
                if not is_trusted:
                    raise UnauthorizedError(
                        "setup, extra_params",
                        expected="the HTTP Basic credentials that `maskloop connect` stored in Label Studio",
                        got="none or others, with options that differ from the present ones",
                        remedy="run `maskloop connect` for the project again: it stores them on the backend",
                    )
                self.options.set(project_id, options)
        return SetupResponse(model_version=self.directory.tag(project_id))

    def _note_stranger(self, project_id: int) -> None:
        """Log once a project that Label Studio was told no credentials for, or that a stranger named."""
        if project_id in self._strangers:
            return
        self._strangers.add(project_id)
        log_action(
            logger,
            "setup_without_credentials",
            level=logging.WARNING,
            project_id=project_id,
            lost="Start Training and new options are refused",
            remedy=f"if it was Label Studio: run `maskloop connect {project_id}` once more",
        )

    def versions(self) -> VersionsResponse:
        """Return all versions that answer; the request names no project."""
        return VersionsResponse(versions=self.directory.tags())

    def validate(self, request: ValidateRequest) -> None:
        """Check a label config.

        Raises:
            LabelConfigError: it has no image, nothing to draw with, or no label that the model knows.
        """
        config = parse_label_config(request.config)
        map_labels(config, self.directory.current(None, timeout_s=5.0).labels)

    def predict(self, request: PredictRequest, limit: TimeLimit | None = None) -> PredictResponse:
        """Return one entry a task, in order; see TaskPredictor.

        Args:
            request: the tasks.
            limit: when the answer has to be there; by default as the settings say.

        Raises:
            LabelConfigError: the label config has no image or nothing to draw with.
            ModelLoadError: the model cannot be loaded.
        """
        limit = limit or TimeLimit(self._services.settings.predict_deadline_s)
        return self._predictor.predict(request, project_id=self.connected(request.project), limit=limit)

    def job_status(self, request: JobStatusRequest) -> JobStatusResponse:
        """Return how far a training is.

        Raises:
            CodecError: there is no such job.
        """
        head, _, number = request.job.rpartition("-")
        training = (
            self._store().trainings.get(int(number))
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

    def connected(self, uid: str | int | None) -> int | None:
        """Return the project that a request names, None where it is not connected.

        Only connected projects have models and options of their own: a sender cannot make us keep more.
        """
        project_id = project_number(uid)
        return project_id if project_id in self._store().projects.ids() else None

    @cached_property
    def _predictor(self) -> TaskPredictor:
        from maskloop_studio.serving.task_predictor import PredictorParts, TaskPredictor

        parts = PredictorParts(
            settings=self._services.settings,
            directory=self.directory,
            options=self.options,
            floors=FloorCache(self._services.settings, self._store),
            shadows=self.shadows,
            background=self.background,
            images=self._images,
            looks=lambda: self._services.looks,
        )
        return TaskPredictor(parts)

    def _images(self) -> ImagePipeline:
        return self._services.images

    def _store(self) -> Store:
        return self._services.store

    def _forget_model(self, source: str) -> None:
        self._services.looks.drop_model(source)
        if self._collections is not None:
            self._collections.look_at_all()


class WebhookHandler:
    """Webhooks; lives on one event loop."""

    def __init__(self, services: Services, outbox: Outbox, *, run: RunInThread) -> None:
        """Args:
        services: settings and database.
        outbox: puts the jobs that events make on the queue.
        run: calls a function in a thread that no prediction uses.
        """
        self.guard = SenderGuard(services.settings, store=lambda: services.store, run=run)
        self._scope = services.settings.resolved_database_url
        self.writer = EventWriter(lambda: services.store, outbox)

    async def handle(
        self, event: WebhookEvent, *, secret: str | None, authorization: str | None
    ) -> WebhookResponse:
        """Keep an event and answer once it is durable; its work is done by a worker.

        Args:
            event: what happened.
            secret: the header X-Maskloop-Secret.
            authorization: the header Authorization. Label Studio sends Start Training as it sends
                predictions: with the backend's credentials and without the webhook's headers.

        Raises:
            RefusedError: the sender is not trusted, or the event is of unknown kind or of a foreign project.
            StoreError: the database cannot keep it.
        """
        started_ns = time.time_ns()
        if event.action == START_TRAINING and secret is None:
            await self.guard.check_credentials(authorization, place="webhook, START_TRAINING")
        else:
            await self.guard.check_secret(secret)
        project_id = project_of(event)
        await self.guard.check_project(project_id)
        if event.action == START_TRAINING:
            number = await self.writer.want_training(project_id, "Start Training button")
            note_webhook(event, (JobKind.TRAINING, number), self._scope, started_ns=started_ns)
            return WebhookResponse(status="accepted", job=f"training-{number}")
        new = read_event(event)
        if new is None:
            return WebhookResponse(status="ignored")
        event_id = await self.writer.add(new)
        if event_id is None:
            return WebhookResponse(status="known")
        note_webhook(event, (JobKind.EVENT, event_id), self._scope, started_ns=started_ns)
        return WebhookResponse(status="accepted")
