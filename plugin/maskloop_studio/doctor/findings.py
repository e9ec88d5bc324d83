"""What a check found: a level, a place, expected, got, remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["Finding", "Level", "good", "hint", "scrubbed", "trouble"]

STARS = "[secret]"


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    HINT = "hint"  # works, but is worth knowing
    TROUBLE = "trouble"
    SKIPPED = "skipped"  # needs something that does not work, which another finding names


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of a check."""

    check: str = ""  # the check's name
    level: Level
    place: str
    expected: str = ""
    got: str = ""
    remedy: str = ""


def good(place: str, got: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(level=Level.GOOD, place=place, got=got)


def hint(place: str, *, expected: str, got: str, remedy: str) -> Finding:
    """Return something that works but is worth knowing."""
    return Finding(level=Level.HINT, place=place, expected=expected, got=got, remedy=remedy)


def trouble(place: str, *, expected: str, got: str, remedy: str) -> Finding:
    """Return something that does not work."""
    return Finding(level=Level.TROUBLE, place=place, expected=expected, got=got, remedy=remedy)


def scrubbed(finding: Finding, secrets: Sequence[str]) -> Finding:
    """Return a finding whose texts contain none of the secrets."""

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, STARS) if secret else text
        return text

    return replace(
        finding,
        place=clean(finding.place),
        expected=clean(finding.expected),
        got=clean(finding.got),
        remedy=clean(finding.remedy),
    )
