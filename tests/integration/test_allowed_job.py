"""What a worker runs and what it refuses, on a real Valkey that anyone may have written to."""

import logging
import os
import zlib

import pytest
from rq import Queue
from rq.cron import CronJob
from rq.job import Callback, Dependency
from rq.serializers import JSONSerializer
from rq.utils import import_attribute
from rq.webhook import Webhook

from maskloop.errors import QueueError
from maskloop.queue.allowed_job import allow_functions
from maskloop.queue.spec import QueueName
from maskloop.queue.workers import has_live_scheduler, run_worker
from maskloop.store.jobs import JobStatus, NewEvent
from maskloop_studio.dispatch import JOB_FUNCTIONS, OLD_TASKS, TASKS
from maskloop_studio.runtime import tasks
from maskloop_studio.runtime.scheduler import read_schedules

OURS = f"{TASKS}.run"


def _schedules(services):
    return read_schedules(services.settings, services.store.projects)[0]


@pytest.fixture
def queue(connection):
    """The intake queue as somebody else would open it: RQ's own classes, without our rules."""
    return Queue(QueueName.INTAKE.value, connection=connection, serializer=JSONSerializer)


@pytest.fixture
def services(make_services, monkeypatch):
    made = make_services()
    monkeypatch.setattr(tasks, "process_services", lambda: made)
    return made


@pytest.fixture
def event(services):
    """A job in the database that a worker can do."""
    new = NewEvent(key="a", action="PROJECT_CREATED", project_id=1, subject_ids=(1,))
    (number,) = services.store.jobs.add_events([new])
    return number


def _work_off(connection):
    run_worker(connection, [QueueName.INTAKE], functions=JOB_FUNCTIONS, burst=True)


def _keys(connection):
    return {key.decode() for key in connection.keys("rq:job:*")}


@pytest.mark.parametrize("module", [TASKS, OLD_TASKS], ids=["today's path", "an older version's path"])
def test_worker_job_of_ours_runs(services, event, queue, connection, module):
    queue.enqueue_call(f"{module}.run", kwargs={"job_id": event})
    _work_off(connection)
    assert services.store.jobs.get(event).status is JobStatus.DONE


@pytest.mark.parametrize("name", ["want_syncs", "want_prelabelling", "want_training"])
def test_worker_schedule_of_an_older_version_runs(services, queue, connection, name):
    services.store.projects.save(7, "<View/>")
    arguments = {} if name == "want_syncs" else {"project_id": 7}
    queue.enqueue_call(f"{OLD_TASKS}.{name}", kwargs=arguments)
    _work_off(connection)
    assert (queue.finished_job_registry.count, queue.failed_job_registry.count) == (1, 0)


def test_job_functions_all_exist_and_cover_the_schedules(services):
    services.store.projects.save(7, "<View/>")
    services.settings = services.settings.model_copy(update={"train_cron": "0 3 * * *"})
    assert {schedule.function for schedule in _schedules(services)} <= set(JOB_FUNCTIONS)
    assert all(callable(import_attribute(name)) for name in JOB_FUNCTIONS.values())


FOREIGN = {
    "os.system": {"func": "os.system", "args": ("touch {marker}",)},
    "os.mkdir by name": {"func": "os.mkdir", "kwargs": {"path": "{marker}"}},
    "builtins": {"func": "builtins.exec", "args": ("open({marker!r}, 'w')",)},
    "success callback": {"func": OURS, "kwargs": {"job_id": 1}, "on_success": Callback("os.mkdir")},
    "failure callback": {"func": OURS, "kwargs": {"job_id": "?"}, "on_failure": Callback("os.mkdir")},
    "stopped callback": {"func": OURS, "kwargs": {"job_id": 1}, "on_stopped": Callback("os.mkdir")},
    "webhook": {"func": OURS, "kwargs": {"job_id": 1}, "webhooks": [Webhook("http://127.0.0.1:1", "failed")]},
    "unnamed arguments": {"func": OURS, "args": (1,)},
    "argument of arguments": {"func": OURS, "kwargs": {"job_id": {"a": 1}}},
    "our module, another function": {"func": f"{TASKS}.process_services"},
    "a name below ours": {"func": f"{OURS}.__globals__"},
    "empty name": {"func": "."},
}


@pytest.mark.parametrize("job", FOREIGN.values(), ids=FOREIGN.keys())
def test_worker_job_of_others_is_refused_and_removed(
    services, event, queue, connection, tmp_path, caplog, job
):
    marker = str(tmp_path / "made")
    args = tuple(str(value).format(marker=marker) for value in job.get("args", ()))
    kwargs = {
        name: value.format(marker=marker) if isinstance(value, str) else value
        for name, value in job.get("kwargs", {}).items()
    }
    caplog.set_level(logging.WARNING)
    queue.enqueue_call(**(job | {"args": args, "kwargs": kwargs}), job_id="foreign")
    _work_off(connection)
    assert "job_refused job_id=foreign queue=intake reason=" in caplog.text
    assert not os.path.exists(marker)
    assert not _keys(connection)
    assert connection.llen(queue.intermediate_queue_key) == 0
    assert services.store.jobs.get(event).status is JobStatus.WAITING


HASHES = {
    "pickle": {"data": b"cos\nsystem\n(S'touch /tmp/x'\ntR."},
    "instance": {"data": b'["run", "maskloop_studio.runtime.tasks", [], {"job_id": 1}]'},
    "compressed to a bomb": {"data": zlib.compress(b" " * 10**7)},
    "too few parts": {"data": b'["os.system"]'},
    "name that is no text": {"data": b'[["os.system"], null, [], {}]'},
    "time that is none": {"data": b"[]", "created_at": "yesterday"},
    "status that is none": {"data": b"[]", "status": "excellent"},
    "retries that are none": {"data": b"[]", "retries_left": "many"},
    "meta that is a pickle": {"data": b"[]", "meta": b"cos\nsystem\n(S'touch /tmp/x'\ntR."},
}


@pytest.mark.parametrize("fields", HASHES.values(), ids=HASHES.keys())
def test_worker_hash_of_others_is_refused_and_the_next_job_runs(
    services, event, queue, connection, caplog, fields
):
    connection.hset("rq:job:foreign", mapping={"origin": "intake", **fields})
    connection.rpush(queue.key, "foreign")
    queue.enqueue_call(OURS, kwargs={"job_id": event})
    _work_off(connection)
    assert "job_refused job_id=foreign" in caplog.text
    assert "rq:job:foreign" not in _keys(connection)
    assert services.store.jobs.get(event).status is JobStatus.DONE


def test_worker_job_that_waits_for_another_is_refused_when_its_turn_comes(
    services, event, queue, connection, tmp_path
):
    first = queue.enqueue_call(OURS, kwargs={"job_id": event})
    made = {"path": str(tmp_path / "made")}
    queue.enqueue_call("os.mkdir", kwargs=made, depends_on=Dependency([first], allow_failure=True))
    _work_off(connection)
    assert services.store.jobs.get(event).status is JobStatus.DONE
    assert not (tmp_path / "made").exists()
    assert _keys(connection) == {first.key}


def test_worker_job_of_rqs_own_cron_is_refused(services, queue, connection, tmp_path):
    entry = CronJob(queue_name="intake", func=os.mkdir, args=(str(tmp_path / "made"),), interval=1, name="x")
    entry.enqueue(connection)  # pickled
    _work_off(connection)
    assert not (tmp_path / "made").exists()
    assert not _keys(connection)


def test_has_live_scheduler_entries_of_others_raise_with_remedy(connection):
    connection.zadd("rq:cron_schedulers", {"x": 4e9})
    connection.hset("rq:cron_scheduler:x", mapping={"pid": "none"})
    with pytest.raises(QueueError, match="MASKLOOP_REDIS_URL"):
        has_live_scheduler(connection)


def test_func_of_a_refused_job_raises(connection):
    job = allow_functions({}).create("os.mkdir", connection=connection, serializer=JSONSerializer)
    with pytest.raises(QueueError, match="got the function"):
        _ = job.func
