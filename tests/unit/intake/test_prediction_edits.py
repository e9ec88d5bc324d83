"""Edits of a prediction are counted by geometry; by `origin` only where nothing can be compared."""

import pytest
from tests.unit.intake.conftest import box_mask, brush, unreadable

from maskloop.store.jobs import JobKind, JobStatus
from maskloop.store.scores import ScoredTask
from maskloop.types import EditCounts
from maskloop_studio.intake import reading

NUDGED = EditCounts(changed=1, nudged=1)


@pytest.fixture
def predict(studio):
    """Give annotation 70 a prediction."""

    def do(*regions):
        prediction = {"id": 9, "model_version": "maskloop-1-v1", "result": list(regions)}
        studio.prediction = lambda number: prediction if number == 9 else None
        studio.annotations[70] |= {"parent_prediction": 9, "completed_by": 3, "lead_time": 12.5}

    return do


def wider(mask):
    mask[6:11, 12] = True  # 45 pixels in place of 40: IoU .89
    return mask


def moved():
    return box_mask(left=20)


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [
        pytest.param([brush(origin="prediction")], EditCounts(kept=1), id="untouched"),
        pytest.param([brush(origin="prediction-changed")], EditCounts(kept=1), id="touched, not changed"),
        pytest.param([brush(origin="prediction", mask=wider(box_mask()))], NUDGED, id="origin not updated"),
        pytest.param([brush(origin="manual", id="new")], EditCounts(kept=1), id="drawn again alike"),
        pytest.param([brush(mask=moved())], EditCounts(added=1, removed=1), id="elsewhere"),
        pytest.param([], EditCounts(removed=1), id="deleted"),
    ],
)
def test_take_counts_edits_by_geometry(studio, parts, take, predict, annotated, expected):
    studio.annotate(annotated)
    predict(brush())
    take(70)
    (correction,) = parts.store.corrections.of(1)
    assert correction.edits == expected
    (edited,) = parts.store.corrections.edited(1)
    assert (edited.annotator, edited.lead_time_s, edited.model_version) == (3, 12.5, "maskloop-1-v1")
    assert dict(edited.label_edits) == {"disc": expected}


@pytest.mark.parametrize(
    ("annotated", "deleted"),
    [
        pytest.param([], [4, 20], id="both"),
        pytest.param([brush(mask=wider(box_mask()))], [20], id="one changed, one deleted"),
        pytest.param([brush(), brush(id="r2", mask=moved())], [], id="none"),
    ],
)
def test_take_keeps_the_masks_of_deleted_regions(studio, parts, take, predict, annotated, deleted):
    studio.annotate(annotated)
    predict(brush(), brush(id="r2", mask=moved()))
    take(70)
    (correction,) = parts.store.corrections.of(1)
    assert sorted((one.offset_yx, one.area) for one in correction.deleted) == [
        ((6, left), 40) for left in deleted
    ]


def test_take_blind_image_has_no_deleted_regions(studio, parts, take, predict, monkeypatch):
    """Nobody was shown what is predicted there."""
    monkeypatch.setattr(reading, "is_blind", lambda *_: True)
    studio.annotate([])
    predict(brush())
    take(70)
    (correction,) = parts.store.corrections.of(1)
    assert (correction.deleted, correction.edits.removed) == ((), 0)


def test_take_unreadable_prediction_counts_by_origin_and_says_so(studio, parts, take, predict, caplog):
    studio.annotate([brush(origin="prediction-changed")])
    predict(unreadable())
    take(70)
    (edited,) = parts.store.corrections.edited(1)
    assert (edited.edits, dict(edited.label_edits)) == (EditCounts(changed=1), {})
    assert "edits_counted_by_origin" in caplog.text


def test_take_on_a_trial_edits_count_for_the_version_that_drew(studio, parts, take, predict):
    drawn = ScoredTask(task_id=7, confidence=0.5, signals={}, made_by="maskloop-1-v0")
    parts.store.scores.add(1, "maskloop-1-v1", [drawn])
    studio.annotate([brush(origin="prediction")])
    predict(brush())
    take(70)
    (edited,) = parts.store.corrections.edited(1)
    assert (edited.task_id, edited.model_version) == (7, "maskloop-1-v0")


def test_take_prediction_gone_counts_by_origin(studio, parts, take, predict):
    studio.annotate([brush(origin="prediction")])
    predict(brush())
    studio.prediction = lambda number: None
    take(70)
    (correction,) = parts.store.corrections.of(1)
    assert (correction.edits, correction.model_version) == (EditCounts(kept=1), None)


def test_take_few_regions_kept_asks_for_a_trimming_once(studio, parts, take, predict):
    studio.model_version = "maskloop-1-v1"
    masks = [box_mask(left=4 * place, top=top) for place in range(3) for top in (0, 10)]
    studio.annotate([])
    predict(*(brush(id=f"r{at}", mask=mask, score=0.7) for at, mask in enumerate(masks)))
    job_id = parts.store.jobs.request(JobKind.PRELABEL, 1, "before")
    parts.store.jobs.claim(job_id, "worker")
    done = {"model_version": "maskloop-1-v1", "kept_floors": {}}
    parts.store.jobs.finish(job_id, "worker", outcome=done)
    take(70)
    found = parts.store.corrections.outcomes(1, "maskloop-1-v1", newest=10)
    assert [(one.score, one.outcome) for one in found] == [(0.7, "removed")] * 6
    (waiting,) = parts.store.jobs.find(kind=JobKind.PRELABEL, statuses=[JobStatus.WAITING])
    assert waiting.action == "annotators keep too few of the regions of disc"
