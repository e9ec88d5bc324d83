"""HTTP: Label Studio's nine routes, metrics and a status page; translates between HTTP and the handlers.

Predictions, webhooks and all other requests have threads of their own each: none waits for another kind.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, ProcessCollector, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from maskloop.errors import MaskloopError, QueueError, StoreError
from maskloop.log import log_action
from maskloop_studio.dashboard.dashboard_parts import DashboardParts
from maskloop_studio.dashboard.edit_summaries import edit_summaries
from maskloop_studio.dashboard.page_routes import add_dashboard
from maskloop_studio.errors import OverloadedError, WrongMediaError
from maskloop_studio.images.time_limit import TimeLimit
from maskloop_studio.labelstudio import protocol as wire
from maskloop_studio.labelstudio.basic_auth import expected_credentials
from maskloop_studio.serving.handlers import RequestHandlers, WebhookHandler
from maskloop_studio.serving.http.answers import answer_json, error_response, status_of
from maskloop_studio.serving.http.bodies import MAX_BODY_BYTES, BodyGuard, BodyLimits
from maskloop_studio.serving.http.connections import GuardedConnection
from maskloop_studio.serving.http.host_check import HostCheck, allowed_hosts, check_exposure
from maskloop_studio.serving.http.json_body import (
    MAX_EVENT_TREE_BYTES,
    MAX_FORM_TREE_BYTES,
    MAX_TREE_BYTES,
    check_form_size,
    has_prompt,
    is_small,
    parse_json,
    request_schema,
    shorten_tasks,
    tree_bytes,
)
from maskloop_studio.serving.http.json_reader import JsonReader
from maskloop_studio.serving.http.login import LoginMiddleware
from maskloop_studio.serving.http.request_meter import RequestMeter
from maskloop_studio.serving.loop_metrics import LoopCollector
from maskloop_studio.serving.pauses import ShortCollections, switch_often
from maskloop_studio.serving.prediction_slots import PredictionSlots
from maskloop_studio.serving.process_metrics import AnswerTimes, ProcessMetrics
from maskloop_studio.serving.request_threads import RequestThreads
from maskloop_studio.serving.sender_guard import SECRET_HEADER
from maskloop_studio.serving.status_page import render_status

if TYPE_CHECKING:
    from maskloop.memory_budget import MemoryBudget
    from maskloop_studio.dashboard.kept_reports import KeptReports
    from maskloop_studio.projects.edit_ledger import EditSummary
    from maskloop_studio.services import Services

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
WEBHOOK_THREADS = 2  # they only ask the database which projects and secret there are
OTHER_THREADS = 16
CLICK_REQUESTS = 8  # worked on at once; most wait for the first look at an image
SHUTDOWN_PATIENCE_S = 8  # the supervisor kills after 10 s
Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class _Server:
    """What the routes work with."""

    services: Services
    handlers: RequestHandlers
    webhooks: WebhookHandler
    slots: PredictionSlots  # for predictions only
    click_slots: PredictionSlots  # for clicks only, which wait for no prediction
    webhook_threads: RequestThreads
    readers: RequestThreads  # for large events
    threads: RequestThreads  # for all other routes
    predict_reader: JsonReader  # of large predictions
    event_reader: JsonReader


def run_server(services: Services, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted by then are answered.

    Raises:
        ConfigurationError: the settings ask for half of HTTP Basic credentials, or other machines reach the
            server without a login and no setting says that this is wanted.
    """
    exposure = check_exposure(services.settings, host)
    app = create_app(services, bind_host=host)
    log_action(logger, "server_started", host=host, port=port, access=exposure)
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=GuardedConnection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_PATIENCE_S,
    )


def create_app(services: Services, *, bind_host: str | None = None) -> FastAPI:
    """Return the server's application.

    Args:
        services: what it works with; closed when the server ends.
        bind_host: where it listens; requests for other host names are refused. None where another server
            runs the application and checks them itself.

    Raises:
        ConfigurationError: the settings ask for half of HTTP Basic credentials.
    """
    is_own_process = bind_host is not None
    collections = ShortCollections() if is_own_process else None
    server = _make_server(services, collections)
    registry = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _open_store(services)
        server.handlers.start()
        server.webhooks.writer.start()
        if collections is not None:
            switch_often()
            collections.start()
            server.predict_reader.start()
            server.event_reader.start()
        yield
        await server.webhooks.writer.stop()
        server.handlers.stop()
        for threads in (
            server.slots,
            server.click_slots,
            server.webhook_threads,
            server.readers,
            server.threads,
        ):
            threads.close()
        for reader in (server.predict_reader, server.event_reader):
            reader.close()
        if collections is not None:
            collections.stop()
        services.close()

    # FastAPI's own /docs loads Swagger UI from another host: without a network the page is blank.
    app = FastAPIOffline(
        title="maskloop",
        summary="Segmentation backend for Label Studio",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    # The last one added is the first to see a request.
    app.add_middleware(BodyGuard, limits=BodyLimits(total_bytes=services.memory.body_bytes))
    credentials = expected_credentials(services.settings)
    if credentials is not None:
        app.add_middleware(LoginMiddleware, user=credentials[0], password=credentials[1])
    if bind_host is not None:
        app.add_middleware(HostCheck, allowed=allowed_hosts(services.settings, bind_host))
    app.add_middleware(
        RequestMeter, routes=("/", "/dashboard", "/metrics", *STUDIO_ROUTES), registry=registry
    )
    _add_error_handlers(app)
    _add_studio_routes(app, server, AnswerTimes(registry))
    _add_webhook_route(app, server)
    _add_project_routes(app, server)
    edits = edit_summaries(services)
    _add_operator_routes(app, server, registry, edits)
    add_dashboard(app, _dashboard_parts(server, edits))
    return app


def _make_server(services: Services, collections: ShortCollections | None) -> _Server:
    settings = services.settings
    handlers = RequestHandlers(services, collections=collections)
    webhook_threads = RequestThreads(WEBHOOK_THREADS, name="webhook")
    return _Server(
        services=services,
        handlers=handlers,
        webhooks=WebhookHandler(services, handlers.outbox, run=webhook_threads.run),
        slots=PredictionSlots(at_once=settings.predict_requests, waiting=settings.predict_waiting),
        click_slots=PredictionSlots(at_once=CLICK_REQUESTS, waiting=settings.predict_waiting),
        webhook_threads=webhook_threads,
        readers=RequestThreads(1, name="read"),
        threads=RequestThreads(OTHER_THREADS, name="request"),
        predict_reader=JsonReader("predict"),
        event_reader=JsonReader("webhook"),
    )


def _dashboard_parts(server: _Server, edits: KeptReports[EditSummary]) -> DashboardParts:
    settings = server.services.settings

    async def predict(request: Request, work: Callable[[TimeLimit], Result]) -> Result:
        limit = TimeLimit(settings.predict_deadline_s)
        return await server.slots.run(work, limit=limit, disconnect=partial(_disconnect, request))

    return DashboardParts(
        services=server.services,
        served=server.handlers.directory.states,
        queue_lengths=partial(_queue_lengths, server.services),
        edits=edits,
        run=server.threads.run,
        predict=predict,
    )


def _add_studio_routes(app: FastAPI, server: _Server, times: AnswerTimes) -> None:
    handlers = server.handlers

    # What is answered on the event loop is answered at once, however busy the threads are.
    @app.get("/health")
    async def health() -> wire.HealthResponse:
        # The process is up and takes events while its model still loads, and where that fails as well.
        model = wire.ServedHealth(state=handlers.directory.base_state(), version=handlers.directory.tag(None))
        return wire.HealthResponse(model=model)

    @app.get("/versions")
    async def versions() -> wire.VersionsResponse:
        return handlers.versions()

    @app.post(
        "/predict",
        openapi_extra=request_schema(wire.PredictRequest),
        response_model=wire.PredictResponse,
        responses={503: {"description": "too many predictions at once; Retry-After says when to come again"}},
    )
    async def predict(request: Request) -> Response:
        body = await _json_bytes(request)
        limit = TimeLimit(server.services.settings.predict_deadline_s)
        most_bytes = min(MAX_TREE_BYTES, server.services.memory.trees.total_bytes)
        # A large body is searched beside the event loop, which answers all others meanwhile.
        search = partial(has_prompt, body)
        is_click = search() if is_small(body) else await server.threads.run(search)

        def work(limit: TimeLimit) -> bytes:
            # Also reading and writing JSON: of large masks it takes seconds.
            text = shorten_tasks(body) if is_click else body
            with _tree_room(server.services.memory.trees, text):
                tasks = server.predict_reader.read(wire.PredictRequest, text, max_tree_bytes=most_bytes)
                return answer_json(handlers.predict(tasks, limit))

        slots = server.click_slots if is_click else server.slots
        with times.measure(is_click=is_click):
            content = await slots.run(work, limit=limit, disconnect=partial(_disconnect, request))
        return Response(content, media_type="application/json")

    @app.post("/job_status", openapi_extra=request_schema(wire.JobStatusRequest))
    async def job_status(request: Request) -> wire.JobStatusResponse:
        job = await _read(request, wire.JobStatusRequest, server.threads)
        return await server.threads.run(lambda: handlers.job_status(job))


def _add_webhook_route(app: FastAPI, server: _Server) -> None:
    @app.post(
        "/webhook",
        openapi_extra=request_schema(wire.WebhookEvent),
        responses={
            401: {"description": f"no {SECRET_HEADER} (of START_TRAINING: no credentials), or a wrong one"},
            403: {"description": "an event of a project that is not connected"},
            422: {"description": "no event of a known kind with its payload"},
            503: {"description": "the database cannot keep it now"},
        },
    )
    async def webhook(request: Request) -> wire.WebhookResponse:
        body = await _json_bytes(request)
        read = partial(
            server.event_reader.read,
            wire.WebhookEvent,
            body,
            skip_numbers=True,
            max_tree_bytes=MAX_EVENT_TREE_BYTES,
        )
        # Large events one at a time beside the event loop, which answers all others meanwhile.
        event = read() if is_small(body, skip_numbers=True) else await server.readers.run(read)
        return await server.webhooks.handle(
            event,
            secret=request.headers.get(SECRET_HEADER),
            authorization=request.headers.get("Authorization"),
        )


def _add_project_routes(app: FastAPI, server: _Server) -> None:
    handlers, threads = server.handlers, server.threads

    @app.post(
        "/setup",
        openapi_extra=request_schema(wire.SetupRequest),
        responses={401: {"description": "new extra_params without the credentials of `maskloop connect`"}},
    )
    async def setup(request: Request) -> wire.SetupResponse:
        body = await _read(request, wire.SetupRequest, threads)
        header = request.headers.get("Authorization")
        is_trusted = header is not None and await server.webhooks.guard.has_credentials(header)
        return await threads.run(lambda: handlers.setup(body, is_trusted=is_trusted))

    @app.post("/validate", openapi_extra=request_schema(wire.ValidateRequest))
    async def validate(request: Request) -> dict[str, str]:
        body = await _read(request, wire.ValidateRequest, threads)
        await threads.run(lambda: handlers.validate(body))
        return {"status": "ok"}

    @app.post("/delete", openapi_extra=request_schema(wire.DeleteRequest))
    async def delete(request: Request) -> dict[str, str]:
        # Annotations outlive a disconnected backend: connecting again goes on where it was.
        body = await _read(request, wire.DeleteRequest, threads)
        log_action(logger, "backend_disconnected", project_id=wire.project_number(body.project))
        return {"status": "ok"}

    @app.post("/duplicate_model", openapi_extra=request_schema(wire.DuplicateRequest))
    async def duplicate_model(request: Request) -> dict[str, str]:
        # The copy starts from the base model and learns from its own corrections.
        body = await _read(request, wire.DuplicateRequest, threads)
        source, target = wire.project_number(body.project_src), wire.project_number(body.project_dst)
        log_action(logger, "project_copied", source=source, target=target)
        return {"status": "ok"}


async def _disconnect(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_operator_routes(
    app: FastAPI, server: _Server, registry: CollectorRegistry, edits: KeptReports[EditSummary]
) -> None:
    services, handlers = server.services, server.handlers
    jobs = Gauge("maskloop_jobs", "Jobs in the database", ["status"], registry=registry)
    registry.register(LoopCollector(lambda: services.store, services.settings.home, edits=edits.soon))
    registry.register(ProcessMetrics(services))
    ProcessCollector(registry=registry)  # memory, CPU and open files of this server
    waiting = Gauge("maskloop_jobs_waiting", "Jobs that wait in the queue", ["queue"], registry=registry)

    def collect() -> bytes:
        jobs.clear()
        for status, count in services.store.jobs.counts().items():
            jobs.labels(status).set(count)
        for queue, count in _queue_lengths(services).items():
            waiting.labels(queue).set(count)
        return generate_latest(registry)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(await server.threads.run(collect), media_type=CONTENT_TYPE_LATEST)

    def page() -> str:
        return render_status(
            services.store,
            _queue_lengths(services),
            handlers.directory.states(),
            predictions=(server.slots.accepted, server.slots.at_once),
        )

    @app.get("/", include_in_schema=False)
    async def status() -> HTMLResponse:
        return HTMLResponse(await server.threads.run(page))


@contextmanager
def _tree_room(trees: MemoryBudget, body: bytes) -> Iterator[None]:
    """Hold the memory that a request takes when it is parsed, while it is worked on.

    Raises:
        OverloadedError: other requests hold so much that it does not fit.
    """
    size = min(tree_bytes(body), trees.total_bytes)
    if not trees.try_acquire(size):
        raise OverloadedError(
            "predict",
            expected=f"requests of at most {trees.total_bytes >> 20} MiB at once, once they are parsed",
            got="more",
            remedy="send it again in a moment, send fewer tasks at once, or raise MASKLOOP_MEMORY_MB",
        )
    try:
        yield
    finally:
        trees.release(size)


async def _read(request: Request, model: type[Body], threads: RequestThreads) -> Body:
    body, place = await _json_bytes(request), request.url.path[1:]
    check_form_size(body, place=place)
    read = partial(parse_json, model, body, place=place, max_tree_bytes=MAX_FORM_TREE_BYTES)
    return read() if is_small(body) else await threads.run(read)


async def _json_bytes(request: Request) -> bytes:
    # A web page may post other types to any address without a preflight request of the browser.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WrongMediaError(
            request.url.path[1:],
            expected="Content-Type application/json",
            got="none" if not kind else "another",
            remedy="send JSON with this header",
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
