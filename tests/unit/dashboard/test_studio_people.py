"""Annotators have their names once Label Studio answers; a page does not wait for one that does not."""

import threading
from types import SimpleNamespace

import pytest

from maskloop.errors import StudioError
from maskloop_studio.dashboard.studio_people import FRESH_S, StudioPeople


class _Studio:
    def __init__(self):
        self.asked, self.failing = 0, False
        self.people = [SimpleNamespace(id=3, name="Ada", email="ada@example.com")]
        self.may_answer = threading.Event()
        self.may_answer.set()

    def users(self):
        self.asked += 1
        self.may_answer.wait(60)
        if self.failing:
            raise StudioError("Label Studio", expected="an answer", got="none", remedy="start it")
        return self.people


@pytest.fixture
def studio():
    return _Studio()


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def people(studio, clock):
    made = StudioPeople(lambda: studio, clock_s=lambda: clock[0])
    yield made
    studio.may_answer.set()
    made.close()


def test_names_are_asked_for_once_in_their_time(studio, people, clock):
    for _ in range(3):
        assert people.names(patience_s=30) == {3: "Ada"}
    assert studio.asked == 1
    studio.people, clock[0] = [SimpleNamespace(id=3, name="", email="ada@example.com")], FRESH_S + 1
    assert people.names(patience_s=30) == {3: "ada@example.com"}


def test_names_without_an_answer_returns_at_once_and_asks_once(studio, people):
    studio.may_answer.clear()
    assert people.names(patience_s=0.01) == {}
    assert people.names(patience_s=0.01) == {}
    assert studio.asked == 1


def test_names_of_a_studio_that_fails_stay_as_they_were(studio, people, clock):
    assert people.names(patience_s=30) == {3: "Ada"}
    studio.failing, clock[0] = True, FRESH_S + 1
    assert people.names(patience_s=30) == {3: "Ada"}
    assert studio.asked == 2
