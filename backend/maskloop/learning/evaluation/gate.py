"""The promotion gate: decides by the holdout whether a new model replaces the served one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from maskloop.learning.evaluation.comparison import ClassChange, Comparison, compare
from maskloop.learning.evaluation.prediction_metrics import Evaluation
from maskloop.settings import Settings

__all__ = ["LEFT_TO_A_PERSON", "GateRule", "PromotionDecision", "decide", "leave_open"]

LEFT_TO_A_PERSON = ": a person decides"  # ends each doubt in the reason of a decision
_DIGITS = 6
_FEW_IMAGES = 8  # with fewer, the reason recommends to annotate more


@dataclass(frozen=True, kw_only=True)
class GateRule:
    """The conditions of a promotion; the settings explain the defaults."""

    confidence: float = 0.9  # that the gain exceeds the margin, of all challengers of a champion together
    judged_before: int = 0  # challengers of this champion that were judged already
    margin: float = 0.0  # the score (mean of AP50, PQ and mean IoU, 0..1) has to rise by more
    class_drop: float = 0.1  # how much the score of a class may fall
    class_fall: float = 0.3  # a class that fell by more, by chance or not, leaves the decision to a person
    class_floors: Mapping[str, float] = field(default_factory=dict, hash=False)  # class -> lowest score
    slowdown: float = 0.5  # how much longer an image may take: 0.5 allows 1.5 times the time
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"GateRule.confidence: expected 0.5..1, got {self.confidence}")
        if self.resamples < 1000:
            raise ValueError(f"GateRule.resamples: expected at least 1000, got {self.resamples}")
        if min(self.margin, self.class_drop, self.class_fall, self.slowdown, self.judged_before) < 0:
            raise ValueError(f"GateRule: expected no negative bound, got {self}")

    @property
    def required(self) -> float:
        """The confidence that is required of this challenger, 0..1.

        A champion's challengers share the risk 1 - confidence: the k-th may spend 1 / (k (k + 1)) of it.
        Their sum is the whole, so that however many are tried, a champion is replaced by a version that is no
        better with at most this probability. Until one passes, no challenger depends on what the holdout said
        of the others, so that it makes no difference that all are judged on the same images.

        Source:
            Tian and Ramdas, "Online control of the familywise error rate", Statistical Methods in Medical
            Research 30 (2021): alpha-spending; Blum and Hardt, "The Ladder", ICML 2015: what one bit a round
            gives away.
        """
        turn = self.judged_before + 1
        return 1 - (1 - self.confidence) / (turn * (turn + 1))

    @classmethod
    def from_settings(cls, settings: Settings, *, judged_before: int = 0, dearer: float = 1.0) -> Self:
        """Return the rule of the settings for a champion's next challenger.

        Args:
            settings: the conditions.
            judged_before: challengers of this champion that were judged already.
            dearer: how many times the champion's pixels the challenger looks at, by plan: an image may take
                so many times longer.
        """
        return cls(
            judged_before=judged_before,
            confidence=settings.gate_confidence,
            margin=settings.promotion_margin,
            class_drop=settings.gate_class_drop,
            class_fall=settings.gate_class_fall,
            class_floors=dict(settings.class_floors),
            slowdown=(1 + settings.gate_slowdown) * dearer - 1,
            seed=settings.seed,
        )


@dataclass(frozen=True, kw_only=True)
class PromotionDecision:
    """Whether the challenger takes over, and why."""

    promote: bool
    reason: str  # one sentence with the numbers, stored in the registry
    ask: bool = False  # a person has to decide: it may be better
    gain: float = 0.0  # challenger's score minus the champion's; 0 where they cannot be compared
    rule: GateRule = field(default_factory=GateRule)
    comparison: Comparison | None = None  # all numbers; None where they cannot be compared

    def as_json(self) -> dict[str, object]:
        """Return it as plain values for the registry; None for unknown numbers."""
        values: dict[str, object] = {
            "promote": self.promote,
            "ask": self.ask,
            "reason": self.reason,
            "gain": _plain(self.gain),
            "rule": {
                **asdict(self.rule),
                "class_floors": dict(self.rule.class_floors),
                "required": _plain(self.rule.required),
            },
        }
        comparison = self.comparison
        if comparison is None:
            return values
        return values | {
            "before": _plain(comparison.before),
            "after": _plain(comparison.after),
            "confidence": _plain(comparison.confidence),
            "interval": [_plain(bound) for bound in comparison.interval],
            "images": comparison.images,
            "classes": [_class_as_json(change) for change in comparison.classes],
            "new_classes": [_class_as_json(change) for change in comparison.new],
            "classes_without_example": list(comparison.without_example),
            "no_common_class": comparison.nothing_common,
            "slowdown": None if comparison.slowdown is None else _plain(comparison.slowdown),
        }


def decide(
    champion: Evaluation,
    challenger: Evaluation,
    rule: GateRule = GateRule(),
) -> PromotionDecision:
    """Return whether the challenger takes over.

    It does when a paired bootstrap over the images gives the required confidence that its score rose by more
    than the margin, no class fell with confidence by more than allowed or fell below its floor, and it is not
    too slow. With more classes each fall needs a higher confidence, so that no class prevents a promotion by
    chance; a class with a floor needs none. Where a class is gone or fell far, by chance or not, and where
    the confidence is less than this challenger needs but enough for one alone, a person decides.

    Args:
        champion: evaluation of the served model on the holdout.
        challenger: evaluation of the new model on the same images.
        rule: the conditions.

    Returns:
        The decision; no promotion without a holdout, where the two were evaluated on different images, or
        where no class has an example.
    """
    if champion.keys != challenger.keys:
        return _no_decision(
            f"evaluated on different holdouts: {champion.images} and {challenger.images} images", rule
        )
    if challenger.images == 0:
        return _no_decision(
            "no holdout image to evaluate on; annotate more tasks or raise the holdout fraction", rule
        )
    comparison = compare(
        champion,
        challenger,
        confidence=rule.required,
        margin=rule.margin,
        class_drop=rule.class_drop,
        resamples=rule.resamples,
        seed=rule.seed,
    )
    if not comparison.classes:
        return _no_decision(
            f"no class of the new model has an example among {challenger.images} holdout images;"
            " annotate more tasks or raise the holdout fraction",
            rule,
        )
    objections = _objections(comparison, rule)
    doubts = [] if objections else _doubts(comparison, rule)
    notes = [*objections, *doubts, *_notes(comparison, rule)]
    sentence = _headline(comparison, rule) + "".join(f"; {note}" for note in notes)
    better = not objections and _is_better(comparison, rule)
    return PromotionDecision(
        promote=better and not doubts,
        ask=bool(doubts) and (better or _is_likely_better(comparison, rule)),
        reason=sentence,
        gain=comparison.gain,
        rule=rule,
        comparison=comparison,
    )


def leave_open(reason: str, rule: GateRule) -> PromotionDecision:
    """Return the decision that a person has to decide, as nothing could be judged."""
    return PromotionDecision(promote=False, ask=True, reason=reason, rule=rule)


def _no_decision(reason: str, rule: GateRule) -> PromotionDecision:
    return PromotionDecision(promote=False, reason=reason, rule=rule)


def _is_better(comparison: Comparison, rule: GateRule) -> bool:
    return comparison.gain > rule.margin and comparison.confidence >= rule.required


def _is_likely_better(comparison: Comparison, rule: GateRule) -> bool:
    """Return whether it would pass if it were the only challenger of its champion."""
    return comparison.gain > rule.margin and comparison.confidence >= rule.confidence


def _fell_with_confidence(change: ClassChange, comparison: Comparison, rule: GateRule) -> bool:
    # Bonferroni correction: of many classes, one would pass a fixed confidence by chance
    required = 1 - (1 - rule.confidence) / len(comparison.classes)
    return change.fall > rule.class_drop and change.fall_confidence >= required


def _change_text(change: ClassChange) -> str:
    return f"{change.label} {change.before:.3f} -> {change.after:.3f} on {change.images} images"


def _objections(comparison: Comparison, rule: GateRule) -> list[str]:
    objections = []
    for change in comparison.classes:
        floor = rule.class_floors.get(change.label)
        if _fell_with_confidence(change, comparison, rule):
            objections.append(f"class {_change_text(change)} fell by more than {rule.class_drop:g}")
        elif floor is not None and change.fall > 0 and change.after < floor:
            objections.append(f"class {_change_text(change)} fell below its floor of {floor:g}")
    if comparison.slowdown is not None and comparison.slowdown > rule.slowdown:
        objections.append(f"an image takes {comparison.slowdown:.0%} longer, {rule.slowdown:.0%} are allowed")
    return objections


def _doubts(comparison: Comparison, rule: GateRule) -> list[str]:
    """Return why a version that may be better is not promoted by itself."""
    if not _is_likely_better(comparison, rule):
        return []
    doubts = [
        f"class {_change_text(change)} {'is gone' if change.after == 0 else 'fell far'}{LEFT_TO_A_PERSON}"
        for change in comparison.classes
        if change.fall > rule.class_fall or change.after == 0 < change.before
    ]
    if not _is_better(comparison, rule):
        doubts.append(
            f"likely better, but challenger {rule.judged_before + 1} of the same champion{LEFT_TO_A_PERSON}"
        )
    return doubts


def _headline(comparison: Comparison, rule: GateRule) -> str:
    verb = "rose" if _is_better(comparison, rule) else "did not rise with confidence"
    low, high = comparison.interval
    interval = "" if math.isnan(low) else f", gain between {low:+.4f} and {high:+.4f}"
    return (
        f"score {verb} by more than {rule.margin:g} on {comparison.images} holdout images: "
        f"{comparison.before:.4f} -> {comparison.after:.4f}{interval}, "
        f"confidence {_percent(comparison.confidence)} of {_percent(rule.required)} required"
    )


def _percent(confidence: float) -> str:
    """Return a confidence in per cent, with as many digits as it takes to tell it from 100."""
    return f"{confidence:.1%}" if confidence < 0.995 else f"{math.floor(confidence * 1e5) / 1e3:.3f}%"


def _notes(comparison: Comparison, rule: GateRule) -> list[str]:
    notes = []
    possible_falls = [
        change
        for change in comparison.classes
        if change.fall > rule.class_drop and not _fell_with_confidence(change, comparison, rule)
    ]
    if possible_falls:
        worst = max(possible_falls, key=lambda change: change.fall)
        notes.append(f"the largest fall that may be chance is {_change_text(worst)}")
    if comparison.images < _FEW_IMAGES:
        notes.append(
            f"{comparison.images} images give little confidence: annotate more or raise the holdout fraction"
        )
    if comparison.nothing_common:
        notes.append("the champion has none of these classes")
    if comparison.new:
        new = ", ".join(f"{change.label} {change.after:.3f}" for change in comparison.new)
        notes.append(f"new and not compared: {new}")
    if comparison.without_example:
        notes.append(
            f"not evaluated, without an example in the holdout: {', '.join(comparison.without_example)}"
        )
    return notes


def _class_as_json(change: ClassChange) -> dict[str, object]:
    return {
        "label": change.label,
        "before": _plain(change.before),
        "after": _plain(change.after),
        "fall": _plain(change.fall),
        "fall_confidence": _plain(change.fall_confidence),
        "images": change.images,
        "interval": [_plain(bound) for bound in change.interval],
    }


def _plain(value: float) -> float | None:
    return round(value, _DIGITS) if math.isfinite(value) else None
