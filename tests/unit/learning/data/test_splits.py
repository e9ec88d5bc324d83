import re
from datetime import timedelta

import pytest

from maskloop.learning.data.splits import (
    choose_corrections,
    describe_holdout_gaps,
    is_validation,
    leave_out_copies,
    split_validation,
)
from maskloop.types import AnnotationRule

DISC, BOTH = frozenset({"disc"}), frozenset({"disc", "star"})


def test_is_validation_known_tasks_never_change():
    # Fixed values: a change would validate on images that earlier trainings learnt from.
    assert [task for task in range(40) if is_validation(1, task, 0.1)] == [4, 17, 25, 26, 38]


@pytest.mark.parametrize(
    ("count", "fraction", "empty"), [(9, 0.5, True), (30, 0.5, False), (30, 0.0, True)], ids=str
)
def test_split_validation_parts_are_the_whole(make_correction, count, fraction, empty):
    corrections = [make_correction(task_id=task) for task in range(count)]
    learnt, stopping = split_validation(corrections, fraction=fraction, least=10)
    assert (not stopping) is empty
    assert {one.task_id for one in (*learnt, *stopping)} == set(range(count))
    assert len(learnt) + len(stopping) == count


@pytest.mark.parametrize(
    ("holdout", "expected"),
    [
        ([], "is empty"),
        ([DISC] * 3, "of 3 images has no image of star"),
        ([BOTH, DISC, DISC], r"fewer than 3 images of star \(1\)"),
        ([DISC, DISC, frozenset()], r"no image of star and fewer than 3 images of disc \(2\)"),
    ],
    ids=["empty", "missing", "scarce", "both"],
)
def test_describe_holdout_gaps_names_each_gap(holdout, expected):
    assert re.search(expected, describe_holdout_gaps(holdout, ("disc", "star")))


def test_describe_holdout_gaps_enough_images_is_none():
    assert describe_holdout_gaps([BOTH] * 3, ("disc", "star")) is None


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        pytest.param(AnnotationRule.NEWEST, 72, id="newest"),
        pytest.param(AnnotationRule.FIRST, 70, id="first"),
        pytest.param(AnnotationRule.GROUND_TRUTH, 71, id="ground truth"),
    ],
)
def test_choose_corrections_rule_decides(make_correction, rule, chosen):
    first = make_correction(annotation_id=70)
    truth = make_correction(
        annotation_id=71, updated_at=first.updated_at + timedelta(hours=1), ground_truth=True
    )
    newest = make_correction(annotation_id=72, updated_at=first.updated_at + timedelta(hours=2))
    assert [made.annotation_id for made in choose_corrections((newest, first, truth), rule)] == [chosen]


def test_choose_corrections_no_ground_truth_takes_the_newest(make_correction):
    first = make_correction(annotation_id=70)
    newest = make_correction(annotation_id=72, updated_at=first.updated_at + timedelta(hours=2))
    (chosen,) = choose_corrections((first, newest), AnnotationRule.GROUND_TRUTH)
    assert chosen.annotation_id == 72


def test_choose_corrections_several_tasks_one_each(make_correction):
    corrections = [make_correction(task_id=task, annotation_id=10 * task) for task in (3, 1, 2)]
    assert [made.task_id for made in choose_corrections(corrections, AnnotationRule.NEWEST)] == [1, 2, 3]


def test_choose_corrections_keeps_all_images_of_the_chosen_annotation(make_correction):
    first = [make_correction(annotation_id=70, view=view) for view in ("ir", "rgb")]
    later = first[0].updated_at + timedelta(hours=1)
    newest = [make_correction(annotation_id=71, view="rgb", image_index=n, updated_at=later) for n in (1, 0)]
    chosen = choose_corrections((*first, *newest), AnnotationRule.NEWEST)
    assert [(one.annotation_id, one.view, one.image_index) for one in chosen] == [
        (71, "rgb", 0),
        (71, "rgb", 1),
    ]


def test_choose_corrections_consensus_takes_the_one_most_alike(make_correction):
    later = make_correction().updated_at + timedelta(hours=1)
    alike = [make_correction(annotation_id=number) for number in (70, 71)]
    odd = make_correction(annotation_id=72, updated_at=later, segments=())
    (chosen,) = choose_corrections((*alike, odd), AnnotationRule.CONSENSUS)
    assert chosen.annotation_id == 71
    (newest,) = choose_corrections((alike[0], odd), AnnotationRule.CONSENSUS)
    assert newest.annotation_id == 72


@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        pytest.param({}, {1, 2, 3}, id="none are alike"),
        pytest.param({"a": "g", "b": "g"}, {2, 3}, id="two of three"),
        pytest.param({"a": "g", "b": "g", "c": "g"}, {3}, id="all"),
    ],
)
def test_leave_out_copies_keeps_the_one_annotated_last(make_correction, groups, kept):
    start = make_correction().updated_at
    corrections = [
        make_correction(
            task_id=task, image_key=key, annotation_id=task, updated_at=start + timedelta(hours=task)
        )
        for task, key in ((1, "a"), (2, "b"), (3, "c"))
    ]
    assert {one.task_id for one in leave_out_copies(reversed(corrections), groups)} == kept


def test_leave_out_copies_keeps_every_annotation_of_the_image(make_correction):
    two = [make_correction(task_id=1, annotation_id=number) for number in (70, 71)]
    assert leave_out_copies(two, {}) == two
