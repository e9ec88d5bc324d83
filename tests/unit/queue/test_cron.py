"""Cron lines are checked for a time that comes, and no bad one stops the others."""

import threading
import time

import pytest

from maskloop.queue import cron
from maskloop.queue.cron import Schedule, check_cron_line, run_cron

BAD = [
    pytest.param("every day", id="words"),
    pytest.param("0 0 31 2 *", id="31 February"),
    pytest.param("0 0 30 2 *", id="30 February"),
    pytest.param("0 0 31 4,6,9,11 *", id="31 of short months"),
    pytest.param("", id="empty"),
    pytest.param("* * * *", id="four fields"),
    pytest.param("61 * * * *", id="minute 61"),
    pytest.param("\x00 0 * * *", id="NUL"),
]


@pytest.mark.parametrize("line", BAD)
def test_check_cron_line_that_never_comes_is_refused(line):
    with pytest.raises(ValueError, match="expected a cron line"):
        check_cron_line(line)


@pytest.mark.parametrize("line", ["0 3 * * *", "*/5 * * * 1-5", "0 0 29 2 *", "@daily", "0 0 31 1,2 *"])
def test_check_cron_line_that_comes_is_accepted(line):
    check_cron_line(line)


class _Connection:
    """A Redis that is away: registering the scheduler fails, and is tried again."""

    def __getattr__(self, name):
        raise RuntimeError(f"a fault in {name}")


def test_run_cron_fault_in_one_round_is_logged_and_tried_again(monkeypatch, caplog):
    monkeypatch.setattr(cron, "TICK_S", 0.01)
    monkeypatch.setattr(cron, "READ_S", 0.0)
    stop, rounds = threading.Event(), []

    def read_schedules():
        rounds.append(1)
        if len(rounds) == 3:
            stop.set()
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(cron.CronScheduler, "register_death", lambda self: None)
    run_cron(_Connection(), read_schedules, stop)
    assert caplog.text.count("scheduler_failed") == len(rounds) == 3


@pytest.mark.parametrize("line", BAD[:3])
def test_follow_bad_schedule_is_skipped_and_the_others_stay(line, caplog):
    jobs = []
    scheduler = type("Scheduler", (), {"get_jobs": lambda self: jobs})()
    good = Schedule(name="sync", function="f", every_s=60)
    cron._follow(scheduler, [good, Schedule(name="bad", function="f", cron=line)])
    first = jobs[0]
    time.sleep(0.01)
    cron._follow(scheduler, [good])
    assert jobs == [first], "a schedule that stays keeps its clock"
