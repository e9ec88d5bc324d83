"""What becomes of a judged version by the mode of the settings, and which old versions may go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from maskloop.errors import RegistryError
from maskloop.learning.registry.base import CHALLENGER, CHAMPION, SHADOW, ModelRegistry, way_back
from maskloop.types import ModelVersion, PromotionMode

__all__ = ["Release", "doomed_versions", "prune", "release"]

KEPT_STEPS = 3  # how many rollbacks are always possible


class Release(StrEnum):
    """What became of a version that was judged."""

    PROMOTED = "promoted"  # serves
    WAITING = "waiting"  # was judged better, and waits for somebody to promote it
    SHADOW = "shadow"  # the same, and predicts beside the champion meanwhile
    REFUSED = "refused"  # was not judged better


def release(
    version: ModelVersion, *, better: bool, reason: str, mode: PromotionMode, registry: ModelRegistry
) -> Release:
    """Do with a judged version what the mode says; done again after a kill, it changes nothing more.

    Args:
        version: is registered.
        better: what the gate decided.
        reason: why, for the history.
        mode: who has the last word.
        registry: holds the version.

    Raises:
        RegistryError: the registry refuses.
    """
    if not better:
        return Release.REFUSED
    if _was_champion(version, registry):
        return Release.PROMOTED  # before a kill; somebody may have rolled back since, and that stands
    match mode:
        case PromotionMode.AUTO:
            registry.promote(version.name, version.number, reason=reason)
            return Release.PROMOTED
        case PromotionMode.MANUAL:
            registry.set_alias(version.name, CHALLENGER, version.number)
            return Release.WAITING
        case PromotionMode.SHADOW:
            registry.set_alias(version.name, SHADOW, version.number)
            return Release.SHADOW


def _was_champion(version: ModelVersion, registry: ModelRegistry) -> bool:
    # A step to it alone does not say so: it may have been written down and then never made.
    followed = any(step.before == version.number for step in registry.history(version.name))
    return followed or registry.alias(version.name, CHAMPION) == version.number


def doomed_versions(
    versions: Sequence[ModelVersion], line: Sequence[int], *, keep: int, needed: Collection[int] = ()
) -> tuple[ModelVersion, ...]:
    """Return the versions that may go, oldest first.

    The newest stay, and whatever serves or may serve again: the champion, its parent, and where the next
    rollbacks lead.

    Args:
        versions: all there are.
        line: as `way_back` gives it.
        keep: how many of the newest stay.
        needed: numbers that others point at.
    """
    by_number = {version.number: version for version in versions}
    newest = sorted(by_number, reverse=True)[:keep]
    champion = by_number.get(line[-1]) if line else None
    kept = {*newest, *needed, *line[-1 - KEPT_STEPS :], champion.parent if champion else None}
    return tuple(by_number[number] for number in sorted(by_number) if number not in kept)


def prune(name: str, registry: ModelRegistry, *, keep: int, shown: Collection[str] = ()) -> tuple[str, ...]:
    """Remove old versions for good and return their tags, oldest first.

    Args:
        name: the registered model.
        registry: holds the versions.
        keep: how many of the newest stay.
        shown: tags of versions whose predictions somebody sees.

    Raises:
        RegistryError: the registry refuses to remove one of them; the others are removed.
    """
    versions = registry.versions(name)
    champion = registry.alias(name, CHAMPION)
    needed = {version.number for version in versions if version.tag in shown}
    needed |= {
        number for alias in (CHALLENGER, SHADOW) if (number := registry.alias(name, alias)) is not None
    }
    line = way_back(registry.history(name), champion, versions)
    doomed = doomed_versions(versions, line, keep=keep, needed=needed)
    refused: list[RegistryError] = []
    for version in doomed:
        try:
            registry.delete(name, version.number)
        except RegistryError as exc:  # one damaged entry must not keep all newer ones
            refused.append(exc)
    if refused:
        raise refused[0]
    return tuple(version.tag for version in doomed)
