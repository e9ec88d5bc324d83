"""The record of a training in the registry, written while it runs; training continues where that fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from maskloop.errors import MaskloopError, RegistryError
from maskloop.learning.registry import ModelRegistry
from maskloop.learning.training.job import TrainingProgress
from maskloop.log import log_action

__all__ = ["RunLog"]

logger = logging.getLogger(__name__)
PAUSE_S = 60.0  # after a failure: a registry that does not answer would delay every step


class RunLog:
    """Starts the record with the first progress, or continues the record of a training that was killed.

    A context manager: an exception that leaves it closes the record as failed or ended.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        name: str,
        key: str,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._name, self._key, self._clock_s = registry, name, key, clock_s
        self._paused_until_s = float("-inf")
        self.run_id: str | None = None  # None while nothing is recorded

    def record(self, progress: TrainingProgress) -> None:
        """Record how far the training is."""
        if self._clock_s() < self._paused_until_s:
            return
        try:
            if self.run_id is None:
                self.run_id = self._registry.start_run(self._name, self._key)
            self._registry.log_step(self.run_id, step=progress.step, loss=progress.loss, eta_s=progress.eta_s)
        except RegistryError as exc:
            self._pause(exc)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self.run_id is None:
            return
        try:
            self._registry.end_run(self.run_id, failed=isinstance(error, MaskloopError))
        except RegistryError as exc:
            self._pause(exc)

    def _pause(self, exc: RegistryError) -> None:
        self._paused_until_s = self._clock_s() + PAUSE_S
        log_action(logger, "training_not_recorded", level=logging.WARNING, training=self._key, error=exc)
