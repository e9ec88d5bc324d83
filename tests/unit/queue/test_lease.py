"""Working on a job: its end stands in its row, whatever happens."""

import threading
import time

import pytest
from tests.waiting import until

from maskloop.errors import CodecError, StudioError, TrainingError
from maskloop.queue.lease import LeaseLost, run_job
from maskloop.store.jobs import MAX_ATTEMPTS, JobKind, JobStatus


def _error(kind):
    return kind("task 7", expected="an answer", got="none", remedy="try again")


@pytest.fixture
def number(store, make_event):
    (made,) = store.jobs.add_events([make_event()])
    return made


def _run(store, number, work, **options):
    return run_job(number, work, jobs=store.jobs, **options)


def test_run_job_done_keeps_its_outcome(store, number):
    assert _run(store, number, lambda job, control: {"read": job.subject_ids[0]}) is JobStatus.DONE
    assert store.jobs.get(number).outcome == {"read": 70}
    assert _run(store, number, lambda job, control: None) is None


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        pytest.param(_error(StudioError), JobStatus.WAITING, id="no-answer"),
        pytest.param(ValueError(), JobStatus.WAITING, id="unforeseen"),
        pytest.param(_error(CodecError), JobStatus.DEAD, id="cannot-be-read"),
        pytest.param(_error(TrainingError), JobStatus.DEAD, id="nothing-to-learn"),
    ],
)
def test_run_job_error_ends_in_the_row(store, number, error, becomes):
    def work(job, control):
        raise error

    assert _run(store, number, work) is becomes
    assert store.jobs.get(number).error == (str(error) or "ValueError")


def test_run_job_no_answer_for_hours_is_not_given_up(store, number):
    def work(job, control):
        raise _error(StudioError)

    for _ in range(2 * MAX_ATTEMPTS):
        assert _run(store, number, work) is JobStatus.WAITING
        _make_due(store, number)
    assert store.jobs.get(number).attempts == 2 * MAX_ATTEMPTS


def test_run_job_longer_than_its_lease_keeps_it(store, number):
    def work(job, control):
        time.sleep(1.5)
        assert store.jobs.claim(number, "somebody else") is None

    assert _run(store, number, work, lease_s=0.5) is JobStatus.DONE


def test_run_job_progress_is_seen_outside(store, number):
    def work(job, control):
        control.progress(3, 9)
        until(lambda: store.jobs.get(number).done == 3)
        assert store.jobs.get(number).total == 9

    assert _run(store, number, work, lease_s=1) is JobStatus.DONE


def test_run_job_cancelled_ends_at_its_next_step(store):
    number = store.jobs.request(JobKind.TRAINING, 1)
    began = threading.Event()

    def work(job, control):
        began.set()
        for step in range(1000):
            control.progress(step, 1000)
            time.sleep(0.02)

    def cancel():
        began.wait(5)
        store.jobs.cancel(number)

    asking = threading.Thread(target=cancel)
    asking.start()
    assert _run(store, number, work, lease_s=1) is JobStatus.CANCELLED
    asking.join()
    assert store.trainings.get(number).status == "cancelled"


def test_run_job_that_lost_its_lease_stops_and_changes_nothing(store, number):
    def work(job, control):
        _take_away(store, number)
        with pytest.raises(LeaseLost):
            until(lambda: control.progress(1, 2))
        raise LeaseLost

    assert _run(store, number, work, lease_s=0.5) is None
    assert store.jobs.get(number).owner == "thief"


def _take_away(store, number):
    from maskloop.store.tables import JobRow

    with store._sessions.write() as session:
        session.get(JobRow, number).owner = "thief"


def _make_due(store, number):
    from maskloop.store.sessions import now
    from maskloop.store.tables import JobRow

    with store._sessions.write() as session:
        session.get(JobRow, number).due_at = now()
