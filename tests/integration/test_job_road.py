"""A job's road through a real queue: carried, lost and carried again, killed and taken over, on schedule."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer
from tests.fakes.events import new_event
from tests.waiting import until
from typer.testing import CliRunner

from maskloop.queue import rq_queue
from maskloop.queue.cron import Schedule, run_cron
from maskloop.queue.rq_queue import RqQueue
from maskloop.queue.spec import QueueName
from maskloop.queue.valkey import EmbeddedBroker, queue_url
from maskloop.queue.workers import has_live_scheduler, has_live_worker, run_worker
from maskloop.store.audit import MASKLOOP
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio import services as services_module
from maskloop_studio.cli.main import app
from maskloop_studio.dispatch import JOB_FUNCTIONS, job_spec, request
from maskloop_studio.runtime import tasks as jobs
from maskloop_studio.runtime.scheduler import read_schedules


def _schedules(services):
    return read_schedules(services.settings, services.store.projects)[0]


@pytest.fixture
def services(make_services, connection, monkeypatch):
    """Services on the real queue, also those that a job finds in this process."""
    made = make_services()
    made.queue = RqQueue(connection)
    monkeypatch.setattr(jobs, "process_services", lambda: made)
    monkeypatch.setattr(services_module, "process_services", lambda: made)
    return made


def _event(services, key="a"):
    event = new_event(key, action="PROJECT_CREATED", subject_ids=(1,))
    (number,) = services.store.jobs.add_events([event])
    return number


def _work_off(connection):
    queues = (QueueName.INTAKE, QueueName.PREDICT)
    run_worker(connection, queues, functions=JOB_FUNCTIONS, burst=True)


def test_event_queued_and_done(services, connection):
    number = _event(services)
    services.queue.enqueue(job_spec(JobKind.EVENT, number))
    _work_off(connection)
    assert services.store.jobs.get(number).status is JobStatus.DONE


def test_sweep_queue_that_lost_everything_is_filled_again(services, connection):
    numbers = [_event(services, str(index)) for index in range(3)]
    assert jobs.sweep(jobs=services.store.jobs, queue=services.queue) == 3
    connection.flushall()
    assert jobs.sweep(jobs=services.store.jobs, queue=services.queue) == 3
    assert jobs.sweep(jobs=services.store.jobs, queue=services.queue) == 0
    _work_off(connection)
    assert {services.store.jobs.get(number).status for number in numbers} == {JobStatus.DONE}
    assert jobs.sweep(jobs=services.store.jobs, queue=services.queue) == 0


def test_request_queue_away_waits_for_the_sweep(services, broker, connection, settings):
    broker.stop()
    number = request(JobKind.SYNC, 1, "test", store=services.store, queue=services.queue)
    assert services.store.jobs.get(number).status is JobStatus.WAITING
    again = EmbeddedBroker(settings)
    again.start()
    try:
        assert jobs.sweep(jobs=services.store.jobs, queue=services.queue) == 1
    finally:
        again.stop()


def test_next_of_a_kind_is_queued_when_one_ends(services, connection, monkeypatch):
    first = request(JobKind.PRELABEL, 1, "test", store=services.store, queue=services.queue)

    def train(job, control, services):
        request(JobKind.PRELABEL, 1, "again", store=services.store, queue=services.queue)
        connection.flushall()  # the queue forgets it

    monkeypatch.setitem(
        jobs.WORK,
        JobKind.PRELABEL,
        lambda job, control, services: train(job, control, services) if job.job_id == first else None,
    )
    _work_off(connection)
    assert services.store.jobs.counts() == {"done": 2}


def test_enqueue_job_taken_off_its_queue_and_never_started_is_queued_again(services, connection):
    job = job_spec(JobKind.EVENT, _event(services))
    services.queue.enqueue(job)
    assert not services.queue.enqueue(job)
    connection.lpop("rq:queue:intake")
    assert services.queue.enqueue(job)
    assert services.queue.lengths()["intake"] == 1


def test_progress_stands_in_the_meta_of_the_queues_job(services, connection, monkeypatch):
    def work(job, control, services):
        control.progress(3, 9)
        carrier = RqJob.fetch(job.name, connection=connection, serializer=JSONSerializer)
        until(lambda: carrier.get_meta(refresh=True).get("done") == 3)

    monkeypatch.setitem(jobs.WORK, JobKind.SYNC, work)
    number = request(JobKind.SYNC, 1, "test", store=services.store, queue=services.queue)
    _work_off(connection)
    assert services.store.jobs.get(number).error is None


def test_worker_killed_in_a_job_another_takes_it_over(services, settings, connection, monkeypatch):
    """A worker process is killed while it has a job in hand; its lease lapses, the sweep brings it back."""
    number = _event(services)
    services.queue.enqueue(job_spec(JobKind.EVENT, number))
    script = (
        "import time; from maskloop_studio.runtime import tasks; from maskloop.store.jobs import JobKind\n"
        "tasks.WORK[JobKind.EVENT] = lambda *_: time.sleep(60)\n"
        "from maskloop_studio.cli.main import app; app(['worker', '--queue', 'intake'])"
    )
    environment = {
        **os.environ,
        "MASKLOOP_HOME": str(settings.home),
        "MASKLOOP_REDIS_URL": queue_url(settings),
    }
    worker = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        until(lambda: services.store.jobs.get(number).status is JobStatus.RUNNING, timeout_s=120)
        assert has_live_worker(connection)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert not has_live_worker(connection)
    assert services.store.jobs.claim(number, "too early") is None
    _lapse(services.store, number)
    monkeypatch.setattr(rq_queue, "CLAIM_PATIENCE", timedelta(0))
    assert jobs.sweep(jobs=services.store.jobs, queue=services.queue) == 1
    _work_off(connection)
    assert services.store.jobs.get(number).status is JobStatus.DONE


def test_schedule_puts_its_job_on_the_queue_as_json(services, connection):
    stop = threading.Event()
    services.store.projects.save(7, "<View/>")
    schedule = Schedule(name="sync", function="maskloop_studio.runtime.tasks.want_syncs", every_s=3600)
    clock = threading.Thread(target=run_cron, args=(connection, lambda: [schedule], stop))
    clock.start()
    try:
        until(lambda: services.queue.lengths()["intake"] == 1)
        assert has_live_scheduler(connection)
    finally:
        stop.set()
        clock.join()
    assert not has_live_scheduler(connection)
    job = RqJob.fetch("schedule-sync", connection=connection, serializer=JSONSerializer)
    assert (job.func_name, job.args) == ("maskloop_studio.runtime.tasks.want_syncs", [])
    jobs.want_syncs()
    assert [wanted.project_id for wanted in services.store.jobs.find(kind=JobKind.SYNC)] == [7]


def test_schedule_queue_away_is_waited_for(services, broker, connection, settings):
    broker.stop()
    stop = threading.Event()
    schedule = Schedule(name="sync", function="maskloop_studio.runtime.tasks.want_syncs", every_s=3600)
    clock = threading.Thread(target=run_cron, args=(connection, lambda: [schedule], stop))
    clock.start()
    again = EmbeddedBroker(settings)
    try:
        time.sleep(0.3)
        again.start()
        until(lambda: services.queue.lengths()["intake"] == 1)
    finally:
        stop.set()
        clock.join()
        again.stop()


def _shown(*arguments):
    result = CliRunner().invoke(app, ["jobs", *arguments])
    return result.exit_code, result.output


def test_jobs_command_lists_retries_drops_and_cancels(services):
    first, second = _event(services, "a"), _event(services, "b")
    for number in (first, second):
        services.store.jobs.claim(number, "me")
        services.store.jobs.fail(number, "me", "cannot be read", retry=False)
    code, text = _shown("list", "--json")
    assert code == 0
    assert [(job["name"], job["status"]) for job in json.loads(text)] == [
        (f"event-{first}", "dead"),
        (f"event-{second}", "dead"),
    ]
    assert f"event-{first}: cannot be read" in _shown("list")[1]
    assert _shown("drop", f"event-{second}")[0] == 0
    assert _shown("retry", "--all")[0] == 0
    assert services.store.jobs.counts() == {"waiting": 1, "dropped": 1}
    assert services.queue.lengths()["intake"] == 1
    assert _shown("cancel", str(first))[0] == 0
    assert services.store.jobs.get(first).status is JobStatus.CANCELLED
    assert _shown("list")[1] == "no such jobs\n"


@pytest.mark.parametrize("name", ["event-99", "training-1", "99999999999999999999", "no-such-thing"])
def test_jobs_command_unknown_job_is_wrong_usage(services, name):
    _event(services)
    code, text = _shown("retry", name)
    assert code == 2
    assert "no job" in text


def _lapse(store, number):
    from maskloop.store.sessions import now
    from maskloop.store.tables import JobRow

    with store._sessions.write() as session:
        session.get(JobRow, number).lease_until = now()


def test_schedules_follow_projects_and_their_options(services):
    assert [schedule.name for schedule in _schedules(services)] == ["sync"]
    for project_id in (7, 8):
        services.store.projects.save(project_id, "<View/>")
    services.store.projects.set_options(7, {"train_cron": "0 3 * * *"}, actor=MASKLOOP)
    assert [(schedule.name, schedule.cron) for schedule in _schedules(services)[1:]] == [
        ("training-7", "0 3 * * *")
    ]
    services.settings = services.settings.model_copy(update={"train_cron": "0 4 * * *"})
    assert [schedule.cron for schedule in _schedules(services)[1:]] == ["0 3 * * *", "0 4 * * *"]


def test_want_training_without_new_corrections_asks_for_none(services):
    jobs.want_training(7)
    assert services.store.trainings.of(7) == ()
