"""OpenTelemetry spans from a webhook to a promotion, by the standard variables; nothing without them.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`), or `OTEL_TRACES_EXPORTER`, switches them on;
`OTEL_SDK_DISABLED=true` off. Jobs are done in other processes, maybe on other machines, and hours later: a
trace's number is derived from the job's, so that all write into the same trace without a word in the queue.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

from maskloop.log import log_action

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext, Tracer

__all__ = ["flush_spans", "job_span", "note_request", "note_span", "span"]

logger = logging.getLogger(__name__)
SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
FLUSH_MS = 5000
Attributes: TypeAlias = Mapping[str, str | int | float | bool]
_wanted_trace: ContextVar[int | None] = ContextVar("wanted_trace", default=None)


@contextlib.contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Iterator[None]:
    """Measure a block as a part of the span around it; an error is noted in it and raised on."""
    tracer = _tracer()
    if tracer is None:
        yield
        return
    with tracer.start_as_current_span(name, attributes=_named(attributes)):
        yield


@contextlib.contextmanager
def job_span(job: str, scope: str, **attributes: str | int | float | bool) -> Iterator[None]:
    """Measure a job; everything about it, in any process, is in one trace.

    Args:
        job: its name, such as event-17.
        scope: tells installations apart, such as the database's address; it is hashed.
        attributes: of the span.
    """
    tracer = _tracer()
    if tracer is None:
        yield
        return
    from opentelemetry.trace import use_span

    name = f"job {job.rpartition('-')[0]}"
    with use_span(_start_in_trace(tracer, name, job, scope, attributes), end_on_exit=True):
        yield


def note_span(
    name: str, job: str, scope: str, *, started_ns: int, attributes: Attributes | None = None
) -> None:
    """Note what has just ended as a span in the trace of the job that came of it.

    Args:
        name: of the span.
        job: the job's name.
        scope: as for `job_span`.
        started_ns: when it began, nanoseconds since 1970.
        attributes: of the span.
    """
    tracer = _tracer()
    if tracer is None:
        return
    _start_in_trace(tracer, name, job, scope, attributes or {}, started_ns=started_ns).end()


def note_request(job: str, scope: str, reason: str) -> None:
    """Note in the present span that a job was asked for, with a link to the job's trace."""
    tracer = _tracer()
    if tracer is None:
        return
    from opentelemetry.trace import Link

    with tracer.start_as_current_span(
        f"request {job.rpartition('-')[0]}",
        links=[Link(_context_of(job, scope))],
        attributes=_named({"job": job, "reason": reason}),
    ):
        pass


def flush_spans() -> None:
    """Send what waits: a process that is about to end without ceremony calls it."""
    if _provider.cache_info().currsize and (provider := _provider()) is not None:
        provider.force_flush(FLUSH_MS)


def _start_in_trace(
    tracer: Tracer, name: str, job: str, scope: str, attributes: Attributes, *, started_ns: int | None = None
) -> Span:
    """Return a span that has begun in the job's trace, whatever span there is around it."""
    from opentelemetry.context import Context

    token = _wanted_trace.set(_trace_number(job, scope))
    try:
        return tracer.start_span(
            name,
            context=Context(),
            start_time=started_ns,
            attributes=_named({"job": job, **attributes}),
        )
    finally:
        _wanted_trace.reset(token)


def _named(attributes: Attributes) -> dict[str, str | int | float | bool]:
    return {f"maskloop.{name}": value for name, value in attributes.items()}


def _trace_number(job: str, scope: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{scope}\0{job}".encode()).digest()[:16], "big") or 1


def _context_of(job: str, scope: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    number = _trace_number(job, scope)
    return SpanContext(
        trace_id=number,
        span_id=(number & (2**64 - 1)) or 1,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _tracer() -> Tracer | None:
    provider = _provider()
    return None if provider is None else provider.get_tracer("maskloop")


@functools.lru_cache(maxsize=1)
def _provider() -> TracerProvider | None:
    """Return what makes the spans of this process; None where they are off, or packages are missing."""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_off or not any(os.environ.get(name) for name in SWITCHES):
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _exporter()
    except ImportError as exc:
        log_action(
            logger,
            "tracing_off",
            level=logging.WARNING,
            expected="the packages of the extra `otel`",
            got=f"no module {exc.name}",
            remedy='pip install "maskloop[otel]", or unset OTEL_*',
        )
        return None
    if exporter is None:
        return None
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "maskloop"}
    provider = TracerProvider(resource=Resource.create(named), id_generator=_id_generator())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter() -> Any:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() or "otlp"
    if name == "none":
        return None
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp":
        log_action(
            logger,
            "tracing_off",
            level=logging.WARNING,
            expected="OTEL_TRACES_EXPORTER=otlp, console or none",
            got=name,
            remedy="choose one of these",
        )
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _id_generator() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class JobIdGenerator(RandomIdGenerator):
        """Random numbers, but for the traces of jobs."""

        def generate_trace_id(self) -> int:
            """Return the number of the job's trace, where one is about to begin."""
            return _wanted_trace.get() or super().generate_trace_id()

    return JobIdGenerator()
