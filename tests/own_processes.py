"""The processes that a test started, found by descent: other processes of this machine do not count."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["orphans_adopted"]

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@contextlib.contextmanager
def orphans_adopted() -> Iterator[Callable[[], dict[int, str]]]:
    """Become the parent of every descendant whose own parent ends, while the block runs.

    Yields:
        A function that returns the living children that came since the block began, as process id -> command
        line. After a program has ended, these are the processes that it left running.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
    before = _living_children().keys()
    try:
        yield lambda: {pid: line for pid, line in _living_children().items() if pid not in before}
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _living_children() -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state not in "ZX":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found
