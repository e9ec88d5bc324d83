"""When a project that is not found counts as deleted."""

from datetime import UTC, datetime, timedelta

import pytest

from maskloop.store.projects import Absence
from maskloop_studio.intake.absence import is_deleted, note_missing

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("checks", "minutes", "deleted"),
    [
        pytest.param(1, 0, False, id="first 404"),
        pytest.param(2, 600, False, id="two in a day"),
        pytest.param(50, 59, False, id="many in less than an hour"),
        pytest.param(3, 60, True, id="three over an hour"),
    ],
)
def test_is_deleted_needs_checks_and_time(checks, minutes, deleted):
    assert is_deleted(Absence(since=NOON, checks=checks), NOON + timedelta(minutes=minutes)) is deleted


def test_note_missing_project_that_is_not_connected_is_never_deleted(store):
    for hour in range(10):
        assert not note_missing(1, store.projects, at=NOON + timedelta(hours=hour))


def test_note_missing_counts_from_the_first_404(store):
    store.projects.save(1, "<View/>")
    found = [note_missing(1, store.projects, at=NOON + timedelta(minutes=30 * n)) for n in range(3)]
    assert found == [False, False, True]
