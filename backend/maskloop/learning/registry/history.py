"""Who was champion after whom: steps as they were written down, and the way back that they come to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

__all__ = ["PromotionStep", "StepKind", "ancestors", "json_to_step", "promotion_line", "step_to_json"]

StepKind: TypeAlias = Literal["promotion", "rollback"]

_REASON_CHARACTERS = 1000


@dataclass(frozen=True, kw_only=True)
class PromotionStep:
    """A change of champion, written down before it is made: none is without a note, whatever is killed."""

    number: int  # the version that became champion
    before: int | None  # the champion until then
    kind: StepKind
    at: datetime  # aware
    reason: str = ""

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("PromotionStep.at: expected an aware datetime, got a naive one")

    @classmethod
    def now(cls, number: int, before: int | None, kind: StepKind, reason: str) -> PromotionStep:
        """Return a step of this moment."""
        return cls(
            number=number, before=before, kind=kind, at=datetime.now(UTC), reason=reason[:_REASON_CHARACTERS]
        )


def promotion_line(steps: Sequence[PromotionStep], champion: int | None) -> tuple[int, ...]:
    """Return the champions that a rollback goes back through, oldest first, the present one last.

    A promotion adds a version; a rollback takes the last one off for good, wherever else it stood. A step
    that was written down but never made does not count; a champion that somebody made without us does.

    Args:
        steps: oldest first.
        champion: what the registry says now; it is the truth.
    """
    line: list[int] = []
    for index, step in enumerate(steps):
        _settle(line, step.before)
        following = steps[index + 1].before if index + 1 < len(steps) else champion
        if following == step.before and step.number != following:
            continue  # killed before it was made
        if step.kind == "rollback" and line:
            line = _without(line, line[-1])
        _settle(line, step.number)
    _settle(line, champion)
    return tuple(line)


def ancestors(parents: Mapping[int, int | None], number: int | None) -> tuple[int, ...]:
    """Return a version's line of parents, oldest first, itself last.

    Each was champion when its child was trained: the way back of registries from before there were steps.
    """
    line: list[int] = []
    while number is not None and number in parents and number not in line:
        line.insert(0, number)
        number = parents[number]
    return tuple(line)


def step_to_json(step: PromotionStep) -> str:
    """Return a step as JSON."""
    return json.dumps({**dataclasses.asdict(step), "at": step.at.isoformat()})


def json_to_step(text: str) -> PromotionStep:
    """Return the step of `step_to_json`."""
    fields = json.loads(text)
    return PromotionStep(**{**fields, "at": datetime.fromisoformat(fields["at"])})


def _settle(line: list[int], number: int | None) -> None:
    """Make a version the last of the line."""
    if number is not None and (not line or line[-1] != number):
        line.append(number)


def _without(line: Sequence[int], number: int) -> list[int]:
    left: list[int] = []
    for other in line:
        if other != number:
            _settle(left, other)
    return left
