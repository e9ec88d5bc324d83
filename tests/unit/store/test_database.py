"""The database keeps events, corrections, trainings and pushes as they were said."""

import dataclasses
import threading
from datetime import timedelta

import numpy as np
import pytest

from maskloop.errors import StoreError
from maskloop.store.database import Store
from maskloop.store.events import MAX_ATTEMPTS


def _event(store, key="a", **changes):
    values = {"key": key, "action": "ANNOTATION_CREATED", "project_id": 1, "subject_ids": [70]} | changes
    return store.events.add(**values)


def test_add_event_told_twice_is_kept_once(store):
    first = _event(store)
    assert first is not None
    assert _event(store) is None
    assert [event.event_id for event in store.events.due()] == [first]


def test_event_finished_is_no_longer_due(store):
    number = _event(store)
    store.events.finish(number)
    assert store.events.due() == ()
    assert store.events.get(number) is None
    assert store.events.counts() == {"done": 1}


def test_fail_event_waits_longer_then_dies(store):
    number = _event(store)
    statuses = [store.events.fail(number, "Label Studio is away") for _ in range(MAX_ATTEMPTS)]
    assert statuses == ["pending"] * (MAX_ATTEMPTS - 1) + ["dead"]
    assert store.events.due() == ()


def test_save_correction_comes_back_equal(store, make_correction):
    correction = make_correction()
    assert store.corrections.save(correction, split="train", sequence=1, result="[]")
    (again,) = store.corrections.of(1)
    for field in dataclasses.fields(correction):
        if field.name != "segments":
            assert getattr(again, field.name) == getattr(correction, field.name)
    np.testing.assert_array_equal(again.segments[0].mask_hw, correction.segments[0].mask_hw)
    assert again.segments[0].offset_yx == correction.segments[0].offset_yx


@pytest.mark.parametrize(
    ("later", "kept"),
    [
        pytest.param(1, True, id="newer"),
        pytest.param(0, False, id="same"),
        pytest.param(-1, False, id="older"),
    ],
)
def test_save_correction_newest_wins(store, make_correction, later, kept):
    first = make_correction()
    store.corrections.save(first, split="train", sequence=1, result="[]")
    second = make_correction(updated_at=first.updated_at + timedelta(seconds=later), segments=())
    assert store.corrections.save(second, split="train", sequence=2, result="[]") is kept
    (now,) = store.corrections.of(1)
    assert (now.segments == ()) is kept


def test_delete_corrections_hides_until_saved_again(store, make_correction):
    correction = make_correction()
    store.corrections.save(correction, split="train", sequence=1, result="[]")
    assert store.corrections.delete(annotation_ids=[70], project_id=2) == 0
    assert store.corrections.delete(annotation_ids=[70], project_id=1) == 1
    assert store.corrections.of(1) == ()
    assert store.corrections.save(correction, split="train", sequence=2, result="[]")
    assert len(store.corrections.of(1)) == 1


def test_request_training_waiting_one_serves_the_next_wish(store):
    first = store.trainings.request(1, "button")
    assert store.trainings.request(1, "20 new corrections") == first
    store.trainings.start(first, through_sequence=9)
    second = store.trainings.request(1, "button")
    assert second != first
    assert store.trainings.trained_through(1) == 9
    assert store.trainings.request(2, "button") not in (first, second)


def test_request_training_many_at_once_make_one(settings):
    stores = [Store(settings.resolved_database_url) for _ in range(4)]
    numbers = []
    threads = [
        threading.Thread(target=lambda opened=opened: numbers.append(opened.trainings.request(1, "button")))
        for opened in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 4
    assert len(set(numbers)) == 1
    for opened in stores:
        opened.close()


def test_training_progress_and_outcome_come_back(store):
    number = store.trainings.request(1, "button")
    store.trainings.start(number, through_sequence=1)
    store.trainings.note_progress(number, step=3, steps=10)
    store.trainings.finish(number, {"promoted": True})
    training = store.trainings.get(number)
    assert training is not None
    assert (training.status, training.step, training.outcome) == ("finished", 3, {"promoted": True})


def test_pushed_tasks_unfinished_push_stays_in_doubt(store):
    store.pushes.begin(1, 7, "v1")
    store.pushes.begin(1, 7, "v1")
    store.pushes.begin(1, 8, "v1")
    store.pushes.finish(1, 8, "v1", 800)
    assert store.pushes.of(1, "v1") == {7: None, 8: 800}
    assert store.pushes.of(1, "v2") == {}


def test_forget_pushes_task_number_can_be_used_again(store):
    for task_id in (7, 8):
        store.pushes.begin(1, task_id, "v1")
        store.pushes.finish(1, task_id, "v1", 10 * task_id)
    store.pushes.forget(1, [7])
    assert store.pushes.of(1, "v1") == {8: 80}


def test_store_many_writers_lose_nothing(settings):
    stores = [Store(settings.resolved_database_url) for _ in range(4)]

    def write(index):
        for number in range(25):
            _event(stores[index], key=f"{index}-{number}")

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].events.counts() == {"pending": 100}
    for opened in stores:
        opened.close()


def test_store_unknown_database_raises_with_remedy():
    with pytest.raises(StoreError, match="MASKLOOP_DATABASE_URL"):
        Store("nosuchdatabase://host/name")
