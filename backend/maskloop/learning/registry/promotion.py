"""Promotion of evaluated versions by the mode of the settings, and pruning of old versions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum

from maskloop.errors import RegistryError
from maskloop.learning.registry.base import CHALLENGER, CHAMPION, SHADOW, ModelRegistry, rollback_line
from maskloop.types import ModelVersion, PromotionMode

__all__ = ["Release", "prunable_versions", "prune", "release"]

KEPT_STEPS = 3  # number of rollbacks that are always possible


class Release(StrEnum):
    """The result of the gate for a version."""

    PROMOTED = "promoted"  # is the champion
    WAITING = "waiting"  # passed the gate or may be better, waits for a manual promotion
    SHADOW = "shadow"  # the same, and predicts beside the champion
    REFUSED = "refused"  # did not pass the gate


def release(
    version: ModelVersion,
    *,
    better: bool,
    ask: bool = False,
    reason: str,
    mode: PromotionMode,
    registry: ModelRegistry,
) -> Release:
    """Promote an evaluated version or set its alias, as the mode requires; a repetition changes nothing.

    Args:
        version: a registered version.
        better: whether it passed the gate.
        ask: whether a person has to decide where it did not.
        reason: the gate's reason, for the history.
        mode: whether a promotion is automatic.
        registry: holds the version.

    Raises:
        RegistryError: the registry refuses.
    """
    if not better and not ask:
        return Release.REFUSED
    if _was_champion(version, registry):
        return Release.PROMOTED  # promoted before a kill; a rollback since then stays
    if not better:
        registry.set_alias(version.name, CHALLENGER, version.number)
        return Release.WAITING
    match mode:
        case PromotionMode.AUTO | PromotionMode.TRIAL:
            registry.promote(version.name, version.number, reason=reason)
            return Release.PROMOTED
        case PromotionMode.MANUAL:
            registry.set_alias(version.name, CHALLENGER, version.number)
            return Release.WAITING
        case PromotionMode.SHADOW:
            registry.set_alias(version.name, SHADOW, version.number)
            return Release.SHADOW


def _was_champion(version: ModelVersion, registry: ModelRegistry) -> bool:
    # A step to it is no proof: it may have been recorded and then not made.
    followed = any(step.before == version.number for step in registry.history(version.name))
    return followed or registry.alias(version.name, CHAMPION) == version.number


def prunable_versions(
    versions: Sequence[ModelVersion], line: Sequence[int], *, keep: int, needed: Collection[int] = ()
) -> tuple[ModelVersion, ...]:
    """Return the versions that may be deleted, oldest first.

    Kept are the newest, the champion, its parent, and the targets of the next rollbacks.

    Args:
        versions: all versions.
        line: champions that rollbacks go back through, from `rollback_line`.
        keep: number of the newest versions that are kept.
        needed: numbers of further versions to keep.
    """
    by_number = {version.number: version for version in versions}
    newest = sorted(by_number, reverse=True)[:keep]
    champion = by_number.get(line[-1]) if line else None
    kept = {*newest, *needed, *line[-1 - KEPT_STEPS :], champion.parent if champion else None}
    return tuple(by_number[number] for number in sorted(by_number) if number not in kept)


def prune(
    name: str,
    registry: ModelRegistry,
    *,
    keep: int,
    shown: Collection[str] = (),
    before_each: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Delete old versions and return their tags, oldest first.

    Args:
        name: the registered model.
        registry: holds the versions.
        keep: number of the newest versions that are kept.
        shown: tags of versions whose predictions Label Studio displays.
        before_each: called with a version's tag before it is deleted.

    Raises:
        RegistryError: the registry refuses to delete one of them; the others are deleted.
    """
    versions = registry.versions(name)
    champion = registry.alias(name, CHAMPION)
    needed = {version.number for version in versions if version.tag in shown}
    needed |= {
        number for alias in (CHALLENGER, SHADOW) if (number := registry.alias(name, alias)) is not None
    }
    line = rollback_line(registry.history(name), champion, versions)
    prunable = prunable_versions(versions, line, keep=keep, needed=needed)
    refused: list[RegistryError] = []
    for version in prunable:
        before_each(version.tag)
        try:
            registry.delete(name, version.number)
        except RegistryError as exc:  # one damaged entry must not keep all newer ones
            refused.append(exc)
    if refused:
        raise refused[0]
    return tuple(version.tag for version in prunable)
