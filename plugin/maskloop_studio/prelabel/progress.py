"""How far a prelabelling is, and whether it must go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from maskloop.learning.registry import CHAMPION

if TYPE_CHECKING:
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = ["CHAMPION_S", "OnProgress", "Outdated", "Watch", "is_outdated"]

OnProgress: TypeAlias = Callable[[int, int], None]  # done, total; may raise to end it
COUNT_S = 2.0
CHAMPION_S = 1.0  # between two looks at who is the champion


class Outdated(Exception):  # noqa: N818 - what happened, no error
    """Another version is the champion by now."""


def is_outdated(version: ModelVersion, services: Services) -> bool:
    """Return whether another version is the champion."""
    return services.registry.alias(version.name, CHAMPION) != version.number


class Watch:
    """Called at each step; counts from the database, so that what other workers do counts too."""

    def __init__(
        self, project_id: int, version: ModelVersion, services: Services, on_progress: OnProgress
    ) -> None:
        self._project_id = project_id
        self._version = version
        self._services = services
        self._on_progress = on_progress
        self._tasks = services.client.count_tasks(project_id, only_unlabelled=True)
        self._done = 0
        self._counted_at = self._asked_at = -float("inf")

    def __call__(self) -> None:
        """Tell how far it is: a task scored is one step, a task pushed another.

        Raises:
            Outdated: it must not go on.
        """
        now = time.monotonic()
        if now - self._asked_at >= CHAMPION_S:
            if is_outdated(self._version, self._services):
                raise Outdated
            self._asked_at = now
        if now - self._counted_at >= COUNT_S:
            self._done = sum(self._services.store.scores.counts(self._project_id, self._version.tag))
            self._counted_at = now
        self._on_progress(self._done, max(2 * self._tasks, self._done))
