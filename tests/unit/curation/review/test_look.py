import numpy as np
import pytest

from maskloop.curation.review.look import look_at
from maskloop.lab.synthetic.shapes import make_image
from maskloop.masks import segment_iou
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.settings import BASE_MODEL
from maskloop.types import SegmentationTask


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(BASE_MODEL, device="cpu")


def test_look_at_holds_what_the_model_predicts(checkpoint: Checkpoint):
    image = make_image(61_000_000).image_hwc
    evidence = look_at(checkpoint, image, task=SegmentationTask.INSTANCE)
    thresholds = Thresholds(score=0.5, duplicate=0.8)
    (shown,) = predict_images(checkpoint, [image], task=SegmentationTask.INSTANCE, thresholds=thresholds)
    sure = [one for one in evidence.segments if one.score >= 0.5]
    assert [one.label for one in sure] == [one.label for one in shown.segments]
    assert all(segment_iou(one, other) == 1 for one, other in zip(sure, shown.segments, strict=True))


def test_look_at_probabilities_belong_to_the_objects(checkpoint: Checkpoint):
    evidence = look_at(checkpoint, make_image(61_000_001).image_hwc, task=SegmentationTask.INSTANCE)
    best_n = evidence.class_probs_nk.argmax(axis=1)
    assert [evidence.labels[k] for k in best_n] == [one.label for one in evidence.segments]
    assert np.all(evidence.class_probs_nk.sum(axis=1) <= 1.0001)
