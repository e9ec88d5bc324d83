"""How many cores a thread computes on: small products one after the other are faster on one core.

Two cores wait for each other at each of them, the longer the more else runs on the machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["on_cores"]


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let torch use so many cores for what this thread computes meanwhile; all other threads keep theirs.

    OpenMP keeps the number of threads by thread. `torch.set_num_threads` would also change it for every
    thread that begins later.

    Args:
        count: at least 1.
    """
    torch.get_num_threads()  # torch sets a thread's number at its first use: not later, over this one
    with _openmp().limit(limits=count):
        yield


@functools.cache
def _openmp() -> ThreadpoolController:
    # The libraries that are loaded now: torch's is, since its tensors are what is computed with.
    return ThreadpoolController().select(user_api="openmp")
