"""A prelabelling on a real queue: by a worker, and by the command where there is none."""

import json
import time

import pytest
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from tests.fakes.prelabel_studio import FakePipeline, PrelabelStudio, register_versions
from typer.testing import CliRunner

from maskloop.queue.rq_queue import RqQueue
from maskloop.queue.spec import QueueName
from maskloop.queue.workers import run_worker, served_queues
from maskloop.store.audit import MASKLOOP
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.testing.memory import MemoryRegistry
from maskloop_studio import services as services_module
from maskloop_studio.cli.main import app
from maskloop_studio.dispatch import JOB_FUNCTIONS, request
from maskloop_studio.prelabel import push as pushing
from maskloop_studio.projects.training import model_name
from maskloop_studio.runtime import tasks as jobs
from maskloop_studio.runtime.scheduler import read_schedules


def _schedules(services):
    return read_schedules(services.settings, services.store.projects)[0]


@pytest.fixture
def services(make_services, connection, tmp_path, monkeypatch):
    made = make_services()
    made.queue = RqQueue(connection)
    made.client = PrelabelStudio()
    made.registry = MemoryRegistry(tmp_path / "registry")
    register_versions(made.registry, model_name(1), tmp_path / "checkpoint")
    monkeypatch.setattr(jobs, "process_services", lambda: made)
    monkeypatch.setattr(services_module, "process_services", lambda: made)
    monkeypatch.setattr(pushing, "DELAYS_S", (0.0,))
    made.images = FakePipeline()
    return made


def _prelabel(*arguments):
    done = CliRunner().invoke(app, ["prelabel", "1", *arguments])
    return done.exit_code, done.stdout, done.exception


def test_renewal_by_a_worker_leaves_nothing_on_the_queue(services, connection):
    services.client.add_tasks(200)
    number = request(JobKind.PRELABEL, 1, "test", store=services.store, queue=services.queue)
    run_worker(connection, [QueueName.PREDICT], functions=JOB_FUNCTIONS, burst=True)
    assert services.store.jobs.get(number).status is JobStatus.DONE
    assert len(services.client.predictions) == 198
    assert services.queue.lengths()["predict"] == 0
    left, again = services.store.jobs.find()  # two tasks have no image: they are tried again later
    assert (left.job_id, again.status, again.kind) == (number, JobStatus.WAITING, JobKind.PRELABEL)
    assert again.due_at > left.finished_at
    assert again.action.startswith("2 tasks could not be predicted: task 99: ")


def test_prelabel_command_without_a_worker_does_it_itself(services, connection):
    services.client.add_tasks(12)
    assert not served_queues(connection)
    code, told, _ = _prelabel("--json")
    assert (code, json.loads(told)["pushed"]) == (0, 12)
    services.client.add_tasks(2)
    assert _prelabel()[1].startswith("maskloop-1-v1: pushed 2 predictions in ")


def test_prelabel_command_leaves_it_to_the_workers_where_there_is_one(services, connection):
    worker = SimpleWorker([QueueName.PREDICT.value], connection=connection, serializer=JSONSerializer)
    worker.register_birth()
    assert served_queues(connection) == {QueueName.PREDICT.value: 1}
    code, told, _ = _prelabel("--no-wait", "--json")
    assert (code, json.loads(told)) == (0, {"job": "prelabel-1"})
    assert services.store.jobs.get(1).status is JobStatus.WAITING
    worker.register_death()


def test_prelabel_command_that_is_cancelled_says_so(services):
    services.client.add_tasks(1)
    services.client.before_create = lambda _task_id: services.store.jobs.cancel(1)
    services.client.after_create = lambda _task_id: time.sleep(5)  # until its next sign of life
    code, _, error = _prelabel()
    assert code == 1
    assert "prelabel-1: expected success, got cancelled" in str(error)


def test_schedule_of_a_project_asks_for_a_prelabelling(services):
    services.store.projects.save(7, "<View/>")
    services.settings = services.settings.model_copy(update={"prelabel_cron": "0 5 * * *"})
    (found,) = [one for one in _schedules(services) if one.name == "prelabelling-7"]
    assert (found.cron, found.function) == ("0 5 * * *", "maskloop_studio.runtime.tasks.want_prelabelling")
    services.store.projects.set_options(7, {"prelabel_cron": "0 6 * * *"}, actor=MASKLOOP)
    assert [one.cron for one in _schedules(services) if one.name == "prelabelling-7"] == ["0 6 * * *"]
    jobs.want_prelabelling(7)
    assert [job.project_id for job in services.store.jobs.find(kind=JobKind.PRELABEL)] == [7]
