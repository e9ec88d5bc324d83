"""The history of champions: the recorded changes, and the versions that rollbacks go back through."""

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
    """A change of champion, recorded before it is made, so that a kill leaves no change unrecorded."""

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
        """Return a step with the present time."""
        return cls(
            number=number, before=before, kind=kind, at=datetime.now(UTC), reason=reason[:_REASON_CHARACTERS]
        )


def promotion_line(steps: Sequence[PromotionStep], champion: int | None) -> tuple[int, ...]:
    """Return the champions that rollbacks go back through, oldest first, the present one last.

    A promotion appends a version; a rollback removes the last one, at every position. A step that was
    recorded and not made (a kill came between) does not count; a champion set in MLflow itself does.

    Args:
        steps: recorded steps, oldest first.
        champion: the present champion of the registry.
    """
    line: list[int] = []
    for index, step in enumerate(steps):
        _append(line, step.before)
        following = steps[index + 1].before if index + 1 < len(steps) else champion
        if following == step.before and step.number != following:
            continue  # recorded, then killed before the change
        if step.kind == "rollback" and line:
            line = _without(line, line[-1])
        _append(line, step.number)
    _append(line, champion)
    return tuple(line)


def ancestors(parents: Mapping[int, int | None], number: int | None) -> tuple[int, ...]:
    """Return a version's parents, oldest first, itself last.

    Each was champion when its child was trained; used for registries from before changes were recorded.
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


def _append(line: list[int], number: int | None) -> None:
    """Append a version unless it is the last already."""
    if number is not None and (not line or line[-1] != number):
        line.append(number)


def _without(line: Sequence[int], number: int) -> list[int]:
    left: list[int] = []
    for other in line:
        if other != number:
            _append(left, other)
    return left
