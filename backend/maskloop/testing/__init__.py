"""A model registry and a job queue in memory, for tests of maskloop and of programs that use it."""

from __future__ import annotations

from maskloop.testing.memory import MemoryQueue, MemoryRegistry

__all__ = ["MemoryQueue", "MemoryRegistry"]
