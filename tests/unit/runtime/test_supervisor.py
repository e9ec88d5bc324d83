"""A second `maskloop up` in one home ends without touching the first one's processes; log files rotate."""

import pytest

from maskloop.errors import ResourceError
from maskloop.home import HomeLock
from maskloop.processes import find_free_port
from maskloop_studio.runtime import supervisor as supervisor_module
from maskloop_studio.runtime.supervisor import Supervisor


class _Broker:
    """Notes what is done to the queue's server."""

    def __init__(self, _settings):
        self.calls = []

    def __getattr__(self, name):
        return lambda *_args, **_named: self.calls.append(name)


@pytest.fixture
def make_supervisor(settings, monkeypatch):
    monkeypatch.setattr(supervisor_module, "EmbeddedBroker", _Broker)
    return lambda: Supervisor(settings, host="127.0.0.1", port=find_free_port())


def test_start_second_one_names_the_first_and_stops_nothing(make_supervisor, settings):
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = HomeLock(settings.home)
    lock.acquire("`maskloop up`, process 4711")
    second = make_supervisor()
    with pytest.raises(ResourceError, match="process 4711"):
        second.start()
    second.stop()
    lock.release()
    assert second._broker.calls == []


def test_stop_before_start_stops_nothing(make_supervisor):
    never_started = make_supervisor()
    never_started.stop()
    assert never_started._broker.calls == []


def test_watch_large_log_is_rotated(make_supervisor, settings):
    supervisor = make_supervisor()
    for name in ("logs/server.log", "queue/valkey.log"):
        path = settings.home / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * settings.log_mb * 2**20)
    supervisor._broker.is_alive = lambda: True
    supervisor.watch()
    for name in ("logs/server.log", "queue/valkey.log"):
        assert (settings.home / name).stat().st_size == 0
        assert (settings.home / f"{name}.1").stat().st_size == settings.log_mb * 2**20
