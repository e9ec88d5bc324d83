"""A time limit ends at its deadline or when the client is gone, and wakes the thread that waits."""

import threading
from concurrent.futures import Future

import pytest

from maskloop_studio.images.time_limit import TimeLimit


def _done(value):
    future = Future()
    future.set_result(value)
    return future


@pytest.mark.parametrize(
    ("seconds", "ended", "is_over"),
    [
        pytest.param(None, False, False, id="no deadline"),
        pytest.param(None, True, True, id="no deadline, client gone"),
        pytest.param(60.0, False, False, id="before the deadline"),
        pytest.param(60.0, True, True, id="before the deadline, client gone"),
        pytest.param(0.0, False, True, id="at the deadline"),
    ],
)
def test_is_over_by_deadline_or_client(seconds, ended, is_over):
    limit = TimeLimit(seconds)
    if ended:
        limit.end()
        limit.end()  # a second time changes nothing
    assert (limit.is_over, limit.is_client_gone) == (is_over, ended)


def test_wait_returns_what_is_done():
    done, open_one = _done(1), Future()
    assert TimeLimit(60.0).wait([done, open_one]) == {done}


def test_wait_without_anything_done_ends_at_the_deadline():
    assert TimeLimit(0.01).wait([Future()]) == set()


def test_wait_is_woken_when_the_client_is_gone():
    limit, waited = TimeLimit(), []
    thread = threading.Thread(target=lambda: waited.append(limit.wait([Future()])))
    thread.start()
    limit.end()
    thread.join(30)
    assert waited == [set()]
