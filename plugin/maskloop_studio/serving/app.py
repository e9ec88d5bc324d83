"""HTTP: Label Studio's nine routes, metrics and a status page; only translates between HTTP and `backend.py`.

Health and webhooks must be answered while models run: predictions have threads of their own.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from maskloop.errors import MaskloopError, QueueError, StoreError
from maskloop.log import log_action
from maskloop_studio.errors import WrongMediaError
from maskloop_studio.labelstudio import protocol as wire
from maskloop_studio.labelstudio.basic_auth import expected_credentials
from maskloop_studio.services import Services
from maskloop_studio.serving.handlers import StudioBackend
from maskloop_studio.serving.http.answers import error_response, status_of
from maskloop_studio.serving.http.basic_auth import BasicAuth
from maskloop_studio.serving.http.bodies import MAX_BODY_BYTES, BodyGuard
from maskloop_studio.serving.http.connections import GuardedConnection
from maskloop_studio.serving.http.json_body import MAX_EVENT_TREE_BYTES, parse_json, request_schema
from maskloop_studio.serving.http.metrics import RequestMeter
from maskloop_studio.serving.status_page import render_status
from maskloop_studio.serving.webhook_guard import SECRET_HEADER

__all__ = ["MAX_BODY_BYTES", "create_app", "run_server"]

logger = logging.getLogger(__name__)
STUDIO_ROUTES = (
    "/health",
    "/setup",
    "/predict",
    "/webhook",
    "/versions",
    "/validate",
    "/delete",
    "/duplicate_model",
    "/job_status",
)
SHUTDOWN_PATIENCE_S = 8  # the supervisor kills after 10 s
Body = TypeVar("Body", bound=BaseModel)


def run_server(services: Services, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted by then is answered.

    Raises:
        ConfigurationError: the settings ask for half of HTTP Basic credentials.
    """
    uvicorn.run(
        create_app(services),
        host=host,
        port=port,
        http=GuardedConnection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_PATIENCE_S,
    )


def create_app(services: Services) -> FastAPI:
    """Return the server's application.

    Args:
        services: what it works with; closed when the server ends.

    Raises:
        ConfigurationError: the settings ask for half of HTTP Basic credentials.
    """
    backend = StudioBackend(services)
    registry = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _open_store(services)
        backend.directory.start()
        backend.inbox.start()
        yield
        await backend.inbox.stop()
        backend.directory.stop()
        backend.shadows.stop()
        services.close()

    app = FastAPI(
        title="maskloop",
        summary="Segmentation backend for Label Studio",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    # The last one added is the first to see a request.
    app.add_middleware(BodyGuard)
    credentials = expected_credentials(services.settings)
    if credentials is not None:
        app.add_middleware(BasicAuth, user=credentials[0], password=credentials[1])
    app.add_middleware(RequestMeter, routes=("/", "/metrics", *STUDIO_ROUTES), registry=registry)
    _add_error_handlers(app)
    _add_studio_routes(app, backend)
    _add_project_routes(app, backend)
    _add_operator_routes(app, backend, registry)
    return app


def _add_studio_routes(app: FastAPI, backend: StudioBackend) -> None:
    # What is answered on the event loop is answered at once, whatever the thread pool is busy with.
    @app.get("/health")
    async def health() -> wire.HealthResponse:
        # The process is up and takes events while its model still loads, and where that fails as well.
        model = wire.ServedHealth(state=backend.directory.base_state(), version=backend.directory.tag(None))
        return wire.HealthResponse(model=model)

    @app.get("/versions")
    async def versions() -> wire.VersionsResponse:
        return backend.versions()

    @app.post("/predict", openapi_extra=request_schema(wire.PredictRequest))
    async def predict(request: Request) -> wire.PredictResponse:
        return await run_in_threadpool(backend.predict, await _read(request, wire.PredictRequest))

    @app.post(
        "/webhook",
        openapi_extra=request_schema(wire.WebhookEvent),
        responses={
            401: {"description": f"no {SECRET_HEADER}, or a wrong one"},
            403: {"description": "an event of a project that is not connected"},
            422: {"description": "no event of a known kind with its payload"},
            503: {"description": "the database cannot keep it now"},
        },
    )
    async def webhook(request: Request) -> wire.WebhookResponse:
        event = parse_json(
            wire.WebhookEvent,
            await _json_bytes(request),
            place="webhook",
            skip_numbers=True,
            max_tree_bytes=MAX_EVENT_TREE_BYTES,
        )
        return await backend.webhook(event, secret=request.headers.get(SECRET_HEADER))

    @app.post("/job_status", openapi_extra=request_schema(wire.JobStatusRequest))
    async def job_status(request: Request) -> wire.JobStatusResponse:
        return await run_in_threadpool(backend.job_status, await _read(request, wire.JobStatusRequest))


def _add_project_routes(app: FastAPI, backend: StudioBackend) -> None:
    @app.post("/setup", openapi_extra=request_schema(wire.SetupRequest))
    async def setup(request: Request) -> wire.SetupResponse:
        return await run_in_threadpool(backend.setup, await _read(request, wire.SetupRequest))

    @app.post("/validate", openapi_extra=request_schema(wire.ValidateRequest))
    async def validate(request: Request) -> dict[str, str]:
        await run_in_threadpool(backend.validate, await _read(request, wire.ValidateRequest))
        return {"status": "ok"}

    @app.post("/delete", openapi_extra=request_schema(wire.DeleteRequest))
    async def delete(request: Request) -> dict[str, str]:
        # What annotators said outlives a disconnected backend: connecting again goes on where it was.
        said = await _read(request, wire.DeleteRequest)
        log_action(logger, "backend_disconnected", project_id=wire.project_number(said.project))
        return {"status": "ok"}

    @app.post("/duplicate_model", openapi_extra=request_schema(wire.DuplicateRequest))
    async def duplicate_model(request: Request) -> dict[str, str]:
        # The copy starts from the base model and learns from its own corrections.
        said = await _read(request, wire.DuplicateRequest)
        source, target = wire.project_number(said.project_src), wire.project_number(said.project_dst)
        log_action(logger, "project_copied", source=source, target=target)
        return {"status": "ok"}


def _add_operator_routes(app: FastAPI, backend: StudioBackend, registry: CollectorRegistry) -> None:
    jobs = Gauge("maskloop_jobs", "Jobs in the database", ["status"], registry=registry)
    waiting = Gauge("maskloop_jobs_waiting", "Jobs that wait in the queue", ["queue"], registry=registry)

    def collect() -> bytes:
        jobs.clear()
        for status, count in backend.services.store.jobs.counts().items():
            jobs.labels(status).set(count)
        for queue, count in _queue_lengths(backend.services).items():
            waiting.labels(queue).set(count)
        return generate_latest(registry)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(await run_in_threadpool(collect), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    def status() -> HTMLResponse:
        lengths = _queue_lengths(backend.services)
        return HTMLResponse(render_status(backend.services.store, lengths, backend.directory.states()))


async def _read(request: Request, model: type[Body]) -> Body:
    return parse_json(model, await _json_bytes(request), place=request.url.path[1:])


async def _json_bytes(request: Request) -> bytes:
    # A web page may post other types to any address without asking: a browser would be its accomplice.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WrongMediaError(
            request.url.path[1:],
            expected="Content-Type application/json",
            got="none" if not kind else "another",
            remedy="send JSON, and say so",
        )
    return await request.body()


def _open_store(services: Services) -> None:
    # Before any thread: MLflow brings its tables up to date by the same tool, whose state is the process's.
    try:
        _ = services.store
    except StoreError as exc:
        # It may come back; until then events are refused with 503.
        log_action(logger, "database_unreachable", level=logging.ERROR, error=exc)


def _queue_lengths(services: Services) -> dict[str, int]:
    try:
        return services.queue.lengths()
    except QueueError:
        return {}


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error in one form; none repeats what was sent."""

    @app.exception_handler(MaskloopError)
    async def on_error(request: Request, error: MaskloopError) -> Response:
        status = status_of(error)
        log_action(
            logger,
            "request_refused",
            level=logging.WARNING,
            route=request.url.path,
            status=status,
            error=error,
        )
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def on_no_route(_request: Request, error: HTTPException) -> JSONResponse:
        text = f"request: expected a method and path that are served, got others ({error.detail}); see /docs"
        return JSONResponse({"error": text}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def on_fault(_request: Request, _error: Exception) -> JSONResponse:
        # Its own text may hold anything: the log has it, the answer does not.
        text = "server: expected to answer, got an error of its own; see the server's log"
        return JSONResponse({"error": text}, status_code=500)
