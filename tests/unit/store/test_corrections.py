"""What became of predicted regions is stored with the masks, and read by version."""

import pytest

from maskloop.store.scores import EmptyCounts, ScoredTask
from maskloop.types import SegmentOutcome


def outcome(label):
    return SegmentOutcome(label=label, score=0.5, outcome="kept")


def test_outcomes_are_those_of_one_version_newest_first(store, make_snapshot, make_masks):
    cases = [("v1", "old"), ("v1", "new"), ("v2", "of another version"), ("v1", None)]
    for number, (tag, label) in enumerate(cases):
        saved = store.annotations.save(make_snapshot(annotation_id=number + 1, task_id=number))
        found = None if label is None else (outcome(label),)  # None: as an older maskloop stored it
        store.corrections.save(saved.version_id, make_masks(model_version=tag, outcomes=found))
    assert store.corrections.outcomes(1, "v1", newest=10) == (outcome("new"), outcome("old"))
    assert store.corrections.outcomes(1, "v1", newest=1) == (outcome("new"),)
    assert store.corrections.outcomes(2, "v1", newest=10) == ()


@pytest.mark.parametrize("known", [True, False], ids=["known", "stored by an older maskloop"])
def test_deleted_regions_come_back_as_they_were(store, make_snapshot, make_masks, make_segment, known):
    first, second = make_segment(score=0.75), make_segment(size=(3, 4), offset=(9, 1), label="square")
    saved = store.annotations.save(make_snapshot())
    store.corrections.save(saved.version_id, make_masks(deleted=(first, second) if known else None))
    for (correction,) in (store.corrections.of(1), store.corrections.at([saved.version_id])):
        found = [(one.label, one.score, one.offset_yx, one.mask_hw.shape) for one in correction.deleted]
        assert found == ([("disc", 0.75, (2, 3), (8, 10)), ("square", 1.0, (9, 1), (3, 4))] if known else [])
        assert all(one.mask_hw.all() for one in correction.deleted)
    (old,) = store.corrections.old_readings(1, reader_version=1, limit=10)
    assert (old.masks.deleted is None) == (not known)


def test_empty_counts_leave_out_labelled_and_failed_tasks(store):
    tasks = [(1, 0, 0, False), (2, 3, 0, False), (3, 3, 2, False), (4, 0, 0, True)]
    scored = [
        ScoredTask(task_id=task, confidence=0.5, found=found, drawn=drawn, labelled=labelled)
        for task, found, drawn, labelled in tasks
    ]
    store.scores.add(1, "v1", [*scored, ScoredTask(task_id=5, error="no image")])
    assert store.scores.empty_counts(1, "v1") == EmptyCounts(tasks=3, finds_nothing=1, draws_nothing=2)
    assert [one.found for one in store.scores.pool_tasks(1, "v1")] == [0, 3, 3, 0]
