"""Pauses of the interpreter, during which no thread of the server answers.

Measured with a model loaded: half a second for each full garbage collection, which looks at all objects of
torch and transformers, and 0.15 s of those that the registry adds later; and 5 ms for each time that a thread
of a webhook waits for one that computes, of which one webhook has twenty.
"""

from __future__ import annotations

import gc
import sys
import time

__all__ = ["ShortCollections", "freeze_heap", "switch_often"]

SWITCH_S = 0.0005
LONG_S = 0.03  # a collection that takes longer is not repeated on the same objects
FREEZES = 50  # then all objects are looked at once more: rings of frozen ones may have died meanwhile
FULL = 2  # the generation of a collection that looks at all objects


def switch_often() -> None:
    """Let threads that compute in Python give way after half a millisecond."""
    sys.setswitchinterval(SWITCH_S)


def freeze_heap() -> None:
    """Leave all objects that live now out of later garbage collections: modules, and the model."""
    gc.collect()
    gc.freeze()


class ShortCollections:
    """After a long garbage collection, leaves what survived it out of later ones.

    Modules, clients and caches are made at their first use, long after the model was loaded. What is left out
    is still freed once nothing refers to it; only rings of dead objects wait, for the next look at all.
    """

    def __init__(self) -> None:
        self.freezes = 0
        self._started = 0.0

    def start(self) -> None:
        """Begin to time collections."""
        gc.callbacks.append(self._note)

    def stop(self) -> None:
        """End what `start` began."""
        gc.callbacks.remove(self._note)

    def look_at_all(self) -> None:
        """Let the next full collection find dead rings everywhere, as after a model was dropped."""
        gc.unfreeze()

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] != FULL:
            return
        if phase == "start":
            self._started = time.perf_counter()
        elif time.perf_counter() - self._started > LONG_S:
            self.freezes += 1
            if self.freezes % FREEZES == 0:
                gc.unfreeze()
            else:
                gc.freeze()
