"""What became of predicted regions is stored with the masks, and read by version."""

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


def test_empty_counts_leave_out_labelled_and_failed_tasks(store):
    tasks = [(1, 0, 0, False), (2, 3, 0, False), (3, 3, 2, False), (4, 0, 0, True)]
    scored = [
        ScoredTask(task_id=task, confidence=0.5, found=found, drawn=drawn, labelled=labelled)
        for task, found, drawn, labelled in tasks
    ]
    store.scores.add(1, "v1", [*scored, ScoredTask(task_id=5, error="no image")])
    assert store.scores.empty_counts(1, "v1") == EmptyCounts(tasks=3, finds_nothing=1, draws_nothing=2)
    assert [one.found for one in store.scores.pool_tasks(1, "v1")] == [0, 3, 3, 0]
