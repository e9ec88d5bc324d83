"""Reports are made again only when annotations change, or after their time."""

import threading

import pytest
from tests.fakes.looped_project import PROJECT, annotate, make_services

from maskloop_studio.dashboard import edit_reports
from maskloop_studio.dashboard.edit_reports import KEPT_S, EditReports
from maskloop_studio.errors import OverloadedError


@pytest.fixture
def services(settings):
    made = make_services(settings)
    yield made
    made.close()


def test_of_reads_corrections_again_only_when_they_change(services, monkeypatch):
    made, clock = [], [0.0]
    original = edit_reports.report_project

    def count(*arguments, **options):
        made.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(edit_reports, "report_project", count)
    reports = EditReports(services.settings, clock_s=lambda: clock[0])
    monkeypatch.setattr(edit_reports.EditReports.of, "__kwdefaults__", {"patience_s": 60.0})
    annotate(services, 1, model_version="m-v1")
    assert reports.of(PROJECT, services.store).versions[0].images == 1
    assert reports.of(PROJECT, services.store).versions[0].images == 1
    assert len(made) == 1
    annotate(services, 2, model_version="m-v1")
    assert reports.of(PROJECT, services.store).versions[0].images == 2
    clock[0] = KEPT_S + 1
    reports.of(PROJECT, services.store)
    assert len(made) == 3


def test_of_slow_report_holds_no_request_and_is_found_later(services, monkeypatch):
    may_end, made = threading.Event(), []
    original = edit_reports.report_project

    def slow(*arguments, **options):
        made.append(1)
        may_end.wait(60)
        return original(*arguments, **options)

    monkeypatch.setattr(edit_reports, "report_project", slow)
    reports = EditReports(services.settings)
    annotate(services, 1, model_version="m-v1")
    for _ in range(2):
        with pytest.raises(OverloadedError, match="still being made"):
            reports.of(PROJECT, services.store, patience_s=0.05)
    may_end.set()
    assert reports.of(PROJECT, services.store, patience_s=60).versions[0].images == 1
    assert len(made) == 1
