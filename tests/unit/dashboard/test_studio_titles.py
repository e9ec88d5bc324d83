"""Titles come when Label Studio answers; a page does not wait for one that does not."""

import threading
from types import SimpleNamespace

import pytest

from maskloop.errors import StudioError
from maskloop_studio.dashboard.studio_titles import FRESH_S, StudioTitles


class _Studio:
    def __init__(self):
        self.asked, self.titles = [], {1: "one", 2: "two"}
        self.may_answer = threading.Event()
        self.may_answer.set()

    def find_project(self, number):
        self.asked.append(number)
        self.may_answer.wait(60)
        if number == 9:
            raise StudioError("Label Studio", expected="an answer", got="none", remedy="start it")
        title = self.titles.get(number)
        return None if title is None else SimpleNamespace(title=title)


@pytest.fixture
def studio():
    return _Studio()


@pytest.fixture
def make_titles(studio):
    made = []

    def make(clock_s=lambda: 0.0):
        made.append(StudioTitles(lambda: studio, clock_s=clock_s))
        return made[-1]

    yield make
    studio.may_answer.set()
    for one in made:
        one.close()


def test_of_known_titles_are_asked_for_once_in_their_time(studio, make_titles):
    clock = [0.0]
    titles = make_titles(lambda: clock[0])
    for _ in range(3):
        assert titles.of([1, 2, 3], patience_s=30) == {1: "one", 2: "two"}
    assert sorted(studio.asked) == [1, 2, 3]
    studio.titles[1], clock[0] = "new", FRESH_S + 1
    assert titles.of([1], patience_s=30) == {1: "new"}


def test_of_without_an_answer_returns_at_once_and_asks_once(studio, make_titles):
    titles = make_titles()
    studio.may_answer.clear()
    assert titles.of([1], patience_s=0.01) == {}
    assert titles.of([1], patience_s=0.01) == {}
    studio.may_answer.set()
    assert titles.of([1], patience_s=30) == {1: "one"}
    assert studio.asked == [1]


def test_of_an_error_leaves_the_others_alone(make_titles):
    assert make_titles().of([9, 1], patience_s=30) == {1: "one"}
