"""Images as several made-up annotators draw them, who differ at borders, miss objects and mistake classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.data.training_set import (
    LabelPlan,
    corrections_to_examples,
    other_annotations,
    used_corrections,
)
from maskloop.masks import mask_to_segment, window_around
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop.types import AnnotationRule, Correction, Segment

ANNOTATORS = 3
MISSED, MISTAKEN = 0.1, 0.05  # of the objects
MOVED_PX, WAVES_PX = 1.0, 1.0  # standard deviations of an object's place and of its border, in image pixels
WAVE_LENGTH_PX = 4.0  # standard deviation of the blur that makes waves of noise
REACH = 6  # pixels around an object to which its border may move
LEAST_PIXELS = 10  # of an object that is drawn
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def drawn_by_several(
    examples: Sequence[TrainingExample], labels: Sequence[str], *, way: str, seed: int
) -> tuple[TrainingExample, ...]:
    """Return the examples as a training has them of three annotators of each.

    Args:
        examples: images with their truth.
        labels: classes that an annotator may mistake for each other.
        way: "newest-of-3", "consensus-of-3", or "soft-of-3": the newest, and the others for soft targets.
        seed: of the annotators, the same for each way.
    """
    rule = AnnotationRule.CONSENSUS if way.startswith("consensus") else AnnotationRule.NEWEST
    settings = Settings.model_construct(annotation_rule=rule)
    corrections = [
        _correction(number, annotator, example, labels, seed)
        for number, example in enumerate(examples)
        for annotator in range(ANNOTATORS)
    ]
    used = used_corrections(corrections, settings)
    made = corrections_to_examples(
        used,
        plan=LabelPlan(labels=tuple(labels), class_of_label={}),
        image_cache=ImageCache(Path()),
        ignored_labels=(),
        learnt_versions=(),
        others=other_annotations(corrections, used, settings) if way.startswith("soft") else {},
    )
    return tuple(
        replace(one, image=example.image, key=example.key, fresh=example.fresh)
        for one, example in zip(made, examples, strict=True)
    )


def _correction(
    number: int, annotator: int, example: TrainingExample, labels: Sequence[str], seed: int
) -> Correction:
    height, width = load_example_image(example).shape[:2]
    rng = np.random.default_rng([seed, number, annotator])
    drawn = (draw_again(one, (height, width), labels, rng) for one in example.segments)
    return Correction(
        project_id=1,
        task_id=number,
        annotation_id=ANNOTATORS * number + annotator,
        updated_at=FIRST_DAY + timedelta(days=annotator),
        image_key=f"{number:064x}",
        size_hw=(height, width),
        segments=tuple(one for one in drawn if one is not None),
        annotator=annotator,
    )


def draw_again(
    segment: Segment, size_hw: tuple[int, int], labels: Sequence[str], rng: np.random.Generator
) -> Segment | None:
    """Return an object as an annotator draws it; None where it is missed."""
    window_hw, (top, left) = window_around(segment, size_hw, REACH)
    height, width = window_hw.shape
    noise_2hw = rng.standard_normal((2, height, width)).astype(np.float32)
    waves_2hw = np.stack([cv2.GaussianBlur(one, (0, 0), WAVE_LENGTH_PX) for one in noise_2hw])
    waves_2hw *= WAVES_PX * 2 * np.sqrt(np.pi) * WAVE_LENGTH_PX  # what the blur takes of the deviation
    moved_xy = rng.normal(0, MOVED_PX, size=2)
    x_hw, y_hw = np.meshgrid(np.arange(width), np.arange(height))
    drawn_hw = cv2.remap(
        window_hw.astype(np.float32),
        (x_hw + moved_xy[0] + waves_2hw[0]).astype(np.float32),
        (y_hw + moved_xy[1] + waves_2hw[1]).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    is_missed, is_mistaken = rng.random(2) < (MISSED, MISTAKEN)
    others = [label for label in labels if label != segment.label]
    label = others[int(rng.integers(len(others)))] if is_mistaken and others else segment.label
    drawn = mask_to_segment(drawn_hw > 0.5, label=label)
    if is_missed or drawn is None or drawn.area < LEAST_PIXELS:
        return None
    return replace(drawn, offset_yx=(drawn.offset_yx[0] + top, drawn.offset_yx[1] + left))
