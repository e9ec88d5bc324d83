"""Prefetching: the next items are computed in threads while the caller handles the last one."""

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
    """Yield `make(item)` of each item, in order; the next ones are computed meanwhile.

    Args:
        make: called in several threads.
        items: taken one by one.
        at_once: most items that are begun and not yet yielded.
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
