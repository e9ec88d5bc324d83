"""Reports are made again only when their project changes, or after their time; edits from a ledger."""

import threading

import pytest
from tests.fakes.looped_project import PROJECT, annotate, make_services

from maskloop_studio.dashboard.edit_summaries import edit_summaries
from maskloop_studio.dashboard.kept_reports import KEPT_S, KeptReports
from maskloop_studio.errors import OverloadedError


@pytest.fixture
def services(settings):
    made = make_services(settings)
    yield made
    made.close()


def test_of_makes_again_only_after_a_change_or_its_time():
    made, clock, stamp = [], [0.0], [1]

    def make(project_id):
        made.append(project_id)
        return len(made)

    reports = KeptReports("tests", make, lambda _: stamp[0], clock_s=lambda: clock[0])
    assert [reports.of(7, patience_s=60) for _ in range(2)] == [1, 1]
    stamp[0] = 2
    assert reports.of(7, patience_s=60) == 2
    clock[0] = KEPT_S + 1
    assert reports.of(7, patience_s=60) == 3
    assert made == [7, 7, 7]


def test_of_slow_report_holds_no_request_and_is_found_later():
    may_end, made = threading.Event(), []

    def slow(project_id):
        made.append(project_id)
        may_end.wait(60)
        return "report"

    reports = KeptReports("tests", slow, lambda _: 1)
    for _ in range(2):
        with pytest.raises(OverloadedError, match="still being made"):
            reports.of(7, patience_s=0.05)
    assert reports.soon(7) is None
    may_end.set()
    assert reports.of(7, patience_s=60) == "report"
    assert made == [7]


def test_soon_returns_the_older_report_while_a_new_one_is_made():
    may_end, stamp = threading.Event(), [1]
    may_end.set()

    def make(_):
        may_end.wait(60)
        return stamp[0]

    reports = KeptReports("tests", make, lambda _: stamp[0])
    assert reports.of(7, patience_s=60) == 1
    may_end.clear()
    stamp[0] = 2
    assert reports.soon(7) == 1
    may_end.set()
    assert reports.of(7, patience_s=60) == 2
    assert reports.soon(7) == 2


def test_of_error_is_raised_and_the_next_call_tries_again():
    calls = []

    def make(_):
        calls.append(1)
        if len(calls) == 1:
            raise OverloadedError("here", expected="e", got="g", remedy="r")
        return "report"

    reports = KeptReports("tests", make, lambda _: 1)
    with pytest.raises(OverloadedError, match="here"):
        reports.of(7, patience_s=60)
    assert reports.of(7, patience_s=60) == "report"


def test_edit_summaries_follow_new_annotations(services):
    reports = edit_summaries(services)
    annotate(services, 1, model_version="m-v1")
    assert reports.of(PROJECT, patience_s=60).versions[0].images == 1
    annotate(services, 2, model_version="m-v1")
    assert reports.of(PROJECT, patience_s=60).versions[0].images == 2
