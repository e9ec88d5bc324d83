"""HTTP: Label Studio's nine routes, metrics and a status page; only translates between HTTP and `backend.py`.

Health and webhooks must be answered while models run: predictions have threads of their own.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskloop.errors import (
    CodecError,
    LabelConfigError,
    MaskloopError,
    QueueError,
    StoreError,
)
from maskloop.log import log_action
from maskloop_studio import protocol as wire
from maskloop_studio.operations.status_page import render_status
from maskloop_studio.services import Services
from maskloop_studio.serving.backend import StudioBackend

__all__ = ["create_app"]

logger = logging.getLogger(__name__)
MAX_BODY_BYTES = 32 * 2**20  # a /predict of ten thousand tasks is about 5 MB


def create_app(services: Services) -> FastAPI:
    """Return the server's application.

    Args:
        services: what it works with; closed when the server ends.
    """
    backend = StudioBackend(services)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        backend.directory.start()
        yield
        backend.directory.stop()
        services.close()

    app = FastAPI(
        title="maskloop",
        summary="Segmentation backend for Label Studio",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    _add_error_handlers(app)
    _add_studio_routes(app, backend)
    _add_operator_routes(app, backend)
    return app


def _add_studio_routes(app: FastAPI, backend: StudioBackend) -> None:
    # `async def` answers on the event loop, at once, whatever the thread pool is busy with.
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "maskloop"}

    @app.post("/setup")
    def setup(request: wire.SetupRequest) -> wire.SetupResponse:
        return backend.setup(request)

    @app.get("/versions")
    async def versions() -> wire.VersionsResponse:
        return backend.versions()

    @app.post("/predict")
    def predict(request: wire.PredictRequest) -> wire.PredictResponse:
        return backend.predict(request)

    @app.post("/webhook")
    def webhook(request: wire.WebhookEvent) -> wire.WebhookResponse:
        return backend.webhook(request)

    @app.post("/validate")
    def validate(request: wire.ValidateRequest) -> dict[str, str]:
        backend.validate(request)
        return {"status": "ok"}

    @app.post("/delete")
    async def delete(request: wire.DeleteRequest) -> dict[str, str]:
        # What annotators said outlives a disconnected backend: connecting again goes on where it was.
        log_action(logger, "disconnected", project=request.project)
        return {"status": "ok"}

    @app.post("/duplicate_model")
    async def duplicate_model(request: wire.DuplicateRequest) -> dict[str, str]:
        # The copy starts from the base model and learns from its own corrections.
        log_action(logger, "duplicated", source=request.project_src, target=request.project_dst)
        return {"status": "ok"}

    @app.post("/job_status")
    def job_status(request: wire.JobStatusRequest) -> wire.JobStatusResponse:
        return backend.job_status(request)


def _add_operator_routes(app: FastAPI, backend: StudioBackend) -> None:
    registry = CollectorRegistry()
    requests = Counter("maskloop_requests", "Requests", ["route", "status"], registry=registry)
    seconds = Histogram("maskloop_request_seconds", "Time to answer", ["route"], registry=registry)
    events = Gauge("maskloop_events", "Events from Label Studio", ["status"], registry=registry)
    waiting = Gauge("maskloop_jobs_waiting", "Jobs that wait", ["queue"], registry=registry)

    @app.middleware("http")
    async def measure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        route = request.url.path if request.url.path in ROUTES else "other"
        with seconds.labels(route).time():
            response = await call_next(request)
        requests.labels(route, str(response.status_code)).inc()
        return response

    def collect() -> bytes:
        for status, count in backend.services.store.events.counts().items():
            events.labels(status).set(count)
        for queue, count in _queue_lengths(backend.services).items():
            waiting.labels(queue).set(count)
        return generate_latest(registry)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(await run_in_threadpool(collect), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    def status() -> HTMLResponse:
        return HTMLResponse(render_status(backend.services.store, _queue_lengths(backend.services)))


ROUTES = frozenset(
    {
        "/",
        "/health",
        "/setup",
        "/predict",
        "/webhook",
        "/versions",
        "/validate",
        "/delete",
        "/duplicate_model",
        "/job_status",
        "/metrics",
    }
)


def _queue_lengths(services: Services) -> dict[str, int]:
    try:
        return services.queue.lengths()
    except QueueError:
        return {}


def _add_error_handlers(app: FastAPI) -> None:
    """Pick the status of every error of ours in one place."""

    @app.exception_handler(MaskloopError)
    async def on_error(request: Request, error: MaskloopError) -> JSONResponse:
        status = _status(error)
        log_action(
            logger, "refused", level=logging.WARNING, route=request.url.path, status=status, error=error
        )
        return JSONResponse({"error": str(error)}, status_code=status)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # The input itself is not repeated: it may hold tokens.
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        place = f"{request.url.path}, {where}"
        text = f"{place}: expected a valid request, got: {first['msg']}; see /docs for its form"
        return JSONResponse({"error": text}, status_code=422)


def _status(error: MaskloopError) -> int:
    if isinstance(error, (CodecError, LabelConfigError)):
        return 422
    if isinstance(error, (StoreError, QueueError)):
        return 503
    return 500


class BodyLimit:
    """Refuses a request body over a size before it is held in memory, also one that lies about its length."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._limit:
            await self._refuse(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            await self._refuse(scope, receive, send)
            return
        messages = iter([body])

        async def replay() -> Message:
            return next(messages, None) or await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> Message | None:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            size += len(message.get("body", b""))
            if size > self._limit:
                return None
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                return {"type": "http.request", "body": b"".join(chunks), "more_body": False}

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"request body: expected at most {self._limit} bytes, got more; send fewer tasks at once"
        await JSONResponse({"error": text}, status_code=413)(scope, receive, send)
