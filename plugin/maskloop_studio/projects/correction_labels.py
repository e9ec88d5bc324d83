"""Labels of stored corrections -> labels of the project's label config, which may have changed since."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop.types import UNLABELLED, Correction, Segment
from maskloop_studio.formats import match_label, parse_label_config

if TYPE_CHECKING:
    from maskloop.learning.data.training_set import LabelPlan
    from maskloop.settings import Settings
    from maskloop_studio.formats import LabelConfig

__all__ = ["add_correction_labels", "current_label", "match_correction_labels"]

logger = logging.getLogger(__name__)
MAX_NAMED = 20  # labels in one log line


def match_correction_labels(
    *parts: Sequence[Correction], label_config: str, settings: Settings
) -> tuple[tuple[Correction, ...], ...]:
    """Return corrections with the labels that the label config has now.

    A label is found exactly, in another case, by its `predicted_values`, or by MASKLOOP_LABEL_RENAMES. One
    that is not found makes its segment an unlabelled area, from which nothing is learnt; all such labels are
    named in one log line.

    Args:
        parts: such as those of a training, and those of its holdout.
        label_config: the project's (XML).
        settings: name renamed labels, and labels that are ignored.

    Returns:
        As many tuples as there are parts, with the same corrections in the same order.

    Raises:
        LabelConfigError: the label config cannot be read.
    """
    config = parse_label_config(label_config)
    if config.is_dynamic:  # each task has labels of its own; they were matched when it was taken in
        return tuple(tuple(part) for part in parts)
    names = {segment.label for part in parts for one in part for segment in one.segments}
    labels = {name: current_label(name, config, settings) for name in names}
    unknown = Counter(
        segment.label
        for part in parts
        for one in part
        for segment in one.segments
        if labels[segment.label] is None
    )
    if unknown:
        log_action(
            logger,
            "labels_unknown",
            level=logging.WARNING,
            project_id=next(one.project_id for part in parts for one in part),
            segments=unknown.total(),
            labels=", ".join(f"{label} ({count})" for label, count in unknown.most_common(MAX_NAMED)),
            remedy="add the label to the label config, name it in `predicted_values` of a <Label>, or set "
            'MASKLOOP_LABEL_RENAMES="old=new"; until then nothing is learnt from these segments',
        )
    return tuple(
        tuple(
            dataclasses.replace(
                one, segments=tuple(_renamed(segment, labels[segment.label]) for segment in one.segments)
            )
            for one in part
        )
        for part in parts
    )


def add_correction_labels(
    plan: LabelPlan, *parts: Sequence[Correction], model_labels: Sequence[str], settings: Settings
) -> LabelPlan:
    """Return a plan with the labels of corrections that it lacks: those that come with each task.

    Args:
        plan: has the labels of the label config.
        parts: corrections after `match_correction_labels`: all other labels are in the config.
        model_labels: a label that is one of these classes, but for the case, is learnt as that class.
        settings: name the labels that are ignored.
    """
    known = {*plan.labels, *settings.ignore_labels, UNLABELLED}
    found = {segment.label for part in parts for one in part for segment in one.segments} - known
    class_of_label = dict(plan.class_of_label)
    for label in found:
        name = match_label(label, model_labels, aliases={}, renames={})
        if name is not None:
            class_of_label[label] = name
    return dataclasses.replace(plan, labels=(*plan.labels, *sorted(found)), class_of_label=class_of_label)


def current_label(label: str, config: LabelConfig, settings: Settings) -> str | None:
    """Return the label of a config that a stored label is now, or None; ignored labels stay.

    Args:
        label: as it was stored with a correction.
        config: the project's label config now.
        settings: name renamed labels, and labels that are ignored.
    """
    if label == UNLABELLED or label in settings.ignore_labels:
        return label
    aliases = {alias: name for control in config.controls for alias, name in control.aliases.items()}
    return match_label(label, config.all_labels, aliases=aliases, renames=settings.label_renames)


def _renamed(segment: Segment, label: str | None) -> Segment:
    name = UNLABELLED if label is None else label
    return segment if name == segment.label else dataclasses.replace(segment, label=name)
