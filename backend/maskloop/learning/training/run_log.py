"""A training's record in the registry, written while it runs; without a registry the training goes on."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from maskloop.errors import MaskloopError, RegistryError
from maskloop.learning.registry import ModelRegistry
from maskloop.learning.training.loop import TrainingProgress
from maskloop.log import log_action

__all__ = ["TrainingJournal"]

logger = logging.getLogger(__name__)
REST_S = 60.0  # after a failure: a registry that is away would hold up every step


class TrainingJournal:
    """Begins the record with the first note, or goes on with that of a training that was killed.

    A context: what ends it with an error closes the record.
    """

    def __init__(self, registry: ModelRegistry, name: str, key: str) -> None:
        self._registry, self._name, self._key = registry, name, key
        self._silent_until = 0.0
        self.run_id: str | None = None  # None where nothing has been written

    def note(self, progress: TrainingProgress) -> None:
        """Write down how far the training is."""
        if time.monotonic() < self._silent_until:
            return
        try:
            if self.run_id is None:
                self.run_id = self._registry.start_run(self._name, self._key)
            self._registry.log_step(self.run_id, step=progress.step, loss=progress.loss, eta_s=progress.eta_s)
        except RegistryError as exc:
            self._rest(exc)

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
            self._rest(exc)

    def _rest(self, exc: RegistryError) -> None:
        self._silent_until = time.monotonic() + REST_S
        log_action(logger, "training_not_recorded", level=logging.WARNING, training=self._key, error=exc)
