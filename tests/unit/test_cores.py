"""A thread computes on the cores that it is given, and takes none from anybody else."""

import threading

import pytest
import torch
from threadpoolctl import threadpool_limits

from maskloop.cores import on_cores


@pytest.fixture(autouse=True)
def three_threads():
    torch.get_num_threads()  # torch sets a thread's number at its first use
    with threadpool_limits(limits=3, user_api="openmp"):  # also where there is one core
        yield


def _threads_of_another():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_on_cores_is_this_threads_alone_and_ends_with_it():
    before = _threads_of_another()
    with on_cores(1):
        assert torch.get_num_threads() == 1
        assert _threads_of_another() == before
    assert torch.get_num_threads() == 3


def test_on_cores_error_inside_gives_the_cores_back():
    with pytest.raises(ValueError, match="inside"), on_cores(1):
        raise ValueError("inside")
    assert torch.get_num_threads() == 3


def test_on_cores_of_a_new_thread_stays_when_torch_first_computes():
    found = []

    def compute():
        with on_cores(2):
            torch.ones(64, 64) @ torch.ones(64, 64)
            found.append(torch.get_num_threads())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert found == [2]
