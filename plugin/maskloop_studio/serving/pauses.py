"""Pauses of the interpreter, during which no thread of the server answers.

Measured with a model loaded: half a second for each full garbage collection, which looks at all objects of
torch and transformers; and 5 ms for each time that a thread of a webhook waits for one that computes, of
which one webhook has twenty.
"""

from __future__ import annotations

import gc
import sys

__all__ = ["freeze_heap", "switch_often"]

SWITCH_S = 0.0005


def switch_often() -> None:
    """Let threads that compute in Python give way after half a millisecond."""
    sys.setswitchinterval(SWITCH_S)


def freeze_heap() -> None:
    """Leave all objects that live now out of later garbage collections: modules, and the model."""
    gc.collect()
    gc.freeze()
