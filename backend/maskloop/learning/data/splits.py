"""Which corrections are used, which of them validate, and which classes the holdout cannot evaluate."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from maskloop.masks import agreement
from maskloop.types import AnnotationRule, Correction, Prediction

__all__ = [
    "choose_corrections",
    "describe_holdout_gaps",
    "is_validation",
    "leave_out_copies",
    "split_validation",
]

MIN_IMAGES_TO_VALIDATE = 40  # fewer images are of more use for training than for validation
MIN_HOLDOUT_IMAGES = 3  # per class


def is_validation(project_id: int, task_id: int, fraction: float) -> bool:
    """Return whether a training task validates; the same for a task in every training.

    The hash differs from that of the holdout, so the validation tasks are a sample of the training tasks.

    Args:
        project_id: Label Studio's number.
        task_id: Label Studio's number.
        fraction: share of the training tasks that validate, 0..1.
    """
    digest = hashlib.sha256(f"validation/{project_id}/{task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


def split_validation(
    corrections: Iterable[Correction], *, fraction: float, least: int
) -> tuple[list[Correction], list[Correction]]:
    """Return the corrections to learn from and those to validate on.

    Args:
        corrections: corrections outside the holdout.
        fraction: share of tasks that validate, 0..1.
        least: with fewer corrections all are learnt from and none validates.
    """
    given = list(corrections)
    if len(given) < least:
        return given, []
    validates = [is_validation(one.project_id, one.task_id, fraction) for one in given]
    learnt = [one for one, selected in zip(given, validates, strict=True) if not selected]
    return learnt, [one for one, selected in zip(given, validates, strict=True) if selected]


def describe_holdout_gaps(holdout: Iterable[frozenset[str]], classes: Sequence[str]) -> str | None:
    """Return which classes the holdout has too few images of, as a sentence; None for none.

    Args:
        holdout: the classes on each image of the holdout.
        classes: classes that a model is evaluated on.
    """
    images = list(holdout)
    counts = Counter(label for labels in images for label in labels)
    if not images:
        return "the holdout is empty: no model can be evaluated until some of its tasks are corrected"
    missing = [name for name in classes if not counts[name]]
    scarce = [f"{name} ({counts[name]})" for name in classes if 0 < counts[name] < MIN_HOLDOUT_IMAGES]
    parts = []
    if missing:
        parts.append(f"no image of {', '.join(missing)}")
    if scarce:
        parts.append(f"fewer than {MIN_HOLDOUT_IMAGES} images of {', '.join(scarce)}")
    if not parts:
        return None
    return f"the holdout of {len(images)} images has {' and '.join(parts)}: correct more tasks with them"


def leave_out_copies(corrections: Iterable[Correction], groups: Mapping[str, str]) -> list[Correction]:
    """Return the corrections of one image of each group: the one that was annotated last.

    All annotations of that image stay: `choose_corrections` chooses among them.

    Args:
        corrections: of one project.
        groups: image key -> group of images that are nearly the same; an image without one is alone.
    """
    given = list(corrections)
    newest: dict[str, Correction] = {}
    for one in sorted(
        given, key=lambda each: (each.updated_at, each.version_id, each.view, each.image_index)
    ):
        newest[groups.get(one.image_key, one.image_key)] = one
    kept = {_place(one) for one in newest.values()}
    return [one for one in given if _place(one) in kept]


def _place(correction: Correction) -> tuple[int, str, int]:
    return correction.task_id, correction.view, correction.image_index


def choose_corrections(corrections: Iterable[Correction], rule: AnnotationRule) -> list[Correction]:
    """Return the corrections of one annotation per task, by task number; one for each image of the task.

    Args:
        corrections: corrections of any tasks, in any order.
        rule: which annotation of a task is used; among equals the one with the higher number.
    """
    by_task: defaultdict[int, list[Correction]] = defaultdict(list)
    for correction in corrections:
        by_task[correction.task_id].append(correction)
    return [one for _, of_task in sorted(by_task.items()) for one in _of_chosen_annotation(of_task, rule)]


def _of_chosen_annotation(corrections: list[Correction], rule: AnnotationRule) -> list[Correction]:
    chosen = _choose(corrections, rule).annotation_id
    images = [correction for correction in corrections if correction.annotation_id == chosen]
    return sorted(images, key=lambda correction: (correction.view, correction.image_index))


def _choose(corrections: list[Correction], rule: AnnotationRule) -> Correction:
    if rule is AnnotationRule.FIRST:
        return min(corrections, key=lambda correction: correction.annotation_id)
    if rule is AnnotationRule.GROUND_TRUTH:
        corrections = [correction for correction in corrections if correction.ground_truth] or corrections
    if rule is AnnotationRule.CONSENSUS:
        corrections = _best_agreeing(corrections)
    return max(corrections, key=lambda correction: (correction.updated_at, correction.annotation_id))


def _best_agreeing(corrections: list[Correction]) -> list[Correction]:
    """Return the images of the annotations whose mean agreement with the others is the highest.

    With two annotations both agree as much, so both are returned. Annotations are compared image by image.
    """
    of_annotation: defaultdict[int, dict[tuple[str, int], Correction]] = defaultdict(dict)
    for one in corrections:
        of_annotation[one.annotation_id][one.view, one.image_index] = one
    if len(of_annotation) < 3:
        return corrections
    scores = {
        number: round(
            sum(_agreement(images, others) for other, others in of_annotation.items() if other != number),
            9,
        )
        for number, images in of_annotation.items()
    }
    best = max(scores.values())
    return [one for one in corrections if scores[one.annotation_id] == best]


def _agreement(first: dict[tuple[str, int], Correction], second: dict[tuple[str, int], Correction]) -> float:
    """Return 0..1: mean agreement over the images that both have."""
    common = first.keys() & second.keys()
    if not common:
        return 0.0
    shared: float = sum(agreement(_prediction(first[one]), _prediction(second[one])) for one in common)
    return shared / len(common)


def _prediction(correction: Correction) -> Prediction:
    return Prediction(segments=correction.segments, size_hw=correction.size_hw, confidence=1.0)
