"""Doing the next pieces of work while the last one is looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch_map"]

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch_map(
    make: Callable[[Item], Made], items: Iterable[Item], *, at_once: int, name: str
) -> Generator[Made]:
    """Yield what is made of each item, in order; the next ones are under way meanwhile.

    Args:
        make: called in several threads.
        items: taken one by one, as there is room.
        at_once: how many are begun and not yet looked at, at the most.
        name: of the threads.
    """
    pool = ThreadPoolExecutor(at_once, thread_name_prefix=name)
    flying: deque[Future[Made]] = deque()
    try:
        for item in items:
            flying.append(pool.submit(make, item))
            if len(flying) == at_once:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
