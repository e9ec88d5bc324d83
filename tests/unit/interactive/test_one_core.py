"""A click computes on one core, and takes none from anybody else."""

import threading

import pytest
import torch
from threadpoolctl import threadpool_limits

from maskloop.interactive import answer as answers
from maskloop.interactive.answer import find_answer
from maskloop.interactive.one_core import one_core
from maskloop.interactive.prompt import Click, Prompt


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


def test_one_core_is_this_threads_alone_and_ends_with_it():
    before = _threads_of_another()
    with one_core():
        assert torch.get_num_threads() == 1
        assert _threads_of_another() == before
    assert torch.get_num_threads() == 3


def test_one_core_error_inside_gives_the_cores_back():
    with pytest.raises(ValueError, match="inside"), one_core():
        raise ValueError("inside")
    assert torch.get_num_threads() == 3


def test_find_answer_computes_on_one_core(make_features, monkeypatch):
    seen = []
    choose = answers.choose_query

    def note(*arguments):
        seen.append(torch.get_num_threads())
        return choose(*arguments)

    monkeypatch.setattr(answers, "choose_query", note)
    clicks = (Click(x=0.19, y=0.33), Click(x=0.45, y=0.85, is_positive=False))
    assert find_answer(make_features(), Prompt(clicks=clicks)) is not None
    assert set(seen) == {1}
    assert torch.get_num_threads() == 3
