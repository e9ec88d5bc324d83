"""One annotation a task counts, by a rule."""

from datetime import timedelta

import pytest

from maskloop.learning.data.splits import choose_corrections
from maskloop.types import AnnotationRule


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
    said = [make_correction(task_id=task, annotation_id=10 * task) for task in (3, 1, 2)]
    assert [made.task_id for made in choose_corrections(said, AnnotationRule.NEWEST)] == [1, 2, 3]
