"""Stored predictions lose the regions that corrections speak against; work in hand is left alone."""

import pytest

from maskloop.types import SegmentOutcome
from maskloop_studio.prelabel import run as run_module
from maskloop_studio.prelabel.run import prelabel_project
from maskloop_studio.prelabel.trim import kept_regions

V1 = "maskloop-1-v1"


def region(name, score, label="disc"):
    return {"id": name, "score": score, "type": "brushlabels", "value": {"brushlabels": [label]}}


def geometry(name, score):
    return {"id": name, "score": score, "type": "brush", "value": {"rle": []}}


@pytest.mark.parametrize(
    ("regions", "left"),
    [
        pytest.param([region("a", 0.9), region("b", 0.5)], ["a"], id="under the floor"),
        pytest.param([region("a", 0.7)], ["a"], id="at the floor"),
        pytest.param([region("a", 0.5, "star")], ["a"], id="another label"),
        pytest.param([geometry("a", 0.5), region("a", 0.5)], [], id="geometry and label apart"),
        pytest.param([{"id": "a"}, {"id": "b", "value": None}], ["a", "b"], id="not ours"),
    ],
)
def test_kept_regions_by_the_floor_of_their_label(regions, left):
    assert [one["id"] for one in kept_regions(regions, {"disc": 0.7})] == left


@pytest.fixture
def corrected(services, monkeypatch):
    """Annotators removed sixty regions with a score of .6 and kept five with .9."""
    seen = [SegmentOutcome(label="disc", score=0.6, outcome="removed")] * 60
    seen += [SegmentOutcome(label="disc", score=0.9, outcome="kept")] * 5
    monkeypatch.setattr(services.store.corrections, "outcomes", lambda *_, newest: tuple(seen))
    return seen


def test_prelabel_trims_stored_predictions_once(services, studio, corrected, monkeypatch):
    first, annotated, draft = studio.add_tasks(3)
    for task in (first, annotated, draft):
        number = studio.add_prediction(task, V1, result=[region("a", 0.9), region("b", 0.6)])
        services.store.pushes.begin(1, task, V1)
        services.store.pushes.finish_many(1, V1, {task: number})
    studio.annotations[annotated] = []
    studio.drafts.add(draft)
    monkeypatch.setattr(studio, "prediction", lambda number: studio.predictions[number], raising=False)
    report = prelabel_project(1, services)
    left = {one["task"]: [item["id"] for item in one["result"]] for one in studio.predictions.values()}
    assert left == {first: ["a"], annotated: ["a", "b"], draft: ["a", "b"]}
    assert (report.trimmed, report.kept_floors) == (1, {"disc": 0.9})


def test_prelabel_floors_as_before_reads_no_prediction(services, studio, corrected, monkeypatch):
    studio.add_tasks(2)
    monkeypatch.setattr(run_module, "are_raised", lambda floors, before: False)
    monkeypatch.setattr(run_module, "trim_stored", lambda *_args, **_others: pytest.fail("read them"))
    assert prelabel_project(1, services).trimmed == 0
