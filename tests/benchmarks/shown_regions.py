"""What annotators would have deleted of a model's own predictions on the images that it learns from next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.evaluation.region_edits import trace_with_removed
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.types import Segment, SegmentationTask


def shown_predictions(
    start: Checkpoint, examples: Sequence[TrainingExample], labels: Sequence[str], thresholds: Thresholds
) -> list[tuple[Segment, ...]]:
    """Return what annotators are shown on each image.

    A model that knows other classes than a set of one class draws all that it finds as that class, as a label
    with `predicted_values` does in a project.
    """
    images = [load_example_image(example) for example in examples]
    shown = []
    for prediction in predict_images(start, images, task=SegmentationTask.INSTANCE, thresholds=thresholds):
        segments = prediction.segments
        if len(labels) == 1:
            segments = tuple(replace(one, label=labels[0]) for one in segments)
        shown.append(tuple(one for one in segments if one.label in labels))
    return shown


def with_deleted(
    examples: Sequence[TrainingExample], shown: Sequence[tuple[Segment, ...]]
) -> tuple[TrainingExample, ...]:
    """Return the examples with the regions that an annotator who draws the truth deletes."""
    return tuple(
        replace(example, deleted=trace_with_removed(segments, example.segments)[1])
        for example, segments in zip(examples, shown, strict=True)
    )
