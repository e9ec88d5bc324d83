"""Two hosts, each a home of its own, share one Redis and one PostgreSQL: every job is done, and done once."""

import os
import signal
import sys
import time

import pytest
from tests.fakes.http_studio import HttpStudio

from maskloop.processes import end, spawn
from maskloop.store.database import Store
from maskloop.store.jobs import JobStatus, NewEvent

PROJECT = 1
EVENTS = 60
BULK = 3  # annotations that one event names
ANSWER_S = 0.03
WORKERS = 2  # of each host
PATIENCE_S = 120.0
PARTS = (*(("worker", "--queue", "intake"),) * WORKERS, ("scheduler",))


class Host:
    """The processes of one machine."""

    def __init__(self, folder, **environment):
        self.log_path = folder / "parts.log"
        variables = {"PATH": os.environ["PATH"], "MASKLOOP_HOME": str(folder), **environment}
        self.parts = [
            spawn([sys.executable, "-m", "maskloop_studio", *part], log_path=self.log_path, env=variables)
            for part in PARTS
        ]

    @property
    def taken(self):
        """How many annotations its log names as stored."""
        return self.log_path.read_text().count(" annotation_stored ")

    def kill(self):
        for part in self.parts:
            os.killpg(part.pid, signal.SIGKILL)
            part.wait()

    def stop(self):
        for part in self.parts:
            if part.poll() is None:
                part.send_signal(signal.SIGTERM)
        for part in self.parts:
            end(part)


@pytest.fixture
def studio():
    started = HttpStudio(PROJECT, answer_s=ANSWER_S)
    yield started
    started.stop()


@pytest.fixture
def shared_store(postgres):
    with postgres.database() as url:
        store = Store(url)
        store.url = url
        yield store
        store.close()


@pytest.fixture
def hosts(tmp_path, shared_store, redis_server, studio):
    redis_server.clear()
    shared = {
        "MASKLOOP_DATABASE_URL": shared_store.url,
        "MASKLOOP_REDIS_URL": redis_server.url,
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "0" * 40,
    }
    started = [Host(tmp_path / name, **shared) for name in ("first", "second")]
    yield started
    for host in started:
        host.stop()


def _add_events(store):
    """Store events as the server does; only the two schedulers queue them."""
    events = [
        NewEvent(
            key=f"event-{number}",
            action="ANNOTATIONS_CREATED",
            project_id=PROJECT,
            subject_ids=tuple(range(BULK * number, BULK * (number + 1))),
        )
        for number in range(EVENTS)
    ]
    return store.jobs.add_events(events)


def _wait(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _done(store):
    return store.jobs.counts().get("done", 0)


def _assert_each_stands_once(store):
    known = store.annotations.known(PROJECT)
    assert set(known) == set(range(BULK * EVENTS))
    assert all(len(store.annotations.history(number)) == 1 for number in known)


def test_two_hosts_do_each_job_once(hosts, shared_store, studio):
    numbers = _add_events(shared_store)
    _wait(lambda: _done(shared_store) == EVENTS, shared_store.jobs.counts)
    _assert_each_stands_once(shared_store)
    assert set(studio.requests.values()) == {1}
    assert sum(host.taken for host in hosts) == BULK * EVENTS
    assert all(host.taken for host in hosts)
    assert {shared_store.jobs.get(number).attempts for number in numbers} == {0}


def test_two_hosts_one_killed_the_other_finishes(hosts, shared_store, studio):
    first, second = hosts
    _add_events(shared_store)
    _wait(lambda: _done(shared_store) >= EVENTS // 4 and first.taken, shared_store.jobs.counts)
    first.kill()
    _wait(lambda: _done(shared_store) == EVENTS, shared_store.jobs.counts)
    _assert_each_stands_once(shared_store)
    # Only what a killed worker had in hand is asked about again.
    again = [number for number, times in studio.requests.items() if times > 1]
    assert len({number // BULK for number in again}) <= WORKERS
    assert second.taken
    assert not shared_store.jobs.find(statuses=[JobStatus.RUNNING, JobStatus.WAITING, JobStatus.DEAD])
