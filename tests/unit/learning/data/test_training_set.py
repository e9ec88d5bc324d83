"""From corrections to examples: classes, ignored labels, fresh examples, the holdout."""

from dataclasses import replace

import pytest

from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.index_map import FIRST_DELETED, draw_index_map
from maskloop.learning.data.training_set import (
    LabelPlan,
    build_training_set,
    corrections_to_examples,
    observed_kinds,
    other_annotations,
)
from maskloop.store.images import ImageCache
from maskloop.types import UNLABELLED


def test_label_plan_alias_keeps_the_class_and_new_labels_are_added():
    plan = LabelPlan(labels=("Auto", "Tree", "Wagen"), class_of_label={"Auto": "car", "Wagen": "car"})
    assert plan.classes == ("car", "Tree")
    assert plan.class_for("Wagen") == "car"


def test_label_plan_without_ignored_labels_has_no_class_for_them():
    plan = LabelPlan(labels=("disc", "unclear"), class_of_label={})
    assert plan.without({"unclear"}).classes == ("disc",)


@pytest.mark.parametrize("label", ["unclear", UNLABELLED], ids=["ignored label", "no label"])
def test_corrections_to_examples_ignored_labels_become_areas(tmp_path, make_correction, make_segment, label):
    segments = (make_segment(label="disc"), make_segment(label=label))
    corrections = [make_correction(version_id=number, segments=segments) for number in (1, 2)]
    old, new = corrections_to_examples(
        corrections,
        plan=LabelPlan(labels=("disc",), class_of_label={"disc": "circle"}),
        image_cache=ImageCache(tmp_path),
        ignored_labels={"unclear"},
        learnt_versions={1},
    )
    assert [segment.label for segment in old.segments] == ["circle"]
    assert [segment.label for segment in old.ignored] == [label]
    assert (old.fresh, new.fresh) == (False, True)


def test_corrections_to_examples_deleted_regions_are_masks_of_labels_that_are_learnt(
    tmp_path, make_correction, make_segment
):
    deleted = [make_segment(label=label) for label in ("disc", "unclear", UNLABELLED, "other")]
    drawn_as_box = replace(make_segment(), is_box=True)
    (example,) = corrections_to_examples(
        [make_correction(deleted=(*deleted, drawn_as_box))],
        plan=LabelPlan(labels=("disc",), class_of_label={"disc": "circle"}),
        image_cache=ImageCache(tmp_path),
        ignored_labels={"unclear"},
        learnt_versions=(),
    )
    assert example.deleted == (deleted[0], deleted[3])


def test_corrections_to_examples_more_deleted_regions_than_an_index_map_numbers_are_cut(
    tmp_path, make_correction, make_segment
):
    one = make_segment()
    (example,) = corrections_to_examples(
        [make_correction(deleted=(one,) * 40_000)],
        plan=LabelPlan(labels=("disc",), class_of_label={"disc": "circle"}),
        image_cache=ImageCache(tmp_path),
        ignored_labels=(),
        learnt_versions=(),
    )
    index_hw, _ = draw_index_map((), size_hw=(20, 40), max_objects=5, deleted=example.deleted)
    assert index_hw.min() <= FIRST_DELETED


def test_build_training_set_keeps_the_holdout_apart(settings, tmp_path, make_correction):
    training_set = build_training_set(
        [make_correction(task_id=1)],
        [make_correction(task_id=3)],
        plan=LabelPlan(labels=("disc",), class_of_label={}),
        learnt_versions=(),
        image_cache=ImageCache(tmp_path),
        settings=settings,
    )
    assert [one.task_id for one in training_set.train] == [1]
    assert [one.key.split("/")[1] for one in training_set.examples] == ["1"]
    assert [one.key.split("/")[1] for one in training_set.holdout_examples] == ["3"]
    assert training_set.validation == ()
    assert "holdout of 1 images" in training_set.holdout_gaps


def test_build_training_set_boxes_are_apart_and_judge_nothing_alone(
    settings, tmp_path, make_correction, make_segment
):
    mask, box = make_segment(), replace(make_segment(), is_box=True)
    nameless = make_segment(label="")
    training_set = build_training_set(
        [make_correction(task_id=1, segments=(mask, box)), make_correction(task_id=2, segments=(box, box))],
        [
            make_correction(task_id=3, segments=(mask, box)),
            make_correction(task_id=4, segments=(box,)),
            make_correction(task_id=5, segments=(box, nameless)),
            make_correction(task_id=6, segments=()),
        ],
        plan=LabelPlan(labels=("disc",), class_of_label={"disc": "circle"}),
        learnt_versions=(),
        image_cache=ImageCache(tmp_path),
        settings=settings,
    )
    learnt = [(len(one.segments), [box.label for box in one.boxes]) for one in training_set.examples]
    assert learnt == [(1, ["circle"]), (0, ["circle", "circle"])]
    assert [one.judges for one in training_set.examples] == [True, False]
    assert [one.task_id for one in training_set.holdout] == [3, 6]
    assert len(training_set.holdout_examples) == 2
    assert "6 regions on 5 images are boxes" in training_set.boxes
    assert "2 images of the holdout have only boxes" in training_set.boxes
    assert "draw masks on tasks 4, 5" in training_set.boxes


def test_build_training_set_learn_from_boxes_takes_them_as_masks(
    settings, tmp_path, make_correction, make_segment
):
    box = make_correction(segments=(replace(make_segment(), is_box=True),))
    training_set = build_training_set(
        [box],
        [box],
        plan=LabelPlan(labels=("disc",), class_of_label={}),
        learnt_versions=(),
        image_cache=ImageCache(tmp_path),
        settings=settings.model_copy(update={"learn_from_boxes": True}),
    )
    examples = (*training_set.examples, *training_set.holdout_examples)
    assert [(len(one.segments), one.boxes) for one in examples] == [(1, ()), (1, ())]
    assert training_set.boxes is None


def test_corrections_to_examples_images_of_one_task_have_different_keys(tmp_path, make_correction):
    corrections = [make_correction(), make_correction(view="ir"), make_correction(view="ir", image_index=1)]
    examples = corrections_to_examples(
        corrections,
        plan=LabelPlan(labels=("disc",), class_of_label={}),
        image_cache=ImageCache(tmp_path),
        ignored_labels=(),
        learnt_versions=(),
    )
    assert [example.key for example in examples] == ["1/7/70", "1/7/70/ir/0", "1/7/70/ir/1"]


@pytest.mark.parametrize(
    ("regions_of_images", "expected"),
    [
        pytest.param([], {}, id="no image"),
        pytest.param([1] * 9, {}, id="too few images"),
        pytest.param([1] * 10, {"sky": True}, id="one region an image"),
        pytest.param([1] * 10 + [2], {}, id="one image with two"),
        pytest.param([1] * 10 + [2, 3], {"sky": False}, id="several images with many"),
        pytest.param([2, 2], {"sky": False}, id="many from the start"),
        pytest.param([0] * 20, {}, id="images without it"),
    ],
)
def test_observed_kinds_follow_what_annotators_draw(make_segment, tmp_path, regions_of_images, expected):
    examples = [
        TrainingExample(
            image=tmp_path / "a.png",
            segments=(make_segment(label="sky"),) * count,
            ignored=(),
            key=str(number),
        )
        for number, count in enumerate(regions_of_images)
    ]
    assert observed_kinds(examples) == expected


@pytest.mark.parametrize(
    ("believed", "others", "expected"),
    [
        pytest.param(1, {}, [], id="alone"),
        pytest.param(1, {71: {"annotator": 2}, 72: {"annotator": 3}}, [71, 72], id="other people"),
        pytest.param(1, {71: {"annotator": 1}}, [], id="the same person"),
        pytest.param(1, {71: {"annotator": 2}, 72: {"annotator": 2}}, [72], id="one person twice"),
        pytest.param(1, {71: {"annotator": None}}, [], id="nobody knows who"),
        pytest.param(None, {71: {"annotator": 2}}, [], id="nobody knows who is believed"),
        pytest.param(1, {71: {"annotator": 2, "task_id": 8}}, [], id="another task"),
        pytest.param(1, {71: {"annotator": 2, "view": "ir"}}, [], id="another image of the task"),
        pytest.param(1, {71: {"annotator": 2, "image_key": "1" * 64}}, [], id="another file"),
    ],
)
def test_other_annotations_are_the_newest_of_other_people(
    settings, make_correction, believed, others, expected
):
    used = make_correction(annotation_id=70, annotator=believed)
    more = [make_correction(annotation_id=number, **changes) for number, changes in others.items()]
    found = other_annotations([*more, used], [used], settings)
    assert [one.annotation_id for one in found.get("1/7/70", ())] == expected


@pytest.mark.parametrize("soft", [True, False])
def test_build_training_set_other_annotators_are_there_where_asked_for(
    settings, tmp_path, make_correction, make_segment, soft
):
    segments = (make_segment(label="disc"), make_segment(label="unclear"), make_segment(label="square"))
    drawn = [make_correction(annotation_id=70 + one, annotator=one, segments=segments) for one in range(3)]
    unknown = make_correction(task_id=9, annotation_id=90)
    training_set = build_training_set(
        [*drawn, unknown],
        [replace(one, task_id=8) for one in drawn],
        plan=LabelPlan(labels=("disc", "square"), class_of_label={"disc": "circle"}),
        learnt_versions=(),
        image_cache=ImageCache(tmp_path),
        settings=settings.model_copy(update={"train_soft": soft, "ignore_labels": frozenset({"unclear"})}),
    )
    labels = [[part.label for part in other] for other in training_set.examples[0].others]
    assert labels == ([["circle", UNLABELLED, "square"]] * 2 if soft else [])
    assert training_set.examples[1].others == ()
    assert training_set.holdout_examples[0].others == ()
    assert training_set.train[0].annotation_id == 72
    if soft:
        assert "1 images have soft targets, from 2 annotations" in training_set.several
        assert "1 annotations name no annotator" in training_set.several
    else:
        assert training_set.several is None
