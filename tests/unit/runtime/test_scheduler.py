"""A bad cron line, wherever it comes from, is skipped and named, and harms no other schedule."""

from types import SimpleNamespace

import pytest

from maskloop_studio.runtime.scheduler import _ScheduleReader, read_schedules


def _projects(options):
    return SimpleNamespace(ids=lambda: frozenset(options), options=lambda number: options[number])


def _settings(train=None, prelabel=None):
    return SimpleNamespace(sync_minutes=10, train_cron=train, prelabel_cron=prelabel)


NEVER = "0 0 31 2 *"


@pytest.mark.parametrize(
    ("settings", "options", "names", "bad"),
    [
        pytest.param(_settings(), {}, ["sync"], {}, id="no project"),
        pytest.param(_settings("0 3 * * *"), {7: {}}, ["sync", "training-7"], {}, id="general"),
        pytest.param(
            _settings("every day"), {7: {}}, ["sync"], {"training-7": "MASKLOOP_TRAIN_CRON"}, id="variable"
        ),
        pytest.param(
            _settings("0 3 * * *"),
            {7: {"train_cron": NEVER}, 8: {}},
            ["sync", "training-8"],
            {"training-7": "train_cron of its options"},
            id="one project's own",
        ),
        pytest.param(
            _settings(prelabel="0 4 * * *"),
            {7: {"train_cron": NEVER}},
            ["sync", "prelabelling-7"],
            {"training-7": "train_cron"},
            id="the other kind stays",
        ),
        pytest.param(
            _settings("every day"),
            {7: {"train_cron": "0 5 * * *"}},
            ["sync", "training-7"],
            {},
            id="own wins",
        ),
    ],
)
def test_read_schedules_skips_the_bad_ones_alone(settings, options, names, bad):
    found, reasons = read_schedules(settings, _projects(options))
    assert sorted(schedule.name for schedule in found) == sorted(names)
    assert reasons.keys() == bad.keys()
    assert all(bad[name] in reason for name, reason in reasons.items())


def test_schedule_reader_logs_each_bad_one_once(caplog):
    options = {7: {"train_cron": NEVER}}
    reader = _ScheduleReader(_settings())
    for _ in range(3):
        reader(_projects(options))
    assert caplog.text.count("schedule_skipped schedule=training-7") == 1
    options[7]["train_cron"] = "0 0 30 2 *"
    reader(_projects(options))
    assert caplog.text.count("schedule_skipped") == 2
