"""Spans by OpenTelemetry's variables: one trace a job in any process, links between jobs."""

import time

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.fakes.looped_project import CONFIG, PROJECT, make_services

from maskloop import tracing
from maskloop.store.jobs import JobKind
from maskloop.tracing import flush_spans, job_span, note_request, note_span, span
from maskloop_studio.dispatch import request
from maskloop_studio.intake.webhook import receive_event
from maskloop_studio.labelstudio.protocol import WebhookEvent
from maskloop_studio.runtime import tasks
from maskloop_studio.runtime.tasks import work_on


@pytest.fixture(autouse=True)
def forget():
    tracing._provider.cache_clear()
    yield
    tracing._provider.cache_clear()


@pytest.fixture
def spans(monkeypatch):
    """Return what is exported; switched on as users do, with the exporter of the SDK's own tests."""
    kept = InMemorySpanExporter()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    provider = tracing._provider()
    provider._active_span_processor._span_processors = (SimpleSpanProcessor(kept),)
    return kept


OFF = [
    pytest.param({}, id="nothing is set"),
    pytest.param({"OTEL_TRACES_EXPORTER": "none"}, id="none"),
    pytest.param({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, id="disabled"),
    pytest.param({"OTEL_TRACES_EXPORTER": "zipkin"}, id="unknown exporter"),
]


@pytest.mark.parametrize("variables", OFF)
def test_span_off_costs_nothing_and_yields(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with job_span("event-1", "db"), span("part", images=3):
        note_request("training-2", "db", "why")
    note_span("webhook", "event-1", "db", started_ns=time.time_ns())
    flush_spans()
    assert tracing._provider() is None


def test_missing_packages_are_named_once_and_stop_nothing(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter", None)
    for _ in range(2):
        with span("part"):
            pass
    assert caplog.text.count("tracing_off") == 1
    assert "maskloop[otel]" in caplog.text


def test_webhook_and_job_share_a_trace_and_link_to_what_was_requested(spans):
    began = time.time_ns() - 10**9
    note_span("webhook", "event-17", "db", started_ns=began, attributes={"project": 7})
    with job_span("event-17", "db", project=7):
        note_request("training-18", "db", "25 new corrections")
    with job_span("training-18", "db", project=7), span("release", better=True):
        pass
    found = {one.name: one for one in spans.get_finished_spans()}
    assert found["webhook"].context.trace_id == found["job event"].context.trace_id
    assert found["webhook"].start_time == began
    assert found["request training"].parent.span_id == found["job event"].context.span_id
    (link,) = found["request training"].links
    assert link.context.trace_id == found["job training"].context.trace_id
    assert found["release"].parent.span_id == found["job training"].context.span_id
    assert found["release"].attributes["maskloop.better"] is True
    assert found["job event"].context.trace_id != found["job training"].context.trace_id


def test_traces_of_two_installations_differ(spans):
    for scope in ("db", "other"):
        with job_span("event-17", scope):
            pass
    first, second = spans.get_finished_spans()
    assert first.context.trace_id != second.context.trace_id


def test_error_is_noted_and_raised(spans):
    with pytest.raises(ValueError, match="broken"), job_span("event-1", "db"):
        raise ValueError("broken")
    (one,) = spans.get_finished_spans()
    assert not one.status.is_ok
    assert one.events[0].name == "exception"


def test_spans_arrive_at_a_collector_over_http(monkeypatch):
    from tests.fakes.http_host import run_host

    with run_host() as host:
        host.pages["/v1/traces"] = (200, {}, b"")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", host.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "loop-here")
        with job_span("training-18", "db"), span("release"):
            pass
        flush_spans()
        tracing._provider().shutdown()
        (seen,) = host.seen
    assert all(word in seen.body for word in (b"loop-here", b"job training", b"release"))


def _training_runs(services):
    services.store.projects.save(PROJECT, CONFIG)
    number = request(JobKind.TRAINING, PROJECT, "maskloop train", store=services.store, queue=services.queue)
    services.store.jobs.claim(number, "worker", lease_s=60)
    return number


def test_request_that_joins_a_running_training_links_to_it(spans, settings):
    services = make_services(settings)
    number = _training_runs(services)
    spans.clear()
    with job_span("event-17", services.store.scope):
        joined = request(JobKind.TRAINING, PROJECT, "9 more", store=services.store, queue=services.queue)
    with job_span(f"training-{number}", services.store.scope):
        pass
    services.close()
    assert joined == number
    found = {one.name: one for one in spans.get_finished_spans()}
    (link,) = found["request training"].links
    assert link.context.trace_id == found["job training"].context.trace_id
    assert found["request training"].attributes["maskloop.reason"] == "9 more"


@pytest.mark.parametrize("is_running", [False, True], ids=["begins one", "joins one"])
def test_start_training_button_is_a_webhook_of_the_trainings_trace(spans, settings, is_running):
    services = make_services(settings)
    services.store.projects.save(PROJECT, CONFIG)
    if is_running:
        _training_runs(services)
    spans.clear()
    event = WebhookEvent.model_validate({"action": "START_TRAINING", "project": {"id": PROJECT}})
    receipt = receive_event(event, store=services.store, queue=services.queue)
    with job_span(f"training-{receipt.training_id}", services.store.scope):
        pass
    services.close()
    found = {one.name: one for one in spans.get_finished_spans()}
    assert found["webhook"].context.trace_id == found["job training"].context.trace_id
    assert found["webhook"].attributes["maskloop.action"] == "START_TRAINING"


def test_real_job_is_a_span_with_its_tries(spans, settings, monkeypatch):
    services = make_services(settings)
    services.store.projects.save(PROJECT, CONFIG)
    monkeypatch.setitem(tasks.WORK, JobKind.SYNC, lambda *_: None)
    number = request(JobKind.SYNC, PROJECT, "schedule", store=services.store, queue=services.queue)
    assert work_on(number, services) == "done"
    services.close()
    found = {one.name: one for one in spans.get_finished_spans()}
    assert dict(found["job sync"].attributes) == {
        "maskloop.job": f"sync-{number}",
        "maskloop.project": PROJECT,
        "maskloop.reason": "schedule",
        "maskloop.attempt": 1,
    }
    assert found["request sync"].links[0].context.trace_id == found["job sync"].context.trace_id
