"""A project's corrections -> a snapshot, from a real database."""

from datetime import UTC, datetime

import numpy as np
import pytest

from maskloop.curation.snapshots.compare import compare_snapshots
from maskloop.curation.snapshots.freeze import FreezeRules, freeze_project
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.database import Store
from maskloop.types import AnnotationRule, EditCounts, Segment

LABELS = ("cat", "Cat", "dog")
RULES = FreezeRules(
    project_id=1,
    labels=LABELS,
    ignored_labels=frozenset({"blur"}),
    label_now=lambda label: {"hound": "dog", "gone": None}.get(label, label),
)


@pytest.fixture
def database(tmp_path):
    opened = Store(f"sqlite:///{tmp_path}/db.sqlite")
    yield opened
    opened.close()


def keep(database, *, annotation=70, task=7, minute=0, labels=("cat",), split="train", user=3, boxes=()):
    """Keep an annotation with one object of each label."""
    at = datetime(2026, 1, 2, 3, minute, tzinfo=UTC)
    saved = database.annotations.save(
        AnnotationSnapshot(
            annotation_id=annotation,
            project_id=1,
            task_id=task,
            updated_at=at,
            state="submitted",
            content={"result": list(labels), "completed_by": user},
            label_config="<View/>",
            split=split,
            read_at=at,
        )
    )
    segments = tuple(
        Segment(mask_hw=np.ones((3, 4), dtype=bool), offset_yx=(5 * k, 2), label=label, is_box=k in boxes)
        for k, label in enumerate(labels)
    )
    database.corrections.save(
        saved.version_id,
        DerivedMasks(
            image_key=f"{task:064x}",
            image_uri="/data/upload/1/same.png",
            size_hw=(40, 50),
            segments=segments,
            edits=EditCounts(added=len(labels)),
            model_version="maskloop-1-v2",
        ),
    )


def freeze(database, tmp_path, rules=RULES, **more):
    return freeze_project(
        database.corrections.by_task(1),
        rules,
        datasets=database.datasets,
        annotations=database.annotations,
        root=tmp_path / "snapshots",
        **more,
    )


def test_freeze_task_on_neither_side_is_left_out_and_named(database, tmp_path, caplog):
    keep(database, split="neither")
    keep(database, annotation=71, task=8)
    assert [one.image.task_id for one in freeze(database, tmp_path).images()] == [8]
    assert "task_left_out" in caplog.text


def test_freeze_names_version_annotator_split_and_model(database, tmp_path):
    keep(database, split="holdout")
    (one,) = freeze(database, tmp_path).images()
    image = one.image
    assert (image.split, image.annotator, image.model_version) == ("validation", 3, "maskloop-1-v2")
    assert (image.version_id, image.updated_at) == (1, "2026-01-02T03:00:00.000000+00:00")
    assert image.size_hw == (40, 50)


def test_freeze_again_is_the_same_snapshot(database, tmp_path):
    for task in (9, 7, 8):
        keep(database, annotation=100 - task, task=task)
    first, again = freeze(database, tmp_path), freeze(database, tmp_path)
    assert first == again
    items = [one.image.item for one in first.images()]
    assert items == sorted(items)
    assert len({one.image.file_name for one in first.images()}) == 3


@pytest.mark.parametrize(("rule", "label"), [(AnnotationRule.NEWEST, "cat"), (AnnotationRule.FIRST, "dog")])
def test_freeze_takes_the_annotation_that_counts(database, tmp_path, rule, label):
    keep(database, annotation=70, minute=1, labels=("dog",))
    keep(database, annotation=71, minute=2, labels=("cat",))
    rules = FreezeRules(project_id=1, labels=LABELS, rule=rule)
    (one,) = freeze(database, tmp_path, rules).images()
    assert [row.label for row in one.objects] == [label]


def test_freeze_keeps_kinds_apart_and_renames_labels(database, tmp_path):
    keep(database, labels=("cat", "hound", "gone", "blur", "", "new with the task"))
    (one,) = freeze(database, tmp_path).images()
    assert [(row.label, row.kind, row.category_id) for row in one.objects] == [
        ("cat", "object", 1),
        ("dog", "object", 3),
        ("gone", "unlabelled", None),
        ("blur", "ignored", None),
        ("", "unlabelled", None),
        ("new with the task", "object", 4),
    ]


def test_freeze_boxes_have_a_kind_of_their_own(database, tmp_path):
    keep(database, labels=("cat", "dog", "blur", ""), boxes=(1, 2, 3))
    (one,) = freeze(database, tmp_path).images()
    assert [row.kind for row in one.objects] == ["object", "box", "ignored", "unlabelled"]
    assert [row.category_id for row in one.drawn] == [1, 3]
    assert one.image.approximate


def test_category_numbers_stay_when_labels_come_go_and_move(database, tmp_path):
    keep(database)
    freeze(database, tmp_path)
    later = FreezeRules(project_id=1, labels=("aardvark", "dog", "cat"))
    categories = freeze(database, tmp_path, later).manifest.categories
    assert [(one.id, one.name) for one in categories] == [(1, "cat"), (3, "dog"), (4, "aardvark")]


def test_freeze_puts_predictions_in_the_place_of_missing_annotations_only(database, tmp_path):
    keep(database, task=7)
    (stand_in,) = database.corrections.by_task(1)
    predicted = [
        type(stand_in)(
            task_id=task,
            split="train",
            corrections=tuple(type(one)(**{**vars(one), "task_id": task}) for one in stand_in.corrections),
        )
        for task in (7, 8)
    ]
    rules = FreezeRules(project_id=1, labels=LABELS, include="predictions:v2")
    found = list(freeze(database, tmp_path, rules, predicted=predicted).images())
    assert [(one.image.task_id, one.image.source) for one in found] == [
        (7, "annotation"),
        (8, "prediction:v2"),
    ]


def test_compare_says_who_relabelled(database, tmp_path):
    keep(database, minute=1)
    before = freeze(database, tmp_path)
    keep(database, minute=2, labels=("dog",), user=12)
    diff = compare_snapshots(before, freeze(database, tmp_path))
    assert diff.by_annotator() == {12: {"relabelled": 1}}
    assert (diff.changes[0].before, diff.changes[0].after) == ("cat", "dog")
