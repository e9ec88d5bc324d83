"""How far a prelabelling is, and whether it must go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from maskloop.learning.registry import CHAMPION

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.types import ModelVersion
    from maskloop_studio.prelabel.push import PushTarget

__all__ = ["CHAMPION_S", "OnProgress", "Outdated", "Watch", "is_outdated"]

OnProgress: TypeAlias = Callable[[int, int], None]  # done, total; may raise to end it
COUNT_S = 2.0
CHAMPION_S = 1.0  # between two looks at the champion


class Outdated(Exception):  # noqa: N818 - what happened, no error
    """Another version is the champion by now."""


def is_outdated(version: ModelVersion, registry: ModelRegistry) -> bool:
    """Return whether another version is the champion."""
    return registry.alias(version.name, CHAMPION) != version.number


class Watch:
    """Called at each step; counts in the database, so that the work of other workers counts too."""

    def __init__(
        self, target: PushTarget, version: ModelVersion, registry: ModelRegistry, on_progress: OnProgress
    ) -> None:
        """Args:
        target: the project and its database.
        version: the champion when the job began.
        registry: has the present champion.
        on_progress: gets how far it is.
        """
        self._target, self._version, self._registry = target, version, registry
        self._on_progress = on_progress
        self._tasks = target.client.count_tasks(target.project_id, only_unlabelled=True)
        self._done = 0
        self._counted_at = self._champion_read_at = -float("inf")

    def __call__(self) -> None:
        """Report how far it is: a task scored is one step, a task pushed another.

        Raises:
            Outdated: it must not go on.
        """
        now = time.monotonic()
        if now - self._champion_read_at >= CHAMPION_S:
            if is_outdated(self._version, self._registry):
                raise Outdated
            self._champion_read_at = now
        if now - self._counted_at >= COUNT_S:
            counts = self._target.store.scores.counts(self._target.project_id, self._version.tag)
            self._done = sum(counts)
            self._counted_at = now
        self._on_progress(self._done, max(2 * self._tasks, self._done))
