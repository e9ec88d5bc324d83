"""Counts of whole projects, each against the rows that the test made."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from maskloop.store.jobs import JobKind, NewEvent
from maskloop.store.scores import Arranged, ScoredTask
from maskloop.store.sessions import now


@pytest.fixture
def two_projects(store, keep):
    for number in (1, 2):
        store.projects.save(number, f"<View id='{number}'/>")
    first = keep(annotation_id=70, task_id=7)
    keep(annotation_id=71, task_id=8, split="holdout")
    keep(annotation_id=72, task_id=9, project_id=2)
    return first


def test_projects_count_their_own_annotations(store, two_projects):
    first, second = store.overview.projects([1, 2, 3])
    assert (first.project_id, first.label_config) == (1, "<View id='1'/>")
    assert (first.train, first.holdout, first.new_corrections) == (1, 1, 1)
    assert (second.train, second.holdout, second.new_corrections) == (1, 0, 1)


def test_projects_corrections_of_a_training_are_not_new(store, two_projects):
    training = store.jobs.request(JobKind.TRAINING, 1)
    store.trainings.begin(training, 1, through_version=two_projects)
    first, second = store.overview.projects([1, 2])
    assert (first.new_corrections, second.new_corrections) == (0, 1)
    store.jobs.cancel(training)
    assert store.overview.projects([1])[0].new_corrections == 1, "a cancelled training has learnt nothing"


def test_projects_count_jobs_and_what_is_set_aside(store, two_projects):
    store.corrections.set_aside(two_projects, "why", label_config="<View/>")
    (number,) = store.jobs.add_events([NewEvent(key="k", action="a", project_id=1, subject_ids=())])
    store.jobs.claim(number, "me")
    store.jobs.request(JobKind.SYNC, 1)
    store.jobs.fail(number, "me", "broken", retry=False)
    (counts,) = store.overview.projects([1])
    assert (counts.waiting, counts.running, counts.dead, counts.set_aside) == (1, 0, 1, 1)
    assert counts.new_corrections == 0, "nothing is learnt from what cannot be read"


def test_projects_count_boxes_of_submitted_annotations(store, keep, make_masks, make_segment):
    for number in (1, 2):
        store.projects.save(number, "<View/>")
    versions = [keep(annotation_id=70), keep(annotation_id=71), keep(annotation_id=72, state="skipped")]
    box = replace(make_segment(), is_box=True)
    for version in versions:
        store.corrections.save(version, make_masks(segments=(make_segment(), box, box)))
    assert [one.boxes for one in store.overview.projects([1, 2])] == [4, 0]


def test_holdout_tells_size_and_age(store, keep):
    assert store.overview.holdout(1).newest is None
    keep(annotation_id=70, split="holdout")
    keep(annotation_id=71, split="holdout", later_s=3600)
    keep(annotation_id=72, split="train", later_s=7200)
    state = store.overview.holdout(1)
    assert (state.annotations, state.judged) == (2, 0)
    assert state.newest - state.oldest == timedelta(hours=1)


def test_labels_by_day_counts_in_utc_and_leaves_old_ones_out(store, keep):
    today = now().replace(hour=23, minute=30)
    keep(annotation_id=70, updated_at=today)
    keep(annotation_id=71, updated_at=today - timedelta(hours=23, minutes=29))
    keep(annotation_id=72, updated_at=today - timedelta(days=100))
    (only,) = store.overview.labels_by_day(1)
    assert (only.day, only.annotations) == (date.fromisoformat(f"{today:%Y-%m-%d}"), 2)


def test_next_tasks_lowest_score_first_without_annotated_ones(store, keep):
    tasks = [ScoredTask(task_id=number, confidence=0.5, signals={"margin": 0.25}) for number in (7, 8, 9)]
    store.scores.add(1, "m-v1", tasks)
    places = [
        Arranged(task_id=number, score=score, cluster=3, queue=0, at_random=number == 9)
        for number, score in ((7, 0.1), (8, 0.9), (9, 0.4))
    ]
    store.scores.arrange(1, "m-v1", places)
    keep(task_id=7)
    found = store.overview.next_tasks(1, "m-v1")
    assert [(one.task_id, one.at_random) for one in found] == [(9, True), (8, False)]
    assert (found[0].signals, found[0].cluster, found[0].confidence) == ({"margin": 0.25}, 3, 0.5)


def test_corrections_stamp_changes_with_every_version_and_deletion(store, keep):
    stamps = [store.overview.corrections_stamp(1)]
    keep(annotation_id=70)
    stamps.append(store.overview.corrections_stamp(1))
    keep(annotation_id=70, later_s=5)
    stamps.append(store.overview.corrections_stamp(1))
    store.annotations.delete(1, annotation_ids=[70])
    stamps.append(store.overview.corrections_stamp(1))
    assert stamps[0] == stamps[3] == (0, 0)
    assert len(set(stamps)) == 3
