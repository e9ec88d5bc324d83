"""What annotators kept of the versions that are served, read again every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from maskloop_studio.projects.kept_floors import kept_floors

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store

__all__ = ["FloorCache"]

FRESH_S = 5.0


class FloorCache:
    """Floors by project, of the version that was asked for last; safe to call from many threads."""

    def __init__(
        self,
        settings: Settings,
        store: Callable[[], Store],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._lock = threading.Lock()
        self._known: dict[int, tuple[str, float, Mapping[str, float]]] = {}

    def get(self, project_id: int | None, model_version: str) -> Mapping[str, float]:
        """Return label -> least displayed score; see `kept_floors`. Empty where the project is not connected.

        Raises:
            StoreError: the database does not answer.
        """
        if project_id is None:
            return {}
        with self._lock:
            tag, until, floors = self._known.get(project_id, ("", 0.0, {}))
        if tag == model_version and self._clock() < until:
            return floors
        floors = kept_floors(project_id, model_version, self._store().corrections, self._settings)
        with self._lock:
            self._known[project_id] = (model_version, self._clock() + FRESH_S, floors)
        return floors
