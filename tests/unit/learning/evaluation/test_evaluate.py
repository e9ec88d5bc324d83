"""What is evaluated as stuff is what is served as stuff."""

import numpy as np
import pytest
from tests.fakes.models import two_areas_checkpoint

from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.evaluate import evaluate_side_by_side
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.types import Segment, SegmentationTask

SKY = frozenset({"sky"})
PANOPTIC = SegmentationTask.PANOPTIC
IMAGE = np.zeros((48, 96, 3), np.uint8)


def halves(segment):
    """Return a segment as annotators draw one area in two strokes: its upper and its lower half."""
    middle = segment.mask_hw.shape[0] // 2
    top, left = segment.offset_yx
    return (
        Segment(mask_hw=segment.mask_hw[:middle], offset_yx=(top, left), label=segment.label),
        Segment(mask_hw=segment.mask_hw[middle:], offset_yx=(top + middle, left), label=segment.label),
    )


@pytest.mark.parametrize(
    ("kinds", "pq"),
    [
        pytest.param(ClassKinds(), 0.0, id="things"),
        pytest.param(ClassKinds(setting=SKY), 1.0, id="setting"),
        pytest.param(ClassKinds(config_stuff=SKY), 1.0, id="label config"),
        pytest.param(ClassKinds(observed={"sky": True}), 1.0, id="observed"),
        pytest.param(ClassKinds(setting=SKY, config_things=SKY), 0.0, id="label config over setting"),
    ],
)
def test_evaluate_pq_takes_for_stuff_what_is_served_as_stuff(kinds, pq):
    checkpoint, thresholds = two_areas_checkpoint(("sky", "ground")), Thresholds(kinds=kinds)
    (found,) = predict_images(checkpoint, [IMAGE], task=PANOPTIC, thresholds=thresholds)
    assert len(found.segments) == (1 if pq else 2)
    (areas,) = predict_images(checkpoint, [IMAGE], task=PANOPTIC, thresholds=Thresholds())
    drawn = tuple(half for segment in areas.segments for half in halves(segment))
    example = TrainingExample(image=IMAGE, segments=drawn, key="image")
    (evaluation,) = evaluate_side_by_side([checkpoint], [example], task=PANOPTIC, thresholds=thresholds)
    assert evaluation.metrics.pq == pytest.approx(pq)


@pytest.mark.parametrize("stuff", [True, False])
def test_evaluate_class_that_the_model_lacks_is_of_the_kind_it_will_have(stuff):
    label = Segment(mask_hw=np.ones((4, 4), bool), offset_yx=(0, 0), label="sky")
    example = TrainingExample(image=IMAGE, segments=halves(label), key="image")
    (evaluation,) = evaluate_side_by_side(
        [two_areas_checkpoint(("car", "ground"))],
        [example],
        labels=("car", "sky"),
        task=PANOPTIC,
        thresholds=Thresholds(kinds=ClassKinds(config_stuff=SKY if stuff else frozenset())),
    )
    missed = evaluation.panoptic_4nc[3].sum()
    assert missed == (1 if stuff else 2)


def test_evaluate_predictions_in_boxes_count_neither_for_nor_against():
    """What a model finds in boxes is as if it were not there, whether there is a mask beside it or not."""
    checkpoint, thresholds = two_areas_checkpoint(("sky", "ground")), Thresholds()
    (found,) = predict_images(checkpoint, [IMAGE], task=PANOPTIC, thresholds=thresholds)
    sky, ground = found.segments
    box = Segment(mask_hw=np.ones_like(sky.mask_hw), offset_yx=sky.offset_yx, label="ground", is_box=True)

    def judge(*segments, boxes=()):
        example = TrainingExample(image=IMAGE, segments=segments, boxes=boxes, key="image")
        (made,) = evaluate_side_by_side([checkpoint], [example], task=PANOPTIC, thresholds=thresholds)
        return made

    given, whole = judge(ground, boxes=(box,)), judge(ground, sky)
    assert (given.metrics.pq, given.metrics.ap50, given.metrics.miou) == pytest.approx((1.0, 1.0, 1.0))
    assert given.panoptic_4nc.sum() == pytest.approx(
        whole.panoptic_4nc.sum() - 4
    )  # one match: IoU, matched, found, true
    assert judge(ground).metrics.pq < 1.0  # without the box it is a wrong prediction
