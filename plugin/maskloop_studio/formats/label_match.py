"""A label as it stands in a region -> the label of the config that it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["match_label"]


def match_label(
    label: str, labels: Sequence[str], *, aliases: Mapping[str, str], renames: Mapping[str, str]
) -> str | None:
    """Return which of the labels is meant: the same one, else in another case, by alias, or by its new name.

    Args:
        label: what the region carries.
        labels: those that may be meant, the first one first.
        aliases: other names of these labels (`predicted_values`, a shown value) -> the label.
        renames: old label -> new label, as the user gives them.

    Returns:
        One of `labels`; None where none is meant.
    """
    direct = _match(label, labels, aliases)
    if direct is not None or not renames:
        return direct
    renamed = renames.get(label) or _folded(renames).get(_fold(label))
    return _match(renamed, labels, aliases) if renamed is not None else None


def _match(label: str, labels: Sequence[str], aliases: Mapping[str, str]) -> str | None:
    if label in labels:
        return label
    wanted = _fold(label)
    for candidate in labels:
        if _fold(candidate) == wanted:
            return candidate
    return _folded(aliases).get(wanted)


def _folded(names: Mapping[str, str]) -> dict[str, str]:
    return {_fold(name): label for name, label in reversed(list(names.items()))}


def _fold(name: str) -> str:
    return name.strip().casefold()
