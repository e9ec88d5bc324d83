"""Jobs on a real Valkey: done once, never lost with the server, gone when finished."""

import os
import signal
import time

import pytest

from maskloop.errors import QueueError
from maskloop.queue.broker import EmbeddedBroker, connect_queue, queue_url
from maskloop.queue.jobs import JobSpec, MemoryQueue, QueueName, RqQueue


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


def test_broker_killed_keeps_the_jobs(settings, connection, broker):
    RqQueue(connection).enqueue(_spec())
    os.kill(int(connection.info()["process_id"]), signal.SIGKILL)
    _until(lambda: not broker.is_alive())
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


def test_broker_opens_no_port(connection):
    assert connection.config_get("port") == {"port": "0"}


def test_queue_url_long_home_still_fits_a_socket(settings, tmp_path):
    deep = settings.model_copy(update={"home": tmp_path / ("x" * 120)})
    assert len(queue_url(deep)) < 107
    assert queue_url(deep) != queue_url(settings)


def test_enqueue_without_server_raises_with_remedy(settings):
    with pytest.raises(QueueError, match="maskloop up"):
        RqQueue(connect_queue(settings)).enqueue(_spec())


def _work_off(connection):
    from rq import SimpleWorker
    from rq.serializers import JSONSerializer

    worker = SimpleWorker(
        [name.value for name in QueueName], connection=connection, serializer=JSONSerializer
    )
    worker.work(burst=True, logging_level="CRITICAL")


def _until(reached, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
