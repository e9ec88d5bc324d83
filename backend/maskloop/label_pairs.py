"""Which labels swap in a mirror, where a left hand is a right one; known by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["mirror_pairs"]

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORDS = re.compile(r"[A-Za-z]+")


def mirror_pairs(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the labels that differ only in "left" and "right", or "L" and "R", as words of their own.

    Each pair comes once, in the order of the labels: ("left hand", "right hand"), ("eye_L", "eye_R").
    """
    known = set(labels)
    found: list[tuple[str, str]] = []
    for label in labels:
        other = _WORDS.sub(lambda word: _swap_side(word.group()), label)
        if other != label and other in known and (other, label) not in found:
            found.append((label, other))
    return tuple(found)


def _swap_side(word: str) -> str:
    swapped = _SIDES.get(word.lower())
    if swapped is None:
        return word
    if word.isupper():
        return swapped.upper()
    return swapped.capitalize() if word[0].isupper() else swapped
