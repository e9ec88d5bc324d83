"""Hundreds of small products one after the other are faster on one core: two wait for each other at each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

__all__ = ["one_core"]


@contextmanager
def one_core() -> Iterator[None]:
    """Let torch use one core for what this thread computes meanwhile; all other threads keep theirs.

    OpenMP keeps the number of threads by thread. `torch.set_num_threads` would also change it for every
    thread that begins later.
    """
    with _openmp().limit(limits=1):
        yield


@functools.cache
def _openmp() -> ThreadpoolController:
    # The libraries that are loaded now: torch's is, since its tensors are what is computed with.
    return ThreadpoolController().select(user_api="openmp")
