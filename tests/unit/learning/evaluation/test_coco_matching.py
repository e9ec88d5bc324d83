"""What a evaluation keeps: void, crowds, single images and classes, times."""

import json
from dataclasses import replace

import numpy as np
import pytest

from maskloop.lab.base_model import made_up_examples
from maskloop.learning.evaluation.evaluate import evaluate_side_by_side
from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.pixel_counts import boundary_iou
from maskloop.learning.evaluation.prediction_metrics import evaluate_predictions
from maskloop.learning.registry.base import json_to_metrics, metrics_to_json
from maskloop.masks import paste_segment
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.settings import BASE_MODEL
from maskloop.types import HoldoutMetrics, Prediction, Segment

SIZE_HW = (20, 20)
LABELS = ("a", "b")
OBJECT = (2, 2, 8, 8)


def box(top, left, height, width, label="a", score=1.0):
    return Segment(
        mask_hw=np.ones((height, width), dtype=bool), offset_yx=(top, left), label=label, score=score
    )


def predict(*segments):
    return Prediction(segments=segments, size_hw=SIZE_HW, confidence=1.0)


def area(top, left, height, width):
    return paste_segment(box(top, left, height, width), SIZE_HW)


def numbers(found, truth):
    metrics = evaluate_predictions([predict(*found)], [truth], LABELS).metrics
    return metrics.ap50, metrics.pq, metrics.miou


@pytest.mark.parametrize(
    ("found", "ignored_hw", "expected"),
    [
        # ours: what is predicted on the background is wrong; a COCO PNG would have void there
        ([box(12, 2, 4, 4, "b", 0.5)], None, (1.0, 0.5, 0.5)),
        ([box(12, 2, 4, 4, "b", 0.5)], area(12, 0, 8, 20), (1.0, 1.0, 1.0)),
        ([box(12, 2, 4, 4, "a", 0.5)], area(12, 0, 8, 20), (1.0, 1.0, 1.0)),
        # half of it in the void does not excuse, and the other half counts in the IoU
        ([box(11, 2, 4, 4, "a", 0.5)], area(13, 0, 7, 20), (1.0, 2 / 3, 64 / 72)),
        # an object lies on top of an ignored area
        ([], area(0, 0, 20, 20), (1.0, 1.0, 1.0)),
    ],
    ids=["background", "void", "void-same-class", "half-void", "void-under-object"],
)
def test_evaluate_predictions_void(found, ignored_hw, expected):
    truth = GroundTruth(segments=(box(*OBJECT),), ignored_hw=ignored_hw)
    assert numbers([box(*OBJECT), *found], truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], (1.0, 1.0)),
        ([box(12, 0, 4, 4), box(12, 8, 4, 4)], (1.0, 1.0)),
        # a crowd excuses its own class alone; AP of "b", which the truth lacks, is not defined
        ([box(12, 0, 4, 4, "b")], (1.0, 0.5)),
        ([box(0, 12, 4, 8, "a")], (1.0, 2 / 3)),
    ],
    ids=["missed", "in-crowd", "other-class", "beside"],
)
def test_evaluate_predictions_crowd_is_neither_right_nor_wrong(found, expected):
    truth = GroundTruth(segments=(box(*OBJECT),), crowds=(box(12, 0, 8, 20),))
    assert numbers([box(*OBJECT), *found], truth)[:2] == pytest.approx(expected)


def test_evaluate_predictions_parts_belong_to_classes_and_images():
    evaluation = evaluate_predictions(
        [predict(box(*OBJECT), box(12, 12, 6, 6, "b")), predict()],
        [(box(*OBJECT), box(12, 12, 6, 6, "b")), (box(*OBJECT),)],
        LABELS,
        keys=["first", "second"],
        seconds=[0.25, 0.75],
        stuff_labels=["b"],
    )
    metrics = evaluation.metrics
    assert (metrics.pq_things, metrics.pq_stuff) == pytest.approx((2 / 3, 1.0))
    assert (metrics.sq, metrics.rq, metrics.ar) == pytest.approx((1.0, 5 / 6, 0.75))
    assert metrics.seconds_per_image == 0.5
    assert metrics.per_class["a"]["images"] == 2
    assert metrics.per_class["a"]["iou"] == 0.5
    assert evaluation.per_image() == [
        {"image": "first", "ap50": 1.0, "pq": 1.0, "iou": 1.0, "boundary_iou": 1.0, "seconds": 0.25},
        {"image": "second", "ap50": 0.0, "pq": 0.0, "iou": 0.0, "boundary_iou": 0.0, "seconds": 0.75},
    ]


def test_evaluate_predictions_boundary_iou_of_one_object_is_the_papers():
    evaluation = evaluate_predictions([predict(box(2, 2, 8, 6))], [(box(*OBJECT),)], LABELS)
    expected = boundary_iou(area(2, 2, 8, 6), area(*OBJECT), width_px=1)
    assert evaluation.metrics.boundary_iou == pytest.approx(expected)


def test_evaluate_predictions_scores_of_weights_equal_repeated_images():
    rng = np.random.default_rng(4)
    predictions, truths = [], []
    for _ in range(6):
        shifts = rng.integers(0, 5, size=4)
        truths.append((box(2, 2, 6, 6), box(10, 10, 6, 6, "b")))
        found = [box(shifts[0], shifts[1], 6, 6), box(8 + shifts[2], 8 + shifts[3], 6, 6, "b")]
        predictions.append(predict(*(item for item in found if rng.random() < 0.8)))
    drawn = [0, 0, 2, 3, 3, 3]
    weights_1n = np.bincount(drawn, minlength=6)[None].astype(float)
    weighed = evaluate_predictions(predictions, truths, LABELS).scores(weights_1n)
    repeated = evaluate_predictions([predictions[i] for i in drawn], [truths[i] for i in drawn], LABELS)
    for name, values_rc in repeated.scores(np.ones((1, 6))).items():
        assert weighed[name] == pytest.approx(values_rc), name


@pytest.mark.parametrize(
    "metrics",
    [
        HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.3, images=2),
        evaluate_predictions([predict(box(*OBJECT))], [(box(*OBJECT),)], LABELS, seconds=[0.5]).metrics,
        None,
    ],
    ids=["few", "all", "none"],
)
def test_metrics_to_json_and_back(metrics):
    assert json_to_metrics(metrics_to_json(metrics)) == metrics


def test_json_to_metrics_of_an_older_registry_has_no_new_numbers():
    older = json.dumps({"ap50": 0.5, "pq": 0.4, "miou": 0.3, "images": 2})
    assert json_to_metrics(older) == HoldoutMetrics(ap50=0.5, pq=0.4, miou=0.3, images=2)


def test_evaluate_side_by_side_ignored_area_excuses_predictions_there():
    model = load_checkpoint(str(BASE_MODEL), device="cpu")
    (example,) = made_up_examples(70, 1, domain="base", size_hw=(96, 96))
    everywhere = Segment(mask_hw=np.ones((96, 96), bool), offset_yx=(0, 0), label="")
    empty = replace(example, segments=())
    ((wrong,), (excused,)) = (
        evaluate_side_by_side([model], [item]) for item in (empty, replace(empty, ignored=(everywhere,)))
    )
    assert wrong.panoptic_4nc[2].sum() > 0
    assert excused.panoptic_4nc[2].sum() == 0


def test_evaluate_side_by_side_same_model_twice_same_evaluation():
    model = load_checkpoint(str(BASE_MODEL), device="cpu")
    examples = made_up_examples(77, 5, domain="base", size_hw=(48, 48))
    first, second = evaluate_side_by_side([model, model], examples, labels=(*model.labels, "cat"), batch=2)
    assert np.array_equal(first.panoptic_4nc, second.panoptic_4nc)
    assert first.keys == tuple(example.key for example in examples)
    assert first.known == set(model.labels)  # which cannot name cats
    assert np.all(first.seconds_n > 0)
    assert first.metrics.per_class == second.metrics.per_class
