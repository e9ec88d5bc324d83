"""Jobs on a real Valkey: done once, never lost with the server, gone when finished."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus
from tests.waiting import until

from maskloop.errors import QueueError
from maskloop.queue import workers
from maskloop.queue.durability import QueueDurability, queue_durability
from maskloop.queue.rq_queue import RqQueue
from maskloop.queue.spec import JobSpec, QueueName
from maskloop.queue.valkey import EmbeddedBroker, check_folder, connect_queue, queue_url
from maskloop.queue.workers import has_live_worker, run_worker, worker_states
from maskloop.testing.memory import MemoryQueue


def _spec(job_id="job-1", function="builtins.print", queue=QueueName.INTAKE, **arguments):
    return JobSpec(queue=queue, function=function, job_id=job_id, arguments=arguments)


@pytest.fixture(params=["rq", "memory"])
def queue(request):
    if request.param == "memory":
        return MemoryQueue()
    return RqQueue(request.getfixturevalue("connection"))


def test_enqueue_waiting_job_is_not_queued_twice(queue):
    assert queue.enqueue(_spec())
    assert not queue.enqueue(_spec())
    assert queue.enqueue(_spec("job-2"))
    assert queue.lengths()["intake"] == 2


def test_enqueue_after_the_job_failed_queues_it_again(connection):
    queue = RqQueue(connection)
    queue.enqueue(_spec(function="os.chdir", path="/no/such/folder"))
    _work_off(connection)
    assert queue.lengths()["intake"] == 0
    assert queue.enqueue(_spec())


def test_enqueue_after_the_job_is_done_queues_it_again(connection, tmp_path):
    queue = RqQueue(connection)
    for count in range(2):
        assert queue.enqueue(_spec(function="os.mkdir", path=str(tmp_path / f"made-{count}")))
        _work_off(connection)
    assert (tmp_path / "made-1").is_dir()


def test_broker_answers_when_a_job_is_on_disk(connection):
    """With "everysec" it may answer earlier, while the disk is busy: a kill then loses the job."""
    assert connection.config_get("append*")["appendonly"] == "yes"
    assert connection.config_get("appendfsync") == {"appendfsync": "always"}


@pytest.mark.parametrize(
    ("settings_of_server", "kept"),
    [
        ({}, QueueDurability(appends=True, fsync="always", evicts_by=None)),
        ({"appendfsync": "everysec"}, QueueDurability(appends=True, fsync="everysec", evicts_by=None)),
        ({"appendonly": "no"}, QueueDurability(appends=False, fsync="always", evicts_by=None)),
        # a policy without a bound deletes nothing
        (
            {"maxmemory-policy": "allkeys-lru"},
            QueueDurability(appends=True, fsync="always", evicts_by=None),
        ),
        (
            {"maxmemory-policy": "allkeys-lru", "maxmemory": "1gb"},
            QueueDurability(appends=True, fsync="always", evicts_by="allkeys-lru"),
        ),
    ],
)
def test_queue_durability_is_what_the_server_was_set_to(connection, settings_of_server, kept):
    for name, value in settings_of_server.items():
        connection.config_set(name, value)
    assert queue_durability(connection) == kept


def test_queue_durability_of_a_server_that_does_not_tell_its_settings(connection):
    connection.execute_command("ACL", "SETUSER", "default", "-config")
    assert queue_durability(connection).fsync is None


def test_broker_killed_keeps_the_jobs(settings, connection, broker):
    RqQueue(connection).enqueue(_spec())
    os.kill(int(connection.info()["process_id"]), signal.SIGKILL)
    until(lambda: not broker.is_alive())
    again = EmbeddedBroker(settings)
    again.start()
    try:
        assert RqQueue(connect_queue(settings)).lengths()["intake"] == 1
    finally:
        again.stop()


def test_broker_started_twice_is_adopted(settings, broker, connection):
    first = connection.info()["process_id"]
    EmbeddedBroker(settings).start()
    assert connection.info()["process_id"] == first


def test_broker_folder_is_closed_to_others(settings, broker):
    assert stat.S_IMODE((settings.home / "queue").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750], ids=["umask 022", "umask 027"])
def test_check_folder_that_others_can_only_read_is_closed(tmp_path, mode):
    tmp_path.chmod(mode)
    check_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def _make_writable(folder):
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (_make_writable, "others may write in it"),
        (lambda path: path.symlink_to("/tmp"), "a link or a file"),
        (lambda path: path.touch(), "a link or a file"),
    ],
    ids=["writable by all", "link", "file"],
)
def test_check_folder_not_ours_alone_raises(tmp_path, make, got):
    make(tmp_path / "queue")
    with pytest.raises(QueueError, match=got):
        check_folder(tmp_path / "queue")


def test_check_folder_of_another_user_raises(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(QueueError, match=f"got one of user {owner}"):
        check_folder(tmp_path)


def test_connect_queue_folder_of_others_is_refused_before_anything_is_sent(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    deep = settings.model_copy(update={"home": tmp_path / ("x" * 120)})
    Path(queue_url(deep).removeprefix("unix://")).parent.mkdir()
    Path(queue_url(deep).removeprefix("unix://")).parent.chmod(0o777)
    with pytest.raises(QueueError, match="others may write in it"):
        connect_queue(deep)


def test_broker_opens_no_port(connection):
    assert connection.config_get("port") == {"port": "0"}


def test_queue_url_long_home_still_fits_a_socket(settings, tmp_path):
    deep = settings.model_copy(update={"home": tmp_path / ("x" * 120)})
    assert len(queue_url(deep)) < 107
    assert queue_url(deep) != queue_url(settings)


@pytest.mark.parametrize("ask", [lambda queue: queue.enqueue(_spec()), lambda queue: queue.lengths()])
def test_queue_without_server_raises_with_remedy(settings, ask):
    with pytest.raises(QueueError, match="maskloop up"):
        ask(RqQueue(connect_queue(settings)))


def _work_off(connection):
    names = ("builtins.print", "os.chdir", "os.mkdir")
    queues = (QueueName.INTAKE, QueueName.PREDICT)
    run_worker(connection, queues, functions={name: name for name in names}, burst=True)


def test_broker_killed_while_it_starts_is_started_again(settings, monkeypatch):
    """A signal is no failure of its own: whoever starts the loop must not end for it."""
    from maskloop.queue import valkey as module

    spawned = []

    def spawn_and_kill_the_first(*args, **options):
        process = spawn(*args, **options)
        if not spawned:
            process.kill()
            process.wait()
        spawned.append(process)
        return process

    spawn = module.spawn
    monkeypatch.setattr(module, "spawn", spawn_and_kill_the_first)
    broker = EmbeddedBroker(settings)
    broker.start()
    assert len(spawned) == 2
    broker.stop()


def test_worker_whose_wish_to_stop_was_caught_elsewhere_stops_at_its_next_turn(settings, broker):
    """RQ raises it in a signal handler, in the middle of whatever runs; a job in hand is finished first."""
    worker = workers._WarmWorker(["predict"], connection=connect_queue(settings), serializer=JSONSerializer)
    worker.was_stopped = True
    worker.set_state(WorkerStatus.BUSY)
    worker.heartbeat()
    worker.set_state(WorkerStatus.IDLE)
    broker.stop()
    with pytest.raises(StopRequested):
        worker.heartbeat()


def test_worker_told_to_stop_without_a_queue_still_stops(settings, broker, tmp_path):
    """RQ notes the wish in the queue; one that is away must not undo it."""
    script = "from maskloop_studio.cli.main import app; app(['worker', '--queue', 'train'])"
    places = {"MASKLOOP_HOME": str(settings.home), "MASKLOOP_REDIS_URL": queue_url(settings)}
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, **places}, stderr=log)
    until(lambda: has_live_worker(connect_queue(settings)), timeout_s=30)
    (state,) = worker_states(connect_queue(settings))
    assert (state.pid, state.queues, state.job) == (worker.pid, ("train",), None)
    assert state.heartbeat_at.tzinfo is not None
    broker.stop()
    time.sleep(1)
    worker.terminate()
    assert worker.wait(30) in (0, -signal.SIGTERM)
