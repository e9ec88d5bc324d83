"""Judging while the holdout is too small: train on parts of the corrections, judge on the parts left out.

It judges the way of training, not the very version that is registered: that one has learnt from all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.prediction_metrics import Evaluation, join_evaluations
from maskloop.segmentation.checkpoint import Checkpoint

__all__ = ["FOLDS", "MIN_IMAGES", "count_groups", "cross_validate", "group_of", "split_folds"]

FOLDS = 3
MIN_IMAGES = 5  # that are judged; with fewer a person decides


def count_groups(examples: Sequence[TrainingExample]) -> int:
    """Return how many images there are where copies count once."""
    return len({group_of(example) for example in examples})


def split_folds(
    examples: Sequence[TrainingExample], folds: int = FOLDS
) -> tuple[tuple[TrainingExample, ...], ...]:
    """Return the parts of a cross-validation: copies are in one part, and each class in as many as can be.

    Args:
        examples: the images to judge on.
        folds: number of parts; fewer where there are fewer images.
    """
    groups: dict[str, list[TrainingExample]] = {}
    for example in examples:
        groups.setdefault(group_of(example), []).append(example)
    labels = {key: {part.label for one in group for part in one.segments} for key, group in groups.items()}
    images = Counter(label for found in labels.values() for label in found)

    def rarest_first(key: str) -> tuple[int, str, str]:
        rare = min(labels[key], key=lambda label: (images[label], label), default="")
        return images[rare], rare, key

    ordered = sorted(groups, key=rarest_first)
    parts = [
        tuple(example for key in ordered[start::folds] for example in groups[key]) for start in range(folds)
    ]
    return tuple(part for part in parts if part)


def cross_validate(
    examples: Sequence[TrainingExample],
    holdout: Sequence[TrainingExample],
    *,
    challenger: Checkpoint,
    train: Callable[[Sequence[TrainingExample], int], Checkpoint],
    evaluate: Callable[[Checkpoint, Sequence[TrainingExample]], Sequence[Evaluation]],
) -> tuple[Evaluation, Evaluation]:
    """Return the evaluations of champion and challenger on images that neither has learnt from.

    Images that the champion has learnt from are in every training and judge nothing. The images of the
    holdout are judged by the challenger itself.

    Args:
        examples: images to learn from.
        holdout: images to judge on only; may be empty.
        challenger: fine-tuned on all of `examples`.
        train: fine-tunes the champion on some examples; gets the number of the part that is left out.
        evaluate: returns the evaluations of the champion and of a model on the same images.

    Source:
        Kohavi, "A Study of Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection",
        IJCAI 1995.
    """
    pairs = [evaluate(challenger, holdout)] if holdout else []
    for number, part in enumerate(split_folds([one for one in examples if one.fresh and one.judges])):
        left_out = {example.key for example in part}
        rest = [example for example in examples if example.key not in left_out]
        if rest:
            pairs.append(evaluate(train(rest, number), part))
    before, after = zip(*pairs, strict=True)
    return join_evaluations(before), join_evaluations(after)


def group_of(example: TrainingExample) -> str:
    """Return what an image has in common with its copies alone."""
    return example.group or example.key
