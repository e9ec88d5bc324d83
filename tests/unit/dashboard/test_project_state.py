"""What a person is told to do next, by table."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from maskloop.store.overview import NextTask, ProjectCounts
from maskloop.store.sessions import now
from maskloop_studio.dashboard.judging import verdict_in_words
from maskloop_studio.dashboard.lookups import Roles
from maskloop_studio.dashboard.project_state import class_names, next_step, reasons_of, troubles_of


def make_counts(**changes):
    names = (
        "train",
        "holdout",
        "skipped",
        "new_corrections",
        "set_aside",
        "boxes",
        "waiting",
        "running",
        "dead",
    )
    values = dict.fromkeys(names, 0) | {"project_id": 7, "label_config": "<View/>"}
    return ProjectCounts(**(values | {"connected_at": now(), "missing_since": None} | changes))


STEPS = [
    pytest.param({}, {}, "Annotate in Label Studio", "studio", id="empty project"),
    pytest.param({"train": 9, "new_corrections": 4}, {}, "16 more annotations", "studio", id="some"),
    pytest.param({"train": 30, "new_corrections": 25}, {}, "a training starts", None, id="enough"),
    pytest.param({"train": 30}, {"challenger": 5}, "Version 5 was judged better", "versions/5", id="waits"),
    pytest.param({"train": 30}, {"shadow": 6}, "Version 6", "versions/6", id="shadow waits"),
    pytest.param({"dead": 2}, {"challenger": 5}, "failed jobs", "jobs", id="failures first"),
    pytest.param({"missing_since": now(), "dead": 2}, {}, "gone from Label Studio", None, id="gone"),
]


@pytest.mark.parametrize(("counts", "roles", "words", "link"), STEPS)
def test_next_step_by_table(settings, counts, roles, words, link):
    step = next_step(make_counts(**counts), roles=Roles(**roles), settings=settings)
    assert words in step.text
    assert step.link == link


DOUBT = "class disc 0.900 -> 0.500 on 4 images fell far: a person decides"
CHANCE = "likely better, but challenger 2 of the same champion: a person decides"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        pytest.param(
            {"decision": {"promote": True, "ask": False}, "reason": "score rose"},
            "was judged better",
            id="better",
        ),
        pytest.param(
            {"judged_by": "nobody", "reason": "not judged yet: 3 images"},
            "could not be judged (not judged yet: 3 images)",
            id="nobody",
        ),
        pytest.param(
            {"decision": {"ask": True}, "reason": f"score did not rise; {DOUBT}; {CHANCE}; a note"},
            "is left to a person (class disc 0.900 -> 0.500 on 4 images fell far; "
            "likely better, but challenger 2 of the same champion)",
            id="doubts",
        ),
        pytest.param(
            {"decision": {"ask": True}, "reason": "of an older release"},
            "is left to a person (of an older release)",
            id="other words",
        ),
        pytest.param({"version": "maskloop-7-v1"}, "was judged better", id="another version"),
        pytest.param(None, "was judged better", id="no outcome"),
    ],
)
def test_verdict_of_a_version_that_waits(outcome, words):
    trainings = [SimpleNamespace(outcome=outcome and {"version": "maskloop-7-v2"} | outcome)]
    assert verdict_in_words(trainings, "maskloop-7-v2") == words


def test_troubles_of_names_each_once():
    counts = make_counts(missing_since=now() - timedelta(days=3), dead=1, set_aside=4)
    found = troubles_of(counts, served=None, roles=Roles(trouble="registry away"), config_trouble="no image")
    assert len(found) == 5
    assert "(3 days)" in found[0]
    assert troubles_of(make_counts(), served=None, roles=Roles(), config_trouble=None) == []


def test_class_names_of_a_damaged_config_say_what_is_wrong():
    classes, trouble = class_names("<View><Image")
    assert classes == ()
    assert "label config" in trouble.lower()


TASKS = [
    pytest.param({"at_random": True, "signals": {"margin": 0.9}}, ["drawn by chance"], id="by chance"),
    pytest.param(
        {"signals": {"margin": 0.2, "entropy": 0.9, "border": 0.5}},
        ["unsure which class (90%)", "undecided outlines (50%)"],
        id="two strongest",
    ),
    pytest.param({"signals": {"disagreement": None}}, ["model is 30% sure"], id="no signal"),
    pytest.param(
        {"signals": {"other": 0.5}, "cluster": 3}, ["other (50%)", "stands for group 3"], id="group"
    ),
]


@pytest.mark.parametrize(("facts", "words"), TASKS)
def test_reasons_of_by_table(facts, words):
    values = {
        "task_id": 1,
        "score": 0.1,
        "confidence": 0.3,
        "signals": {},
        "cluster": None,
        "at_random": False,
    }
    reasons = reasons_of(NextTask(**(values | facts)))
    assert len(reasons) == len(words)
    assert all(reason.startswith(word) for reason, word in zip(reasons, words, strict=True))
