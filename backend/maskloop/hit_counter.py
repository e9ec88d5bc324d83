"""How often a cache had what was asked for."""

from __future__ import annotations

import threading

__all__ = ["HitCounter"]


class HitCounter:
    """Counts since the process began; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    def note(self, found: bool) -> None:
        """Count one look-up."""
        with self._lock:
            if found:
                self._hits += 1
            else:
                self._misses += 1

    @property
    def counts(self) -> tuple[int, int]:
        """Look-ups that found something, and those that did not."""
        with self._lock:
            return self._hits, self._misses
