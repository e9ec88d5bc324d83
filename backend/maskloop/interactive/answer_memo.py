"""The last answers of an image: a click asks again what the click before it asked."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["AnswerMemo"]

Owner = TypeVar("Owner")
Value = TypeVar("Value")


class AnswerMemo(Generic[Owner, Value]):
    """Least recently used answers go first, all of an owner with it; safe from any thread."""

    def __init__(self, most: int) -> None:
        """Args:
        most: answers of one owner.
        """
        self._most = most
        self._lock = threading.Lock()
        self._kept: weakref.WeakKeyDictionary[Owner, OrderedDict[Hashable, Value]] = (
            weakref.WeakKeyDictionary()
        )

    def get(
        self,
        owner: Owner,
        key: Hashable,
        make: Callable[[], Value],
        *,
        may_keep: Callable[[Value], bool] = lambda _: True,
    ) -> Value:
        """Return what was made for a key, or make it; two threads may make the same at the same time.

        Args:
            owner: what the value is of, such as an image's features; it is not kept alive.
            key: of the value.
            make: called where it is not there.
            may_keep: whether a value is small enough to be kept.
        """
        with self._lock:
            kept = self._kept.setdefault(owner, OrderedDict())
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        value = make()
        if not may_keep(value):
            return value
        with self._lock:
            kept[key] = value
            while len(kept) > self._most:
                kept.popitem(last=False)
        return value
