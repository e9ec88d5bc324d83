"""What annotators kept of a version's regions says from which score on its regions are worth drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.corrections import CorrectionRepository
    from maskloop.types import SegmentOutcome

__all__ = ["are_raised", "kept_floors"]

NEWEST = 300  # annotated images that count
RAISED = 0.01  # a smaller change of a score is not worth a look at all predictions


def kept_floors(
    project_id: int, model_version: str, corrections: CorrectionRepository, settings: Settings
) -> dict[str, float]:
    """Return label -> least displayed score from which on annotators keep enough of a version's regions.

    Labels whose regions may all be drawn are left out; above 1, no region of a label is worth drawing. What
    is not drawn has no outcome, so for one version a floor only rises.

    Args:
        project_id: Label Studio's number.
        model_version: tag.
        corrections: the outcomes of predicted regions.
        settings: which share of the regions is enough.
    """
    from maskloop.learning.evaluation.showing_search import ShowingRule, least_worthy_score

    of_label: dict[str, list[SegmentOutcome]] = {}
    for one in corrections.outcomes(project_id, model_version, newest=NEWEST):
        of_label.setdefault(one.label, []).append(one)
    rule = ShowingRule.from_settings(settings)
    floors = {label: least_worthy_score(found, rule) for label, found in of_label.items()}
    return {label: floor for label, floor in floors.items() if floor > 0}


def are_raised(floors: Mapping[str, float], before: Mapping[str, float]) -> bool:
    """Return whether regions that were drawn by the floors before would not be drawn by these."""
    return any(floor > before.get(label, 0.0) + RAISED for label, floor in floors.items())
