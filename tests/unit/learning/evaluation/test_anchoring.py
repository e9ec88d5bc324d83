from dataclasses import replace

import numpy as np
import pytest

from maskloop.learning.evaluation.anchoring import measure_anchoring
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.types import Prediction, Segment

SIZE_HW = (20, 40)


def evaluated(found):
    """Return the evaluation of images with one object each, which is found exactly or not at all."""
    truth = Segment(mask_hw=np.ones((5, 5), bool), offset_yx=(3, 3), label="disc")
    predictions = [
        Prediction(segments=(truth,) if one else (), size_hw=SIZE_HW, confidence=1.0) for one in found
    ]
    return evaluate_predictions(predictions, [(truth,)] * len(found), ["disc"])


def test_measure_anchoring_annotators_who_follow_the_model_are_seen():
    found = [True] * 20 + [True, False] * 10
    measured = measure_anchoring(evaluated(found), [False] * 20 + [True] * 20)
    assert (measured.shown_images, measured.blind_images) == (20, 20)
    assert measured.shown == pytest.approx(1.0)
    assert measured.blind == pytest.approx(np.mean([0.505, 2 / 3, 0.5]), abs=0.01)  # AP50, PQ, IoU
    assert 0 < measured.interval[0] < measured.shown - measured.blind < measured.interval[1]


def test_measure_anchoring_without_any_has_zero_inside_as_often_as_it_says():
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(60):
        measured = measure_anchoring(
            evaluated(rng.random(30) < 0.6), [number % 2 == 0 for number in range(30)]
        )
        inside += measured.interval[0] <= 0 <= measured.interval[1]
    assert inside >= 47


@pytest.mark.parametrize("blind", [0, 4, 27], ids=["none", "few", "too many"])
def test_measure_anchoring_few_images_of_a_kind_is_none(blind):
    assert measure_anchoring(evaluated([True] * 30), [number < blind for number in range(30)]) is None


def test_measure_anchoring_copies_count_once():
    evaluation = replace(evaluated([True] * 30), groups=("one",) * 15 + tuple(map(str, range(15))))
    assert measure_anchoring(evaluation, [True] * 15 + [False] * 15) is None
