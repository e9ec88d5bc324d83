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
from maskloop_studio.serving.event_writer import Inbox
from maskloop_studio.serving.outbox import Carrier


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

    def request(self, _kind, project_id, _reason):
        return 1000 + project_id


@pytest.fixture
def services():
    return SimpleNamespace(store=SimpleNamespace(jobs=Jobs()), queue=MemoryQueue())


async def _with_inbox(services, use):
    inbox = Inbox(services)
    inbox.start()
    try:
        return await use(inbox)
    finally:
        services.store.jobs.go_on.set()
        await inbox.stop()


def test_inbox_events_that_wait_share_a_commit(services):
    async def use(inbox):
        adding = [asyncio.create_task(inbox.add(new_event(str(number)))) for number in range(50)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in adding), "nobody is answered before the commit"
        services.store.jobs.go_on.set()
        return await asyncio.gather(*adding)

    assert asyncio.run(_with_inbox(services, use)) == list(range(50))
    assert len(services.store.jobs.batches) <= 2
    assert [job.job_id for job in services.queue.drain()] == [f"event-{number}" for number in range(50)]


def test_inbox_known_event_is_not_queued_again(services):
    services.store.jobs.go_on.set()

    async def use(inbox):
        return [await inbox.add(new_event(str(7))) for _ in range(2)]

    assert asyncio.run(_with_inbox(services, use)) == [7, None]
    assert len(services.queue.drain()) == 1


def test_inbox_stopped_while_events_wait_answers_them_all(services):
    async def use(inbox):
        adding = [asyncio.create_task(inbox.add(new_event(str(number)))) for number in range(20)]
        await asyncio.sleep(0)
        stopping = asyncio.create_task(inbox.stop())
        await asyncio.sleep(0.01)
        services.store.jobs.go_on.set()
        await stopping
        with pytest.raises(OverloadedError, match="end"):
            await inbox.add(new_event(str(99)))
        return await asyncio.gather(*adding)

    async def run():
        inbox = Inbox(services)
        inbox.start()
        return await use(inbox)

    assert asyncio.run(run()) == list(range(20))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StoreError("database", expected="an answer", got="none", remedy="wait"), id="database"),
        pytest.param(RuntimeError("a fault of ours"), id="fault"),
    ],
)
def test_inbox_failed_commit_is_told_to_all_and_survived(services, error):
    jobs = services.store.jobs
    jobs.go_on.set()

    async def use(inbox):
        jobs.error = error
        adding = [inbox.add(new_event(str(number))) for number in range(3)]
        answers = await asyncio.gather(*adding, return_exceptions=True)
        jobs.error = None
        return answers, await inbox.add(new_event("5"))

    answers, later = asyncio.run(_with_inbox(services, use))
    assert [type(answer) for answer in answers] == [type(error)] * 3
    assert later == 5


def test_inbox_sender_who_left_harms_nobody(services):
    async def use(inbox):
        first, second = (asyncio.create_task(inbox.add(new_event(str(number)))) for number in (1, 2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        services.store.jobs.go_on.set()
        return await second

    assert asyncio.run(_with_inbox(services, use)) == 2


def test_inbox_wanted_training_is_queued(services):
    async def use(inbox):
        return await inbox.want_training(3, "a button")

    assert asyncio.run(_with_inbox(services, use)) == 1003
    assert [job.job_id for job in services.queue.drain()] == ["training-1003"]


def test_carrier_queue_down_asks_once_and_goes_on():
    asked = []

    def enqueue(job):
        asked.append(job.job_id)
        raise QueueError("queue", expected="an answer", got="none", remedy="wait")

    carrier = Carrier(SimpleNamespace(queue=SimpleNamespace(enqueue=enqueue)))
    carrier.start()
    carrier.put([(JobKind.EVENT, number) for number in range(1000)])
    carrier.stop(patience_s=30)
    assert asked[0] == "event-0"
    assert len(asked) < 1000, "a queue that is down is not asked for every job"


def test_carrier_fault_of_one_job_leaves_the_others_alone(caplog):
    carried = []

    def enqueue(job):
        if job.job_id == "event-1":
            raise RuntimeError("a fault of ours")
        carried.append(job.job_id)

    carrier = Carrier(SimpleNamespace(queue=SimpleNamespace(enqueue=enqueue)))
    carrier.put([(JobKind.EVENT, 1), (JobKind.TRAINING, 2)])
    carrier.start()
    carrier.stop(patience_s=30)
    assert carried == ["training-2"]
    assert "event-1" in caplog.text


def test_carrier_queue_that_hangs_is_left_behind():
    never = threading.Event()
    carrier = Carrier(SimpleNamespace(queue=SimpleNamespace(enqueue=lambda _job: never.wait(60))))
    carrier.start()
    carrier.put([(JobKind.EVENT, 1)])
    started = time.monotonic()
    carrier.stop(patience_s=0.05)
    assert time.monotonic() - started < 30
    never.set()
