"""Which corrections count, which of them are for validation, and whether the holdout can judge."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from maskloop.types import AnnotationRule, Correction

__all__ = ["choose_corrections", "holdout_words", "is_validation", "split_validation"]

VALIDATED_IMAGES = 40  # fewer are worth more as training images than as a validation part
LEAST_IMAGES = 3  # of the holdout, with a class: fewer say little of it


def is_validation(project_id: int, task_id: int, fraction: float) -> bool:
    """Return whether a training task belongs to the validation part; the answer never changes.

    The hash is another one than the holdout's, so the part is a sample of the training tasks.

    Args:
        project_id: Label Studio's number.
        task_id: Label Studio's number.
        fraction: 0..1, of the training tasks.
    """
    digest = hashlib.sha256(f"validation/{project_id}/{task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


def split_validation(
    corrections: Iterable[Correction], *, fraction: float, least: int
) -> tuple[list[Correction], list[Correction]]:
    """Return the corrections to learn from and those to decide by when to stop.

    Args:
        corrections: none of the holdout.
        fraction: 0..1, of the second part.
        least: with fewer corrections all are learnt from and the second part is empty.
    """
    everything = list(corrections)
    if len(everything) < least:
        return everything, []
    stops = [is_validation(one.project_id, one.task_id, fraction) for one in everything]
    learnt = [one for one, stop in zip(everything, stops, strict=True) if not stop]
    return learnt, [one for one, stop in zip(everything, stops, strict=True) if stop]


def holdout_words(holdout: Iterable[frozenset[str]], classes: Sequence[str]) -> str | None:
    """Return what the holdout lacks to judge every class, in words; None where it lacks nothing.

    Args:
        holdout: the classes on each of its images.
        classes: that a model is judged on.
    """
    images = list(holdout)
    counts = Counter(label for labels in images for label in labels)
    if not images:
        return "the holdout is empty: nothing can be judged until some of its tasks are corrected"
    missing = [name for name in classes if not counts[name]]
    scarce = [f"{name} ({counts[name]})" for name in classes if 0 < counts[name] < LEAST_IMAGES]
    parts = []
    if missing:
        parts.append(f"no image of {', '.join(missing)}")
    if scarce:
        parts.append(f"fewer than {LEAST_IMAGES} images of {', '.join(scarce)}")
    if not parts:
        return None
    return f"the holdout of {len(images)} images has {' and '.join(parts)}: correct more tasks with them"


def choose_corrections(corrections: Iterable[Correction], rule: AnnotationRule) -> list[Correction]:
    """Return one correction a task, by task number.

    Args:
        corrections: of any tasks, in any order.
        rule: which counts; among equals the annotation with the higher number.
    """
    by_task: defaultdict[int, list[Correction]] = defaultdict(list)
    for correction in corrections:
        by_task[correction.task_id].append(correction)
    return [_choose(said, rule) for _, said in sorted(by_task.items())]


def _choose(said: list[Correction], rule: AnnotationRule) -> Correction:
    if rule is AnnotationRule.FIRST:
        return min(said, key=lambda correction: correction.annotation_id)
    if rule is AnnotationRule.GROUND_TRUTH:
        said = [correction for correction in said if correction.ground_truth] or said
    return max(said, key=lambda correction: (correction.updated_at, correction.annotation_id))
