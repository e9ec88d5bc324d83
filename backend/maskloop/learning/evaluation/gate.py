"""The gate between a trained model and the annotators: decides by the frozen holdout alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from maskloop.learning.evaluation.comparison import ClassChange, Comparison, compare
from maskloop.learning.evaluation.metrics import Judgement
from maskloop.settings import Settings

__all__ = ["GateRule", "PromotionDecision", "decide"]

_DIGITS = 6
_FEW_IMAGES = 8  # with fewer the reason asks for more


@dataclass(frozen=True, kw_only=True)
class GateRule:
    """What a challenger has to show; docs of the defaults stand with the settings."""

    confidence: float = 0.9  # that the gain exceeds the margin; of all falls of classes together
    margin: float = 0.0  # of the score, the mean of AP50, PQ and mean IoU, 0..1
    class_drop: float = 0.1  # how much of its score any class may lose
    class_floors: Mapping[str, float] = field(default_factory=dict, hash=False)  # class -> least score
    slowdown: float = 0.5  # how much longer an image may take: 0.5 is half as long again
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"GateRule.confidence: expected 0.5..1, got {self.confidence}")
        if self.resamples < 1000:
            raise ValueError(f"GateRule.resamples: expected at least 1000, got {self.resamples}")
        if min(self.margin, self.class_drop, self.slowdown) < 0:
            raise ValueError(f"GateRule: expected no negative bound, got {self}")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return what the settings say."""
        return cls(
            confidence=settings.gate_confidence,
            margin=settings.promotion_margin,
            class_drop=settings.gate_class_drop,
            class_floors=dict(settings.class_floors),
            slowdown=settings.gate_slowdown,
            seed=settings.seed,
        )


@dataclass(frozen=True, kw_only=True)
class PromotionDecision:
    """Whether the challenger takes over, and why."""

    promote: bool
    reason: str  # one sentence with the numbers, kept in the registry
    gain: float = 0.0  # challenger's score minus the champion's; 0 where they cannot be compared
    rule: GateRule = field(default_factory=GateRule)
    comparison: Comparison | None = None  # all numbers; None where they cannot be compared

    def as_json(self) -> dict[str, object]:
        """Return it as plain values for the registry; None for what is not known."""
        told: dict[str, object] = {
            "promote": self.promote,
            "reason": self.reason,
            "gain": _plain(self.gain),
            "rule": {**asdict(self.rule), "class_floors": dict(self.rule.class_floors)},
        }
        seen = self.comparison
        if seen is None:
            return told
        return told | {
            "before": _plain(seen.before),
            "after": _plain(seen.after),
            "confidence": _plain(seen.confidence),
            "interval": [_plain(bound) for bound in seen.interval],
            "images": seen.images,
            "classes": [_class_as_json(change) for change in seen.classes],
            "new_classes": [_class_as_json(change) for change in seen.new],
            "classes_without_example": list(seen.without_example),
            "no_common_class": seen.nothing_common,
            "slowdown": None if seen.slowdown is None else _plain(seen.slowdown),
        }


def decide(
    champion: Judgement,
    challenger: Judgement,
    rule: GateRule = GateRule(),
) -> PromotionDecision:
    """Return whether the challenger takes over.

    It does when a paired bootstrap over the images is sure enough that its score rose by more than the
    margin, no class surely fell by more than it may or fell below its floor, and it is not too slow. The more
    classes there are, the surer a fall has to be, so that none vetoes by chance; a class of few images
    cannot veto at all. For such a class there is the floor, which asks for no certainty.

    Args:
        champion: of the model that is served, on the holdout.
        challenger: of the new model, on the same images.
        rule: what is asked for.

    Returns:
        The decision; no promotion where there is no holdout, where the two were judged on different
        images, or where no class has an example.
    """
    if champion.keys != challenger.keys:
        return _unjudged(
            f"judged on different holdouts: {champion.images} and {challenger.images} images", rule
        )
    if challenger.images == 0:
        return _unjudged(
            "no holdout image to judge by; annotate more tasks or raise the holdout fraction", rule
        )
    seen = compare(
        champion,
        challenger,
        confidence=rule.confidence,
        margin=rule.margin,
        class_drop=rule.class_drop,
        resamples=rule.resamples,
        seed=rule.seed,
    )
    if not seen.classes:
        return _unjudged(
            f"no class that the new model knows has an example among {challenger.images} holdout images;"
            " annotate more tasks or raise the holdout fraction",
            rule,
        )
    faults = _faults(seen, rule)
    notes = [*faults, *_notes(seen, rule)]
    sentence = _headline(seen, rule) + "".join(f"; {note}" for note in notes)
    return PromotionDecision(
        promote=not faults and _surely_better(seen, rule),
        reason=sentence,
        gain=seen.gain,
        rule=rule,
        comparison=seen,
    )


def _unjudged(reason: str, rule: GateRule) -> PromotionDecision:
    return PromotionDecision(promote=False, reason=reason, rule=rule)


def _surely_better(seen: Comparison, rule: GateRule) -> bool:
    return seen.gain > rule.margin and seen.confidence >= rule.confidence


def _surely_fell(change: ClassChange, seen: Comparison, rule: GateRule) -> bool:
    # Bonferroni: of many classes that only seem to fall, one would look sure by chance
    asked = 1 - (1 - rule.confidence) / len(seen.classes)
    return change.fall > rule.class_drop and change.fall_confidence >= asked


def _told(change: ClassChange) -> str:
    return f"{change.label} {change.before:.3f} -> {change.after:.3f} on {change.images} images"


def _faults(seen: Comparison, rule: GateRule) -> list[str]:
    faults = []
    for change in seen.classes:
        floor = rule.class_floors.get(change.label)
        if _surely_fell(change, seen, rule):
            faults.append(f"class {_told(change)} fell by more than {rule.class_drop:g}")
        elif floor is not None and change.fall > 0 and change.after < floor:
            faults.append(f"class {_told(change)} fell below its floor of {floor:g}")
    if seen.slowdown is not None and seen.slowdown > rule.slowdown:
        faults.append(f"an image takes {seen.slowdown:.0%} longer, {rule.slowdown:.0%} are allowed")
    return faults


def _headline(seen: Comparison, rule: GateRule) -> str:
    verb = "rose" if _surely_better(seen, rule) else "did not surely rise"
    low, high = seen.interval
    doubt = "" if math.isnan(low) else f", gain between {low:+.4f} and {high:+.4f}"
    return (
        f"score {verb} by more than {rule.margin:g} on {seen.images} holdout images: "
        f"{seen.before:.4f} -> {seen.after:.4f}{doubt}, "
        f"confidence {seen.confidence:.1%} of {rule.confidence:.1%} asked for"
    )


def _notes(seen: Comparison, rule: GateRule) -> list[str]:
    notes = []
    unsure = [
        change
        for change in seen.classes
        if change.fall > rule.class_drop and not _surely_fell(change, seen, rule)
    ]
    if unsure:
        worst = max(unsure, key=lambda change: change.fall)
        notes.append(f"the largest fall that may be chance is {_told(worst)}")
    if seen.images < _FEW_IMAGES:
        notes.append(f"{seen.images} images make little sure: annotate more or raise the holdout fraction")
    if seen.nothing_common:
        notes.append("the champion knows none of these classes")
    if seen.new:
        told = ", ".join(f"{change.label} {change.after:.3f}" for change in seen.new)
        notes.append(f"new and not compared: {told}")
    if seen.without_example:
        notes.append(f"not judged for want of an example in the holdout: {', '.join(seen.without_example)}")
    return notes


def _class_as_json(change: ClassChange) -> dict[str, object]:
    return {
        "label": change.label,
        "before": _plain(change.before),
        "after": _plain(change.after),
        "fall": _plain(change.fall),
        "fall_confidence": _plain(change.fall_confidence),
        "images": change.images,
    }


def _plain(value: float) -> float | None:
    return round(value, _DIGITS) if math.isfinite(value) else None
