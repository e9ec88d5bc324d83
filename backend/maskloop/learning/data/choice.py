"""Several annotators on one task: which annotation counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from maskloop.types import AnnotationRule, Correction

__all__ = ["choose_corrections"]


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
