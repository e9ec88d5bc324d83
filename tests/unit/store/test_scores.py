"""What versions think of tasks: kept once, arranged, told, forgotten."""

import numpy as np
import pytest

from maskloop.store import scores as scores_module
from maskloop.store.scores import Arranged, ScoredTask

OLD, TAG = "maskloop-1-v1", "maskloop-1-v2"
SIGNALS = {"entropy": 0.25, "margin": 0.5, "border": 0.0, "missing": 1.0, "disagreement": None}
REGIONS = [{"id": "r", "value": {"rle": [1, 2, 3]}}]


def _scored(task_id, confidence=0.5, **changes):
    values = {"signals": SIGNALS, "embedding_d": np.array([0.6, -0.8], np.float32), "regions": REGIONS}
    return ScoredTask(task_id=task_id, confidence=confidence, **(values | changes))


def _arranged(task_id, score=0.5, cluster=1, queue=2):
    return Arranged(task_id=task_id, score=score, cluster=cluster, queue=queue, at_random=False)


def _told(store):
    return {task.task_id: (task.score, task.queue, task.regions) for task in store.scores.pending(1, TAG)}


def test_add_keeps_what_a_version_says_once(store):
    store.scores.add(1, TAG, [_scored(7), _scored(8)])
    store.scores.add(1, TAG, [_scored(8, 0.9), _scored(9)])
    store.scores.add(1, OLD, [_scored(7, 0.1), _scored(7, 0.1)])
    assert store.scores.known(1, TAG, [6, 7, 8, 9]) == {7: False, 8: False, 9: False}
    pool = list(store.scores.pool_tasks(1, TAG))
    assert [(one.task_id, one.confidence) for one in pool] == [(7, 0.5), (8, 0.5), (9, 0.5)]
    np.testing.assert_allclose(pool[0].embedding_d, [0.6, -0.8], atol=1e-3)
    assert store.scores.versions(1) == {OLD, TAG}


def test_thoughts_more_than_a_batch_come_all(store, monkeypatch):
    monkeypatch.setattr(scores_module, "POOL_BATCH", 2)
    monkeypatch.setattr(scores_module, "ID_BATCH", 2)
    store.scores.add(1, TAG, [_scored(number) for number in range(1, 6)])
    store.scores.arrange(1, TAG, [_arranged(number) for number in range(1, 6)])
    assert [(one.task_id, one.cluster) for one in store.scores.pool_tasks(1, TAG)] == [
        (number, 1) for number in range(1, 6)
    ]


def test_to_tell_only_what_was_arranged_and_not_told(store):
    store.scores.add(1, TAG, [_scored(7), _scored(8), _scored(9, labelled=True), _scored(10)])
    assert _told(store) == {}
    store.scores.arrange(1, TAG, [_arranged(7), _arranged(8)])
    assert _told(store) == {7: (0.5, 2, REGIONS), 8: (0.5, 2, REGIONS)}
    assert store.scores.pending(1, TAG, after_id=7, limit=1)[0].task_id == 8
    store.scores.mark_pushed(1, TAG, [7])
    assert list(_told(store)) == [8]
    assert store.scores.counts(1, TAG) == (3, 1)


@pytest.mark.parametrize(
    ("arranged", "again"),
    [
        pytest.param(_arranged(7), {}, id="as it was"),
        pytest.param(_arranged(7, score=0.50001), {}, id="hardly moved"),
        pytest.param(_arranged(7, score=0.4), {7: (0.4, 2, None)}, id="another score"),
        pytest.param(_arranged(7, queue=3), {7: (0.5, 3, None)}, id="another cluster"),
    ],
)
def test_arrange_again_is_told_where_it_changed(store, arranged, again):
    store.scores.add(1, TAG, [_scored(7)])
    store.scores.arrange(1, TAG, [_arranged(7)])
    store.scores.mark_pushed(1, TAG, [7])
    store.scores.arrange(1, TAG, [arranged])
    assert _told(store) == again


def test_errors_are_told_and_tried_again(store):
    store.scores.add(1, TAG, [ScoredTask(task_id=7, error="no image"), _scored(8), _scored(9)])
    store.scores.arrange(1, TAG, [_arranged(8), _arranged(9)])
    store.scores.give_up(1, TAG, 8, "refused")
    assert store.scores.errors(1, TAG) == {7: "no image", 8: "refused"}
    assert list(_told(store)) == [9]
    store.scores.forget_errors(1, TAG)
    assert store.scores.known(1, TAG, [7, 8, 9]) == {9: False}


def test_note_labelled_keeps_the_embedding_only(store):
    store.scores.add(1, TAG, [_scored(7)])
    store.scores.arrange(1, TAG, [_arranged(7)])
    store.scores.note_labelled(1, TAG, [7])
    assert _told(store) == {}
    assert [one.labelled for one in store.scores.pool_tasks(1, TAG)] == [True]


def test_forget_versions_tasks_and_projects(store):
    for tag in (OLD, TAG):
        store.scores.add(1, tag, [_scored(7), _scored(8)])
    store.scores.add(2, TAG, [_scored(7)])
    store.scores.forget_tasks(1, [7], model_version=TAG)
    assert (store.scores.known(1, TAG, [7, 8]), len(store.scores.known(1, OLD, [7, 8]))) == ({8: False}, 2)
    store.scores.forget_tasks(1, [8])
    assert store.scores.versions(1) == {OLD}
    store.scores.retire_version(1, OLD)
    assert store.scores.versions(1) == frozenset()
    store.scores.forget_project(2)
    assert store.scores.versions(2) == frozenset()


def test_retire_version_keeps_where_annotated_tasks_had_been_put(store, make_snapshot):
    store.scores.add(1, OLD, [_scored(7), _scored(8), _scored(9, labelled=True)])
    store.scores.arrange(1, OLD, [_arranged(7), _arranged(8)])
    store.scores.mark_pushed(1, OLD, [7, 8])
    for number, task_id in ((70, 7), (90, 9)):
        store.annotations.save(make_snapshot(annotation_id=number, task_id=task_id))
    store.scores.retire_version(1, OLD)
    (kept,) = store.scores.pool_tasks(1, OLD)
    assert (kept.task_id, kept.score, kept.cluster, kept.embedding_d) == (7, 0.5, 1, None)
    assert store.annotations.labelled_tasks(1) == (9, 7)
    assert store.annotations.labelled_tasks(1, newest=1) == (9,)


def test_pushes_by_page_and_by_version(store):
    store.pushes.begin(1, 8, TAG)
    store.pushes.begin_many(1, [7, 8, 9], TAG)
    store.pushes.begin_many(1, [7], OLD)
    store.pushes.finish_many(1, TAG, {7: 70, 9: 90})
    store.pushes.finish_many(1, TAG, {})
    assert store.pushes.among(1, [7, 8], TAG) == {7: 70, 8: None}
    assert store.pushes.page(1, TAG, after_id=7, limit=1) == {8: None}
    assert store.pushes.versions(1) == (OLD, TAG)
    store.pushes.forget(1, [7, 8], model_version=TAG)
    assert (store.pushes.of(1, TAG), store.pushes.of(1, OLD)) == ({9: 90}, {7: None})
