"""Which published checkpoints know a project's labels, by the rule that `connect` uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import LabelConfigError
from maskloop.segmentation.published import PublishedCheckpoint, published_checkpoints
from maskloop_studio.formats.label_config import map_labels

if TYPE_CHECKING:
    from maskloop_studio.formats.controls import LabelConfig

__all__ = ["Suggestion", "suggest_checkpoints"]


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A published checkpoint beside a project's labels."""

    checkpoint: PublishedCheckpoint
    known: tuple[str, ...]  # labels that it draws as the label config stands
    similar: dict[str, tuple[str, ...]]  # other labels -> classes that predicted_values could name


def suggest_checkpoints(config: LabelConfig) -> tuple[Suggestion, ...]:
    """Return all published checkpoints, the best first.

    First those that know the most labels, then those with the most similar classes, then those that load
    without being converted, then the smallest.
    """
    found = [_suggestion(config, checkpoint) for checkpoint in published_checkpoints()]
    return tuple(
        sorted(
            found,
            key=lambda one: (
                -len(one.known),
                -len(one.similar),
                one.checkpoint.must_be_converted,
                one.checkpoint.megabytes,
            ),
        )
    )


def _suggestion(config: LabelConfig, checkpoint: PublishedCheckpoint) -> Suggestion:
    try:
        unmatched = map_labels(config, checkpoint.classes).unmatched_labels
    except LabelConfigError:  # it knows none of them
        unmatched = config.all_labels
    similar = {label: _similar(label, checkpoint.classes) for label in unmatched}
    return Suggestion(
        checkpoint=checkpoint,
        known=tuple(label for label in config.all_labels if label not in unmatched),
        similar={label: classes for label, classes in similar.items() if classes},
    )


def _similar(label: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    # COCO calls grass "grass-merged" and walls "wall-brick"; a class with a comma cannot be an alias.
    start = label.strip().casefold() + "-"
    return tuple(name for name in classes if name.casefold().startswith(start))
