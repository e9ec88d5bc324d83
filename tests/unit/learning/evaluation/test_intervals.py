from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from maskloop.learning.evaluation.intervals import ALL_CLASSES, score_intervals
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.types import Prediction, Segment

SIZE_HW = (20, 40)


def evaluated(rng, images, share):
    """Return the evaluation of images with one object each, of which a share is found exactly."""
    truth = Segment(mask_hw=np.ones((5, 5), bool), offset_yx=(3, 3), label="disc")
    found = [(truth,) if rng.random() < share else () for _ in range(images)]
    predictions = [Prediction(segments=one, size_hw=SIZE_HW, confidence=1.0) for one in found]
    return evaluate_predictions(predictions, [(truth,)] * images, ["disc", "star"])


@pytest.mark.parametrize("images", [10, 40])
def test_score_intervals_hold_the_true_value_as_often_as_they_say(images):
    rng = np.random.default_rng(images)
    inside = 0
    for _ in range(150):
        low, high = score_intervals(evaluated(rng, images, 0.5))["disc"]["iou"]
        inside += low <= 0.5 <= high
    assert inside / 150 == pytest.approx(0.9, abs=0.08)


def test_score_intervals_copies_give_wider_ones_and_one_image_none():
    of_copies = iter(np.repeat([0.1, 0.9, 0.2, 0.8], 5))  # all five are found, or none
    evaluation = evaluated(SimpleNamespace(random=of_copies.__next__), 20, 0.5)
    low, high = score_intervals(evaluation)[ALL_CLASSES]["pq"]
    pairs = replace(evaluation, groups=tuple(str(number // 5) for number in range(20)))
    wide_low, wide_high = score_intervals(pairs)[ALL_CLASSES]["pq"]
    assert wide_high - wide_low > high - low
    assert score_intervals(replace(evaluation, groups=("one",) * 20)) == {}
    assert "star" not in score_intervals(evaluation)


def test_score_intervals_without_images_are_none():
    assert score_intervals(evaluate_predictions([], [], ["disc"])) == {}
