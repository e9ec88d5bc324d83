import hashlib
from dataclasses import replace

import numpy as np
import pytest

from maskloop.learning.data.holdout_choice import HoldoutRule, complete_holdout, group_images
from maskloop.similarity import HASH_BITS
from maskloop.store.holdout import HOLDOUT, NEITHER, content_position

RULE = HoldoutRule()


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture
def correction(make_correction, make_segment):
    """Return a function that makes a correction of image `number` with one segment of each label."""

    def make(number, *labels, task=None):
        segments = tuple(make_segment(label=label) for label in labels or ("disc",))
        return make_correction(
            task_id=number if task is None else task,
            annotation_id=number,
            image_key=key(number),
            segments=segments,
        )

    return make


def alone(*parts):
    return {one.image_key: one.image_key for part in parts for one in part}


@pytest.mark.parametrize(
    ("images", "target", "missing"),
    [(0, 0, 24), (1, 0, 23), (9, 3, 15), (23, 7, 1), (24, 8, 0), (40, 8, 0), (41, 9, 0), (1000, 200, 0)],
)
def test_holdout_rule_default_grows_with_the_project(images, target, missing):
    assert RULE.target(images) == target
    assert RULE.missing(images, target) == missing


@pytest.mark.parametrize(
    ("rule", "images", "target", "missing"),
    [
        pytest.param(HoldoutRule(fraction=0.0), 100, 0, 0, id="no holdout wanted"),
        pytest.param(HoldoutRule(fraction=0.5), 10, 5, 6, id="large share"),
        pytest.param(HoldoutRule(least=2), 6, 2, 0, id="small least number"),
    ],
)
def test_holdout_rule_settings(rule, images, target, missing):
    assert (rule.target(images), rule.missing(images, target)) == (target, missing)


def test_complete_holdout_takes_images_by_content_alone(correction):
    train = [correction(number) for number in range(30)]
    sides = complete_holdout(train, [], groups=alone(train), learnt=(), rule=RULE)
    assert sides == dict.fromkeys(sorted((key(n) for n in range(30)), key=content_position)[:8], HOLDOUT)
    again = [correction(number, task=900 - number) for number in reversed(range(30))]
    assert complete_holdout(again, [], groups=alone(again), learnt=(), rule=RULE) == sides


@pytest.mark.parametrize("rare", [2, 3, 6, 9])
def test_complete_holdout_represents_rare_classes_and_leaves_some_to_learn(correction, rare):
    train = [correction(n, "disc", *(["star"] if n < rare else [])) for n in range(60)]
    sides = complete_holdout(train, [], groups=alone(train), learnt=(), rule=RULE)
    judging = sum(key(number) in sides for number in range(rare))
    assert judging >= min(3, rare // 2)
    assert rare - judging >= 1
    assert len(sides) == 12


def test_complete_holdout_takes_nothing_that_was_learnt(correction):
    train = [correction(number) for number in range(30)]
    learnt = {key(number) for number in range(25)}
    assert set(complete_holdout(train, [], groups=alone(train), learnt=learnt, rule=RULE)) == {
        key(number) for number in range(25, 30)
    }


def test_complete_holdout_counts_copies_once_and_moves_them_together(correction):
    train = [correction(number) for number in range(48)]
    groups = {key(number): key(number // 2 * 2) for number in range(48)}
    sides = complete_holdout(train, [], groups=groups, learnt=(), rule=RULE)
    assert len(sides) == 16
    assert {key(n // 2 * 2) in sides for n in range(48) if key(n) in sides} == {True}


@pytest.mark.parametrize(("learnt", "side"), [((), HOLDOUT), ((1,), NEITHER)], ids=["new", "learnt"])
def test_complete_holdout_older_project_copies_leave_the_training(correction, learnt, side):
    train, holdout = [correction(1), correction(2)], [correction(3)]
    groups = {key(1): key(3), key(2): key(2), key(3): key(3)}
    sides = complete_holdout(
        train, holdout, groups=groups, learnt={key(n) for n in learnt}, rule=HoldoutRule(least=2)
    )
    assert sides == {key(1): side}


def test_group_images_by_hash_task_and_chain(correction):
    bits = np.zeros((4, HASH_BITS), np.bool_)
    bits[1, :40], bits[2, :80], bits[3, 100:200] = True, True, True
    hashes = {key(number): np.packbits(row) for number, row in enumerate(bits)}
    given = [*(correction(number) for number in range(4)), correction(8, task=3), correction(9)]
    groups = group_images(given, hashes, near_distance=0.2)
    found = sorted(
        sorted(n for n in (0, 1, 2, 3, 8, 9) if groups[key(n)] == name) for name in set(groups.values())
    )
    assert found == [[0, 1, 2], [3, 8], [9]]
    assert all(name <= member for member, name in groups.items())


def test_complete_holdout_images_of_boxes_only_stay_where_they_are(correction):
    """They judge nothing; one beside a mask of the same group goes with it."""
    masks, boxes = ([correction(start + number) for number in range(12)] for start in (0, 100))
    boxes = [replace(one, segments=(replace(one.segments[0], is_box=True),)) for one in boxes]
    groups = alone(masks, boxes) | {boxes[0].image_key: masks[0].image_key}
    sides = complete_holdout([*masks, *boxes], [], groups=groups, learnt=(), rule=RULE)
    assert set(sides.values()) == {HOLDOUT}
    assert not set(sides) & {one.image_key for one in boxes[1:]}
    assert (masks[0].image_key in sides) is (boxes[0].image_key in sides)
    assert len(set(sides) - {boxes[0].image_key}) == RULE.target(12)
