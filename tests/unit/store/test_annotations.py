"""Annotations: every version kept, the newest stands, deletions followed, masks beside them."""

import threading
from datetime import timedelta

import numpy as np
import pytest

from maskloop.store import annotations
from maskloop.store.annotations import SaveStatus
from maskloop.store.database import Store
from maskloop.types import EditCounts


def test_save_comes_back_equal(store, make_snapshot):
    snapshot = make_snapshot(
        content={"result": [{"id": "r", "value": {"rle": [1, 2]}}], "note": "sehr schön \U0001f600"}
    )
    version = store.annotations.version(store.annotations.save(snapshot).version_id)
    assert version.content == snapshot.content
    assert version.label_config == "<View/>"
    assert (version.updated_at, version.state) == (snapshot.updated_at, "submitted")


@pytest.mark.parametrize(
    ("later_s", "stands"),
    [
        pytest.param(1, True, id="newer"),
        pytest.param(0, True, id="same-time-other-content"),
        pytest.param(-1, False, id="older"),
    ],
)
def test_save_newest_stands_and_history_is_kept(store, make_snapshot, later_s, stands):
    first = store.annotations.save(make_snapshot()).version_id
    second = store.annotations.save(make_snapshot(later_s=later_s, content={"result": []}))
    assert second.status == (SaveStatus.STORED if stands else SaveStatus.STALE)
    assert (second.version is not None) is stands
    assert len(store.annotations.history(70)) == 1 + stands
    assert store.annotations.version(first) is not None


def test_save_unchanged_is_no_new_version(store, make_snapshot):
    first, again = (store.annotations.save(make_snapshot()) for _ in range(2))
    assert first.version_id == again.version_id
    assert (first.status, again.status) == (SaveStatus.STORED, SaveStatus.UNCHANGED)


def test_save_back_to_older_content_is_a_version_of_its_own(store, make_snapshot):
    versions = [
        store.annotations.save(make_snapshot(later_s=second, content={"result": result}))
        for second, result in ((0, []), (1, [{"id": "r"}]), (2, []))
    ]
    assert len({saved.version_id for saved in versions}) == 3


def test_save_newer_kept_in_the_same_moment_stays(database_url, make_snapshot, monkeypatch):
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    slow, quick = Store(database_url), Store(database_url)
    look = annotations._find_version

    def overtaken(session, snapshot, digest):
        monkeypatch.setattr(annotations, "_find_version", look)
        quick.annotations.save(make_snapshot(later_s=3))
        return look(session, snapshot, digest)

    monkeypatch.setattr(annotations, "_find_version", overtaken)
    assert slow.annotations.save(make_snapshot(later_s=1)).version_id is None
    assert slow.annotations.known(1)[70].updated_at == make_snapshot(later_s=3).updated_at
    slow.close()
    quick.close()


def test_save_by_many_at_once_ends_with_the_newest(database_url, make_snapshot):
    stores = [Store(database_url) for _ in range(4)]
    threads = [
        threading.Thread(target=stores[index].annotations.save, args=(make_snapshot(later_s=index),))
        for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].annotations.known(1)[70].updated_at == make_snapshot(later_s=3).updated_at
    for opened in stores:
        opened.close()


def test_delete_hides_what_stays_in_the_history(store, make_snapshot, keep):
    keep()
    assert store.annotations.delete(2, annotation_ids=[70]) == 0
    assert store.annotations.delete(1, annotation_ids=[70], read_at=make_snapshot().read_at) == 1
    assert store.annotations.delete(1, annotation_ids=[70]) == 0
    assert store.annotations.known(1) == {}
    assert store.corrections.of(1) == ()
    assert len(store.annotations.history(70)) == 1


@pytest.mark.parametrize(
    ("read_s", "comes_back"),
    [
        pytest.param(59, False, id="asked-before-it-was-deleted"),
        pytest.param(61, True, id="seen-again-afterwards"),
    ],
)
def test_save_deleted_one_comes_back_only_if_seen_later(store, make_snapshot, read_s, comes_back):
    store.annotations.save(make_snapshot())
    store.annotations.delete(1, annotation_ids=[70], read_at=make_snapshot().read_at)
    again = store.annotations.save(make_snapshot(read_s=read_s)).version_id
    assert (again is not None) is comes_back
    assert (70 in store.annotations.known(1)) is comes_back


def test_delete_tasks_takes_their_annotations(store, keep):
    keep()
    keep(annotation_id=71)
    keep(annotation_id=72, task_id=8)
    assert store.annotations.delete(1, task_ids=[7]) == 2
    assert set(store.annotations.known(1)) == {72}
    assert store.annotations.delete_project(1) == 1


def test_delete_thousands_in_one_call(store, make_snapshot):
    for number in range(1200):
        if number % 100 == 0:
            store.annotations.save(make_snapshot(annotation_id=number))
    assert store.annotations.delete(1, annotation_ids=range(1200)) == 12


def test_skipped_one_is_known_and_no_correction(store, make_snapshot, make_masks):
    version = store.annotations.save(make_snapshot(state="skipped")).version_id
    assert store.annotations.known(1)[70].state == "skipped"
    store.corrections.save(version, make_masks())
    assert store.corrections.of(1) == ()
    assert store.corrections.count(1, split="train") == 0


def test_correction_comes_back_equal(store, make_snapshot, make_masks, keep):
    version = keep()
    (correction,) = store.corrections.of(1)
    masks = make_masks()
    assert (correction.version_id, correction.annotation_id, correction.task_id) == (version, 70, 7)
    assert (correction.image_key, correction.image_uri) == (masks.image_key, masks.image_uri)
    assert (correction.lead_time_s, correction.ground_truth) == (3.5, True)
    assert (correction.edits, correction.model_version) == (masks.edits, masks.model_version)
    assert correction.updated_at == make_snapshot().updated_at
    np.testing.assert_array_equal(correction.segments[0].mask_hw, masks.segments[0].mask_hw)


def test_corrections_without_masks_are_listed_as_underived(store, make_snapshot, make_masks):
    version = store.annotations.save(make_snapshot()).version_id
    assert not store.corrections.has(version)
    assert store.corrections.underived(1) == (version,)
    store.corrections.save(version, make_masks())
    store.corrections.save(version, make_masks(segments=()))
    assert store.corrections.underived(1) == ()
    assert store.corrections.of(1)[0].segments == ()


def test_count_after_a_version_counts_edits_as_new(store, keep):
    keep()
    seen = keep(annotation_id=71)
    assert store.corrections.count(1, split="train") == 2
    assert store.corrections.count(1, split="train", after_version=seen) == 0
    keep(later_s=1)
    assert store.corrections.count(1, split="train", after_version=seen) == 1
    assert store.corrections.count(1, split="holdout") == 0
    assert store.corrections.last_version(1) == seen + 1


def test_corrections_at_versions_are_what_they_were(store, make_masks, keep):
    old = keep()
    new = keep(later_s=1)
    store.corrections.save(new, make_masks(segments=()))
    store.annotations.delete(1, annotation_ids=[70])
    before, after = store.corrections.at([new, old, 999])
    assert (before.version_id, len(before.segments)) == (old, 1)
    assert (after.version_id, after.segments) == (new, ())


def test_stream_gives_every_correction_once_in_order(store, keep):
    for number in range(150):
        keep(annotation_id=number, split="holdout" if number % 3 == 0 else "train")
    train = [correction.annotation_id for correction in store.corrections.stream(1, split="train")]
    assert train == [number for number in range(150) if number % 3]
    assert len(store.corrections.of(1)) == 150


def test_stream_deletion_meanwhile_leaves_the_rest(store, keep):
    for number in range(100):
        keep(annotation_id=number)
    stream = store.corrections.stream(1)
    first = next(stream)
    store.annotations.delete(1, annotation_ids=[80])
    assert first.annotation_id == 0
    assert 80 not in {correction.annotation_id for correction in stream}


def test_known_times_are_aware(store, make_snapshot):
    store.annotations.save(make_snapshot())
    assert store.annotations.known(1)[70].updated_at.utcoffset() == timedelta(0)


def test_corrections_edited_tells_of_predictions_that_stand(store, keep, make_masks):
    keep()
    keep(annotation_id=71, task_id=8, state="skipped")
    from_nothing = keep(annotation_id=72, task_id=9)
    store.corrections.save(from_nothing, make_masks(model_version=None))
    keep(annotation_id=73, task_id=10, project_id=2)
    (edited,) = store.corrections.edited(1)
    assert (edited.task_id, edited.model_version, edited.lead_time_s) == (7, "maskloop-1-v1", 3.5)
    assert (edited.edits.kept, edited.edits.added) == (1, 2)


@pytest.mark.parametrize(
    ("completed_by", "annotator"),
    [
        pytest.param(3, 3, id="number"),
        pytest.param({"id": 4, "email": "a@b.c"}, 4, id="object"),
        pytest.param(None, None, id="none"),
        pytest.param("3", None, id="text"),
        pytest.param(True, None, id="no number"),
        pytest.param(2**70, None, id="too large for the database"),
    ],
)
def test_corrections_edited_names_the_annotator(store, keep, completed_by, annotator):
    keep(content={"result": [], "completed_by": completed_by})
    assert store.corrections.edited(1)[0].annotator == annotator


def test_corrections_edits_by_label_come_back_and_add_up(store, make_snapshot, make_masks):
    version_id = store.annotations.save(make_snapshot()).version_id
    disc, square = EditCounts(kept=2, changed=3, nudged=2, split=1), EditCounts(removed=1)
    total = disc + square
    pages = [
        make_masks(image_index=page, edits=total, label_edits={"disc": disc, "square": square})
        for page in (0, 1)
    ]
    store.corrections.save(version_id, *pages)
    (edited,) = store.corrections.edited(1)
    assert dict(edited.label_edits) == {"disc": disc + disc, "square": square + square}
    assert edited.edits == total + total
    assert [one.edits for one in store.corrections.of(1)] == [total, total]
