"""Pseudo-labels: what a served version is sure of on images that nobody has annotated, as training examples.

What it is unsure of is an area to ignore, neither object nor background.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskloop.files import made_once
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.store.segments import segments_from_text, segments_to_text
from maskloop.types import SegmentationTask

__all__ = ["PoolUse", "describe_pool", "pseudo_examples", "why_no_pool"]

UNSURE_FROM = 0.1  # least score of a segment that is ignored; one with a lower score is background
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class PoolUse:
    """What a training took from images that nobody has annotated."""

    images: int
    objects: int  # that are learnt as if a person had drawn them
    unsure: int  # that are ignored


def why_no_pool(
    task: SegmentationTask, *, known: Collection[str], classes: Collection[str], floors: Mapping[str, float]
) -> str | None:
    """Return why a version cannot label images for its successor; None where it can.

    Args:
        task: of the project.
        known: classes of the version.
        classes: of its successor.
        floors: class -> least score of its segments that annotators are shown; above 1: none is.
    """
    if task is not SegmentationTask.INSTANCE:
        return f"the task is {task}; pseudo-labels are for instances"
    if new := sorted(set(classes) - set(known)):
        # unlabelled objects of these would be taught as background
        return f"the served version does not know {', '.join(new)}"
    if classes and all(floors.get(label, 0.0) > 1 for label in classes):  # which no score reaches
        return "no segment of the served version is worth showing"
    return None


def pseudo_examples(
    teacher: Checkpoint,
    images: Sequence[Path],
    *,
    labels: Collection[str],
    thresholds: Thresholds,
    floors: Mapping[str, float],
    kept_in: Path,
) -> tuple[TrainingExample, ...]:
    """Return one example for each image on which the teacher finds a segment, sure or not.

    A segment is learnt where annotators would be shown it: its score reaches the threshold and the floor of
    its class. With a lower score, from 0.1 on, its area is ignored. Made once: after a kill they are read
    again, so that the training goes on with the same ones.

    Args:
        teacher: a version that has been promoted.
        images: files.
        labels: classes that are learnt; segments of others are left out.
        thresholds: as the teacher is served with.
        floors: class -> least score of the segments that annotators are shown.
        kept_in: file that keeps them.

    Raises:
        ImageError: an image cannot be read.
        StoreError: the file is damaged.

    Source:
        Sohn et al., "A Simple Semi-Supervised Learning Framework for Object Detection", 2020 (pseudo-labels
        made once by a teacher, strong views for the student); Berrada et al., "Guided Distillation for
        Semi-Supervised Instance Segmentation", WACV 2024 (Mask2Former).
    """
    return made_once(
        kept_in,
        lambda: _label(teacher, images, labels=labels, thresholds=thresholds, floors=floors),
        lambda rows: tuple(_example(row) for row in rows),
        expected="pseudo-labels as maskloop writes them",
    )


def describe_pool(examples: Sequence[TrainingExample]) -> PoolUse | None:
    """Return what a training takes from images that nobody has annotated; None for nothing."""
    guessed = [example for example in examples if example.guessed]
    if not guessed:
        return None
    return PoolUse(
        images=len(guessed),
        objects=sum(len(example.segments) for example in guessed),
        unsure=sum(len(example.ignored) for example in guessed),
    )


def _label(
    teacher: Checkpoint,
    images: Sequence[Path],
    *,
    labels: Collection[str],
    thresholds: Thresholds,
    floors: Mapping[str, float],
) -> list[dict[str, str]]:
    lowest = dataclasses.replace(thresholds, score=min(UNSURE_FROM, thresholds.score), score_of_label={})
    rows = []
    for start in range(0, len(images), BATCH):
        paths = images[start : start + BATCH]
        read = [load_example_image(TrainingExample(image=path, segments=(), key=path.name)) for path in paths]
        predictions = predict_images(teacher, read, task=SegmentationTask.INSTANCE, thresholds=lowest)
        for path, prediction in zip(paths, predictions, strict=True):
            found = [segment for segment in prediction.segments if segment.label in labels]
            least = [max(thresholds.score_for(one.label), floors.get(one.label, 0.0)) for one in found]
            sure = [one for one, limit in zip(found, least, strict=True) if one.score >= limit]
            if not found:  # nothing says whether it is empty
                continue
            unsure = [one for one, limit in zip(found, least, strict=True) if one.score < limit]
            rows.append(
                {
                    "image": str(path),
                    "segments": segments_to_text(tuple(sure)),
                    "ignored": segments_to_text(tuple(unsure)),
                }
            )
    return rows


def _example(row: dict[str, str]) -> TrainingExample:
    image = Path(row["image"])
    sure, unsure = (segments_from_text(row[name]) for name in ("segments", "ignored"))
    return TrainingExample(
        image=image,
        segments=tuple(dataclasses.replace(segment, score=1.0) for segment in sure),
        ignored=unsure,
        key=f"unlabelled {image.name}",
        guessed=True,
    )
