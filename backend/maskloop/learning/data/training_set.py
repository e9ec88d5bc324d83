"""Corrections -> what one training learns from, stops by and is judged on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.splits import (
    VALIDATED_IMAGES,
    choose_corrections,
    holdout_words,
    split_validation,
)
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop.types import UNLABELLED, Correction, Segment

__all__ = ["LabelPlan", "Material", "gather_material", "to_examples"]


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Which classes the next model has, and which of the annotators' labels is which class."""

    labels: tuple[str, ...]  # what annotators can choose
    class_of_label: Mapping[str, str]  # label -> class of the champion; a label not in it is a new class

    def class_for(self, label: str) -> str:
        """Return the model's class for an annotator's label."""
        return self.class_of_label.get(label, label)

    @property
    def classes(self) -> tuple[str, ...]:
        """The next model's classes."""
        return tuple(dict.fromkeys(self.class_for(label) for label in self.labels))

    def without(self, ignored: Collection[str]) -> LabelPlan:
        """Return the plan without labels that mark areas to ignore."""
        return dataclasses.replace(self, labels=tuple(label for label in self.labels if label not in ignored))


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """One training's data."""

    plan: LabelPlan  # without the labels that are ignored
    train: list[Correction]  # one a task
    holdout: list[Correction]
    examples: list[TrainingExample]  # to learn from
    validation: list[TrainingExample]  # to stop by; often none
    judged: list[TrainingExample]  # the holdout
    lacking: str | None  # what the holdout lacks to judge every class, in words


def gather_material(
    train: Iterable[Correction],
    holdout: Iterable[Correction],
    *,
    plan: LabelPlan,
    seen: Collection[int],
    image_cache: ImageCache,
    settings: Settings,
) -> Material:
    """Return what a training works with.

    Args:
        train: corrections to learn from; of several for one task one counts, by the rule of the settings.
        holdout: corrections to judge on.
        plan: the next model's classes.
        seen: rows that the champion has learnt from.
        image_cache: holds the corrections' images.
        settings: which corrections count, which labels are ignored, how large the validation part is.
    """
    used, judged = _used(train, settings), _used(holdout, settings)
    plan = plan.without(settings.ignore_labels)
    learnt, stopping = split_validation(used, fraction=settings.validation_fraction, least=VALIDATED_IMAGES)
    examples, validation, judged_examples = (
        to_examples(some, plan, image_cache, settings, seen) for some in (learnt, stopping, judged)
    )
    drawn = (frozenset(segment.label for segment in example.segments) for example in judged_examples)
    return Material(
        plan=plan,
        train=used,
        holdout=judged,
        examples=examples,
        validation=validation,
        judged=judged_examples,
        lacking=holdout_words(drawn, plan.classes),
    )


def _used(corrections: Iterable[Correction], settings: Settings) -> list[Correction]:
    """Return the corrections that count, one a task."""
    return [
        correction
        for correction in choose_corrections(corrections, settings.annotation_rule)
        # A box taken for a mask would teach, and judge, that objects are boxes.
        if settings.learn_from_boxes or not correction.approximate
    ]


def to_examples(
    corrections: Iterable[Correction],
    plan: LabelPlan,
    image_cache: ImageCache,
    settings: Settings,
    seen: Collection[int],
) -> list[TrainingExample]:
    """Return what a training or a judge is shown of corrections.

    Args:
        corrections: one a task.
        plan: turns labels into classes.
        image_cache: holds their images.
        settings: name labels that are ignored; areas without a label always are.
        seen: rows that the champion has learnt from; the others are fresh.
    """
    ignored = settings.ignore_labels | {UNLABELLED}
    return [
        TrainingExample(
            image=image_cache.path(correction.image_key),
            segments=tuple(
                _as_class(segment, plan) for segment in correction.segments if segment.label not in ignored
            ),
            ignored=tuple(segment for segment in correction.segments if segment.label in ignored),
            key=f"{correction.project_id}/{correction.task_id}/{correction.annotation_id}",
            fresh=correction.version_id not in seen,
        )
        for correction in corrections
    ]


def _as_class(segment: Segment, plan: LabelPlan) -> Segment:
    return dataclasses.replace(segment, label=plan.class_for(segment.label))
