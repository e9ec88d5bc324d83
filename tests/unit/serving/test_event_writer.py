"""Events are durable before they are answered, share commits, and never wait for the queue."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
from tests.fakes.events import new_event

from maskloop.errors import QueueError, StoreError
from maskloop.store.jobs import JobKind
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.errors import OverloadedError
from maskloop_studio.serving.event_writer import EventWriter
from maskloop_studio.serving.outbox import Outbox


class Jobs:
    """Keeps batches; the first write waits until it is let go."""

    def __init__(self):
        self.batches = []
        self.go_on = threading.Event()
        self.error = None

    def add_events(self, events):
        self.go_on.wait(30)
        if self.error is not None:
            raise self.error
        known = {event.key for batch in self.batches for event in batch}
        self.batches.append(events)
        return [None if event.key in known else int(event.key) for event in events]

    def find(self, **_conditions):
        return ()  # no training runs

    def request(self, _kind, project_id, _reason):
        return 1000 + project_id


@pytest.fixture
def services():
    return SimpleNamespace(store=SimpleNamespace(jobs=Jobs()), queue=MemoryQueue())


def _make_writer(services):
    outbox = Outbox(lambda: services.queue)
    outbox.start()
    return EventWriter(lambda: services.store, outbox), outbox


async def _with_writer(services, use):
    writer, outbox = _make_writer(services)
    writer.start()
    try:
        return await use(writer)
    finally:
        services.store.jobs.go_on.set()
        await writer.stop()
        outbox.stop()


def test_writer_events_that_wait_share_a_commit(services):
    async def use(writer):
        adding = [asyncio.create_task(writer.add(new_event(str(number)))) for number in range(50)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in adding), "no event is answered before the commit"
        services.store.jobs.go_on.set()
        return await asyncio.gather(*adding)

    assert asyncio.run(_with_writer(services, use)) == list(range(50))
    assert len(services.store.jobs.batches) <= 2
    assert [job.job_id for job in services.queue.drain()] == [f"event-{number}" for number in range(50)]


def test_writer_known_event_is_not_queued_again(services):
    services.store.jobs.go_on.set()

    async def use(writer):
        return [await writer.add(new_event(str(7))) for _ in range(2)]

    assert asyncio.run(_with_writer(services, use)) == [7, None]
    assert len(services.queue.drain()) == 1


def test_writer_stopped_while_events_wait_answers_them_all(services):
    async def use(writer):
        adding = [asyncio.create_task(writer.add(new_event(str(number)))) for number in range(20)]
        await asyncio.sleep(0)
        stopping = asyncio.create_task(writer.stop())
        await asyncio.sleep(0.01)
        services.store.jobs.go_on.set()
        await stopping
        with pytest.raises(OverloadedError, match="end"):
            await writer.add(new_event(str(99)))
        return await asyncio.gather(*adding)

    async def run():
        writer, _ = _make_writer(services)
        writer.start()
        return await use(writer)

    assert asyncio.run(run()) == list(range(20))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StoreError("database", expected="an answer", got="none", remedy="wait"), id="database"),
        pytest.param(RuntimeError("a fault of ours"), id="fault"),
    ],
)
def test_writer_failed_commit_reaches_all_and_is_survived(services, error):
    jobs = services.store.jobs
    jobs.go_on.set()

    async def use(writer):
        jobs.error = error
        answers = await asyncio.gather(
            *(writer.add(new_event(str(n))) for n in range(3)), return_exceptions=True
        )
        jobs.error = None
        return answers, await writer.add(new_event(str(5)))

    answers, later = asyncio.run(_with_writer(services, use))
    assert [type(answer) for answer in answers] == [type(error)] * 3
    assert later == 5


def test_writer_client_gone_leaves_the_others_alone(services):
    async def use(writer):
        first, second = (asyncio.create_task(writer.add(new_event(str(number)))) for number in (1, 2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        services.store.jobs.go_on.set()
        return await second

    assert asyncio.run(_with_writer(services, use)) == 2


def test_writer_wanted_training_is_queued(services):
    async def use(writer):
        return await writer.want_training(3, "a button")

    assert asyncio.run(_with_writer(services, use)) == 1003
    assert [job.job_id for job in services.queue.drain()] == ["training-1003"]


def test_outbox_queue_down_asks_once_and_goes_on():
    asked = []

    def enqueue(job):
        asked.append(job.job_id)
        raise QueueError("queue", expected="an answer", got="none", remedy="wait")

    outbox = Outbox(lambda: SimpleNamespace(enqueue=enqueue))
    outbox.start()
    outbox.put([(JobKind.EVENT, number) for number in range(1000)])
    outbox.stop(patience_s=30)
    assert asked[0] == "event-0"
    assert len(asked) < 1000, "a queue that is down is not asked for every job"


def test_outbox_fault_of_one_job_leaves_the_others_alone(caplog):
    carried = []

    def enqueue(job):
        if job.job_id == "event-1":
            raise RuntimeError("a fault of ours")
        carried.append(job.job_id)

    outbox = Outbox(lambda: SimpleNamespace(enqueue=enqueue))
    outbox.put([(JobKind.EVENT, 1), (JobKind.TRAINING, 2)])
    outbox.start()
    outbox.stop(patience_s=30)
    assert carried == ["training-2"]
    assert "event-1" in caplog.text


def test_outbox_queue_that_hangs_is_left_behind():
    never = threading.Event()
    outbox = Outbox(lambda: SimpleNamespace(enqueue=lambda _job: never.wait(60)))
    outbox.start()
    outbox.put([(JobKind.EVENT, 1)])
    started = time.monotonic()
    outbox.stop(patience_s=0.05)
    assert time.monotonic() - started < 30
    never.set()
