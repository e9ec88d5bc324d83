"""How a project's versions are judged at present, and what annotators are shown, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskloop.learning.data.holdout_choice import HoldoutRule
from maskloop.learning.evaluation.gate import LEFT_TO_A_PERSON, GateRule
from maskloop.learning.evaluation.showing import read_showing

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.holdout import Judgement
    from maskloop.store.overview import ProjectCounts
    from maskloop.store.trainings import Training
    from maskloop.types import ModelVersion

__all__ = ["JudgingState", "judging_state", "verdict_in_words"]


@dataclass(frozen=True, kw_only=True)
class JudgingState:
    """What a version has to prove now, and on what."""

    images_needed: int  # further annotated images until the holdout alone judges
    least: int  # images of such a holdout
    has_holdout: bool  # False: MASKLOOP_HOLDOUT_FRACTION is 0
    early: str  # what judges before: folds, or a person
    lacks: str | None  # which classes the holdout has too few images of
    challengers: int  # of the present champion that were judged
    required: float  # confidence that is required of the next one, 0..1
    showing: str | None  # what is drawn of the champion's segments, in words; None: not judged here
    anchoring: str | None  # how pre-annotation flatters, in words


def judging_state(
    counts: ProjectCounts,
    trainings: Sequence[Training],
    judgements: Sequence[Judgement],
    settings: Settings,
    *,
    champion: ModelVersion | None,
) -> JudgingState:
    """Return how a project is judged now.

    Args:
        counts: its annotations.
        trainings: oldest first; what the newest one said of the holdout is taken over.
        judgements: of the project.
        settings: the rules.
        champion: whose segments are drawn; None where there is none.
    """
    rule = HoldoutRule.from_settings(settings)
    outcome = _newest_outcome(trainings)
    judged = sum(champion is not None and one.champion == champion.tag for one in judgements)
    showing = None if champion is None else read_showing(champion.path)
    return JudgingState(
        # Annotations, where copies of an image count each: the next training counts exactly.
        images_needed=rule.missing(counts.train + counts.holdout, counts.holdout),
        least=rule.least,
        has_holdout=rule.fraction > 0,
        early="a person" if settings.early_judging == "ask" else "cross-validation",
        lacks=str(outcome["holdout_lacks"]) if outcome.get("holdout_lacks") else None,
        challengers=judged,
        required=GateRule.from_settings(settings, judged_before=judged).required,
        showing=None if showing is None else showing.in_words(),
        anchoring=_anchoring_in_words(outcome.get("anchoring")),
    )


def verdict_in_words(trainings: Sequence[Training], tag: str) -> str:
    """Return what the judging of a version that waits came to, as the verb and the rest of a sentence."""
    outcome = _outcome_of(trainings, tag)
    reason = str(outcome.get("reason") or "")
    if outcome.get("judged_by") == "nobody":
        return f"could not be judged ({reason or 'not judged yet'})"
    if (outcome.get("decision") or {}).get("ask"):
        left = [
            part.removesuffix(LEFT_TO_A_PERSON) for part in reason.split("; ") if LEFT_TO_A_PERSON in part
        ]
        return f"is left to a person ({'; '.join(left) or reason})"
    return "was judged better"


def _outcome_of(trainings: Sequence[Training], tag: str) -> Mapping[str, Any]:
    return next((one.outcome for one in trainings if one.outcome and one.outcome.get("version") == tag), {})


def _newest_outcome(trainings: Sequence[Training]) -> Mapping[str, Any]:
    return next((one.outcome for one in reversed(trainings) if one.outcome), {})


def _anchoring_in_words(values: object) -> str | None:
    if not isinstance(values, Mapping):
        return None
    try:
        shown, blind = float(values["shown"]), float(values["blind"])
        low, high = (float(bound) for bound in values["interval"])
    except (KeyError, TypeError, ValueError):
        return None
    return (
        f"{shown:.3f} on pre-annotated images, {blind:.3f} on blind ones: difference {shown - blind:+.3f} "
        f"({low:+.3f} to {high:+.3f})"
    )
