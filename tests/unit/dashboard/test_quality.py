"""Outcomes of trainings as points of a chart, damaged ones too."""

import pytest

from maskloop.store.trainings import Training
from maskloop.types import version_number
from maskloop_studio.dashboard.quality import class_scores, quality_points

WHOLE = {
    "version": "maskloop-7-v3",
    "base": "maskloop-7-v2",
    "release": "refused",
    "reason": "why",
    "holdout_images": 24,
    "decision": {"before": 0.5, "after": 0.6, "interval": [-0.05, 0.2]},
    "challenger_metrics": {
        "ap50": 0.7,
        "pq": 0.5,
        "miou": 0.6,
        "per_class": {"disc": {"ap50": 0.9, "pq": 0.6, "iou": 0.6}, "ring": {"pq": 0.2, "images": 3.0}},
    },
}


def make_training(outcome, number=1):
    facts = {"step": 1, "steps": 1, "started_at": None, "finished_at": None, "error": None}
    return Training(training_id=number, project_id=7, reason="r", status="finished", outcome=outcome, **facts)


def test_quality_points_whole_outcome_gives_scores_and_bounds():
    (point,) = quality_points([make_training(WHOLE)])
    assert (point.number, point.release, point.images, point.score) == (3, "refused", 24, 0.6)
    assert (point.low, point.high) == (pytest.approx(0.45), pytest.approx(0.7))
    assert point.by_class == {"disc": pytest.approx(0.7), "ring": pytest.approx(0.2)}


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="empty"),
        pytest.param({"version": "<b>"}, id="no version"),
        pytest.param({"version": "m-v99999999999999999999"}, id="huge number"),
    ],
)
def test_quality_points_outcome_without_a_version_is_left_out(outcome):
    assert quality_points([make_training(outcome)]) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"decision": None}, id="no decision"),
        pytest.param(
            {"decision": {"before": "x", "after": float("nan"), "interval": [1]}}, id="damaged decision"
        ),
        pytest.param({"decision": [], "challenger_metrics": "text"}, id="other types"),
    ],
)
def test_quality_points_damaged_numbers_are_none(changes):
    (point,) = quality_points([make_training(WHOLE | changes)])
    assert (point.before, point.score, point.low, point.high) == (None, None, None, None)


def test_class_scores_worst_first_with_the_change():
    later = WHOLE | {
        "version": "maskloop-7-v4",
        "challenger_metrics": {"per_class": {"disc": {"pq": 0.5}, "ring": {"pq": 0.4}, "new": {"pq": 0.1}}},
    }
    rows = class_scores(quality_points([make_training(later, 2), make_training(WHOLE)]))
    assert [row.label for row in rows] == ["new", "ring", "disc"]
    assert [row.change for row in rows] == [None, pytest.approx(0.2), pytest.approx(-0.2)]
    assert class_scores([]) == []


@pytest.mark.parametrize(("tag", "number"), [("maskloop-7-v12", 12), ("x", 0), ("a-v", 0), ("a-v²", 0)])
def test_version_number_of_tags(tag, number):
    assert version_number(tag) == number
