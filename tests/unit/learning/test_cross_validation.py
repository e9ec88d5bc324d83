import numpy as np
import pytest

from maskloop.learning.cross_validation import count_groups, cross_validate, split_folds
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.types import Prediction

SIZE_HW = (20, 40)


@pytest.fixture
def example(make_segment):
    """Return a function that makes example `key` with one segment of each label."""

    def make(key, *labels, fresh=True, group=""):
        segments = tuple(make_segment(label=label) for label in labels or ("disc",))
        image = np.zeros((*SIZE_HW, 3), np.uint8)
        return TrainingExample(image=image, segments=segments, key=key, fresh=fresh, group=group)

    return make


def empty_evaluation(examples):
    predictions = [Prediction(segments=(), size_hw=SIZE_HW, confidence=1.0) for _ in examples]
    truths = [one.segments for one in examples]
    return evaluate_predictions(predictions, truths, ["disc"], keys=[one.key for one in examples])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_split_folds_parts_are_the_whole_and_of_one_size(example, count):
    examples = [example(str(number)) for number in range(count)]
    parts = split_folds(examples)
    assert sorted(one.key for part in parts for one in part) == sorted(one.key for one in examples)
    assert len(parts) == min(3, count)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_split_folds_copies_stay_together_and_rare_classes_are_spread(example):
    examples = [
        example(str(number), "disc", *(["star"] if number % 4 == 0 else []), group=str(number // 2))
        for number in range(24)
    ]
    parts = split_folds(examples)
    groups = [{one.group for one in part} for part in parts]
    assert sum(map(len, groups)) == len(set().union(*groups))
    stars = [sum("star" in {s.label for s in one.segments} for one in part) for part in parts]
    assert stars == [2, 2, 2]
    assert count_groups(examples) == 12


def test_cross_validate_judges_fresh_images_once_by_a_model_that_has_not_seen_them(example):
    learnt = [example(f"old-{number}", fresh=False) for number in range(3)]
    new = [example(f"new-{number}") for number in range(7)]
    holdout = [example("held")]
    judged = []

    def train(examples, number):
        return {one.key for one in examples}

    def evaluate(seen, examples):
        judged.append((seen, {one.key for one in examples}))
        return empty_evaluation(examples), empty_evaluation(examples)

    everything = {one.key for one in (*learnt, *new)}
    before, after = cross_validate(
        [*learnt, *new], holdout, challenger=everything, train=train, evaluate=evaluate
    )
    assert before.keys == after.keys
    assert sorted(before.keys) == sorted(["held", *(one.key for one in new)])
    assert all(not seen & keys for seen, keys in judged)
    assert all({one.key for one in learnt} <= seen for seen, _ in judged)
