"""Reads what an OpenTelemetry collector is sent over HTTP."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, kw_only=True)
class SentSpan:
    """One span; numbers of traces in hex."""

    name: str
    trace: str
    links: tuple[str, ...]  # numbers of other traces
    attributes: dict[str, str | int | bool]
    pid: int  # of the process that sent it; 0: not told


def read_spans(bodies: Iterable[bytes]) -> Iterator[SentSpan]:
    """Yield the spans of some requests to /v1/traces."""
    for body in bodies:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                for one in scope.spans:
                    yield SentSpan(
                        name=one.name,
                        trace=one.trace_id.hex(),
                        links=tuple(link.trace_id.hex() for link in one.links),
                        attributes=_values(one.attributes),
                        pid=int(resource.get("process.pid", 0)),
                    )


def _values(attributes) -> dict[str, str | int | bool]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
