"""Corrections -> the images that one training learns from, validates on and is evaluated on."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.pseudo_labels import PoolUse, describe_pool
from maskloop.learning.data.splits import (
    MIN_IMAGES_TO_VALIDATE,
    choose_corrections,
    describe_holdout_gaps,
    split_validation,
)
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop.types import UNLABELLED, Correction, Segment

__all__ = [
    "LabelPlan",
    "TrainingSet",
    "build_training_set",
    "corrections_to_examples",
    "example_key",
    "observed_kinds",
    "other_annotations",
    "used_corrections",
]

MIN_STUFF_IMAGES = 10  # with fewer, one region an image may be chance
MIN_THING_IMAGES = 2  # one may be an area drawn in two strokes
MAX_NAMED = 10  # tasks in a sentence
MAX_DELETED = 100  # of an image: each is a plane of pixels for the loss


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """The classes of the next model, and the class of each label of the annotators."""

    labels: tuple[str, ...]  # labels that annotators can choose
    class_of_label: Mapping[str, str]  # label -> class of the champion; a label not in it is a new class

    def class_for(self, label: str) -> str:
        """Return the model's class for an annotator's label."""
        return self.class_of_label.get(label, label)

    @property
    def classes(self) -> tuple[str, ...]:
        """The next model's classes in the order of their ids."""
        return tuple(dict.fromkeys(self.class_for(label) for label in self.labels))

    def without(self, ignored: Collection[str]) -> LabelPlan:
        """Return the plan without labels that mark areas to ignore."""
        return dataclasses.replace(self, labels=tuple(label for label in self.labels if label not in ignored))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSet:
    """The data of one training."""

    plan: LabelPlan  # without the labels that are ignored
    train: tuple[Correction, ...]  # used corrections outside the holdout, of one annotation per task
    holdout: tuple[Correction, ...]  # used corrections of the holdout, of one annotation per task
    examples: tuple[TrainingExample, ...]  # to learn from
    validation: tuple[TrainingExample, ...]  # to stop training by; often empty
    holdout_examples: tuple[TrainingExample, ...]  # to evaluate on
    holdout_gaps: str | None  # which classes the holdout has too few images of; None for none
    boxes: str | None = None  # how many regions are boxes, and what becomes of them; None for none
    several: str | None = None  # on how many images annotators are compared for soft targets; None: off
    pool: tuple[TrainingExample, ...] = ()  # images that nobody has annotated, with pseudo-labels

    @property
    def learnt(self) -> tuple[TrainingExample, ...]:
        """All examples to learn from, annotated or not."""
        return (*self.examples, *self.pool)

    @property
    def pool_use(self) -> PoolUse | None:
        """What is taken from images that nobody has annotated; None for nothing."""
        return describe_pool(self.pool)


def build_training_set(
    train: Iterable[Correction],
    holdout: Iterable[Correction],
    *,
    plan: LabelPlan,
    learnt_versions: Collection[int],
    image_cache: ImageCache,
    settings: Settings,
    groups: Mapping[str, str] = MappingProxyType({}),
) -> TrainingSet:
    """Return the data of one training.

    Args:
        train: corrections to learn from; of several annotations of a task the settings choose one.
        holdout: corrections to evaluate on, chosen in the same way.
        plan: the next model's classes.
        learnt_versions: version ids of the corrections that the champion has learnt from.
        image_cache: holds the corrections' images.
        settings: which corrections are used, which labels are ignored, how many images validate.
        groups: image key -> group of images that are nearly the same; other images are like no other.
    """
    train = tuple(train)
    used_train, every_holdout = used_corrections(train, settings), used_corrections(holdout, settings)
    used_holdout = tuple(one for one in every_holdout if not one.is_boxes_only)
    others = other_annotations(train, used_train, settings) if settings.train_soft else {}
    plan = plan.without(settings.ignore_labels)
    learnt, validating = split_validation(
        used_train, fraction=settings.validation_fraction, least=MIN_IMAGES_TO_VALIDATE
    )
    examples, validation, holdout_examples = (
        corrections_to_examples(
            corrections,
            plan=plan,
            image_cache=image_cache,
            ignored_labels=settings.ignore_labels,
            learnt_versions=learnt_versions,
            groups=groups,
            others=others,
        )
        for corrections in (learnt, validating, used_holdout)
    )
    holdout_labels = [
        frozenset(segment.label for segment in example.segments) for example in holdout_examples
    ]
    return TrainingSet(
        plan=plan,
        train=used_train,
        holdout=used_holdout,
        examples=examples,
        validation=validation,
        holdout_examples=holdout_examples,
        holdout_gaps=describe_holdout_gaps(holdout_labels, plan.classes),
        boxes=describe_boxes(used_train, every_holdout),
        several=_describe_others(others, train) if settings.train_soft else None,
    )


def describe_boxes(train: Iterable[Correction], holdout: Iterable[Correction]) -> str | None:
    """Return how many regions are boxes and what becomes of them, in words; None where there is none."""
    learnt, judged = list(train), list(holdout)
    regions = sum(one.boxes for one in (*learnt, *judged))
    if not regions:
        return None
    images = sum(one.boxes > 0 for one in (*learnt, *judged))
    text = (
        f"{regions} regions on {images} images are boxes: what is inside is neither learnt as background nor "
        "judged; draw a mask in place of a box that matters"
    )
    left_out = [one for one in judged if one.is_boxes_only]
    if left_out:
        tasks = ", ".join(str(one.task_id) for one in left_out[:MAX_NAMED])
        more = "" if len(left_out) <= MAX_NAMED else f" and {len(left_out) - MAX_NAMED} more"
        text += (
            f"; {len(left_out)} images of the holdout have only boxes and judge nothing: draw masks on "
            f"tasks {tasks}{more}"
        )
    return text


def observed_kinds(examples: Iterable[TrainingExample]) -> dict[str, bool]:
    """Return label -> whether annotators draw it as stuff (one region an image) or as things (many).

    A label is stuff where at least `MIN_STUFF_IMAGES` images have it and none has two regions of it; it is a
    thing where at least `MIN_THING_IMAGES` images have two. Labels of which neither is true are left out.

    Args:
        examples: annotated images, one each.
    """
    images: Counter[str] = Counter()
    crowded: Counter[str] = Counter()  # images with two regions or more
    for example in examples:
        for label, count in Counter(one.label for one in (*example.segments, *example.boxes)).items():
            images[label] += 1
            crowded[label] += count > 1
    kinds = {label: False for label, count in crowded.items() if count >= MIN_THING_IMAGES}
    kinds |= {
        label: True for label, count in images.items() if count >= MIN_STUFF_IMAGES and not crowded[label]
    }
    return kinds


def used_corrections(corrections: Iterable[Correction], settings: Settings) -> tuple[Correction, ...]:
    """Return the corrections that are used: those of one annotation per task.

    With `learn_from_boxes` their boxes are masks.
    """
    chosen = choose_corrections(corrections, settings.annotation_rule)
    return tuple(_with_boxes_as_set(one, settings) for one in chosen)


def _with_boxes_as_set(correction: Correction, settings: Settings) -> Correction:
    if not settings.learn_from_boxes:
        return correction
    masks = tuple(dataclasses.replace(part, is_box=False) for part in correction.segments)
    return dataclasses.replace(correction, segments=masks)


def other_annotations(
    corrections: Iterable[Correction], used: Iterable[Correction], settings: Settings
) -> dict[str, tuple[Correction, ...]]:
    """Return key of an example -> what other people drew on its image: of each person the newest.

    Annotations whose annotator is not known are left out: they may be of the same person.

    Args:
        corrections: all annotations of the tasks.
        used: those of one annotation per task, as `used_corrections` returns them.
        settings: whether boxes are masks.
    """
    of_image: dict[object, dict[int, Correction]] = {}
    for one in sorted(corrections, key=lambda each: (each.updated_at, each.annotation_id)):
        if one.annotator is not None:
            of_image.setdefault(_image(one), {})[one.annotator] = one
    found = {}
    for one in used:
        if one.annotator is None:
            continue
        people = of_image.get(_image(one), {})
        others = [people[number] for number in sorted(people) if number != one.annotator]
        if others:
            found[example_key(one)] = tuple(_with_boxes_as_set(other, settings) for other in others)
    return found


def _image(correction: Correction) -> tuple[object, ...]:
    """Return what annotations of the same image of the same task have in common."""
    return (
        correction.task_id,
        correction.view,
        correction.image_index,
        correction.image_key,
        correction.size_hw,
    )


def _describe_others(others: Mapping[str, tuple[Correction, ...]], every: Iterable[Correction]) -> str:
    compared = sum(map(len, others.values()))
    text = (
        f"{len(others)} images have soft targets, from {compared} annotations beside those that are believed"
    )
    unknown = sum(one.annotator is None for one in every)
    if unknown:
        text += (
            f"; {unknown} annotations name no annotator and are not compared: an older maskloop stored them; "
            "update them in Label Studio"
        )
    return text


def corrections_to_examples(
    corrections: Iterable[Correction],
    *,
    plan: LabelPlan,
    image_cache: ImageCache,
    ignored_labels: Collection[str],
    learnt_versions: Collection[int],
    groups: Mapping[str, str] = MappingProxyType({}),
    others: Mapping[str, Iterable[Correction]] = MappingProxyType({}),
) -> tuple[TrainingExample, ...]:
    """Return corrections as examples for training or evaluation.

    Args:
        corrections: corrections of one annotation per task.
        plan: maps labels to classes.
        image_cache: holds the images.
        ignored_labels: labels of areas that are neither object nor background; unlabelled areas always are.
        learnt_versions: version ids that the champion has learnt from; examples of others are fresh.
        groups: image key -> group of images that are nearly the same; other images are like no other.
        others: key of an example -> what other annotators drew on its image, for soft targets.
    """
    ignored = frozenset(ignored_labels) | {UNLABELLED}
    return tuple(
        TrainingExample(
            image=image_cache.path(correction.image_key),
            segments=tuple(
                _as_class(segment, plan)
                for segment in correction.segments
                if segment.label not in ignored and not segment.is_box
            ),
            boxes=tuple(
                _as_class(segment, plan)
                for segment in correction.segments
                if segment.label not in ignored and segment.is_box
            ),
            ignored=tuple(segment for segment in correction.segments if segment.label in ignored),
            deleted=tuple(
                segment
                for segment in correction.deleted
                if segment.label not in ignored and not segment.is_box
            )[:MAX_DELETED],
            key=example_key(correction),
            fresh=correction.version_id not in learnt_versions,
            group=groups.get(correction.image_key, ""),
            others=tuple(
                tuple(
                    dataclasses.replace(segment, label=UNLABELLED)
                    if segment.label in ignored
                    else _as_class(segment, plan)
                    for segment in other.segments
                )
                for other in others.get(example_key(correction), ())
            ),
        )
        for correction in corrections
    )


def example_key(correction: Correction) -> str:
    """Return the key of the example that a correction becomes."""
    annotation = f"{correction.project_id}/{correction.task_id}/{correction.annotation_id}"
    if not correction.view and not correction.image_index:  # the only image of its task
        return annotation
    return f"{annotation}/{correction.view}/{correction.image_index}"


def _as_class(segment: Segment, plan: LabelPlan) -> Segment:
    return dataclasses.replace(segment, label=plan.class_for(segment.label))
