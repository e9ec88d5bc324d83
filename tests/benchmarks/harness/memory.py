"""Peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["peak_bytes"]


def peak_bytes(prepare: Callable[..., Callable[[], Any]], *args: Any) -> int:
    """Return by how much resident memory rose above its level at the start of the work, at the most.

    Args:
        prepare: a function of a module (it is sent to a fresh process) that makes the input, loads what is
            needed, does the work once small where that loads more, and returns the work.
        args: its arguments; anything that can be pickled.

    Raises:
        RuntimeError: the work failed, or this system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise RuntimeError(f"peak memory: expected Linux, got {sys.platform}")
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, prepare, args))
    process.start()
    theirs.close()
    try:
        rise, wrong = mine.recv()
    except EOFError:
        rise, wrong = 0, "the process died"
    process.join()
    if wrong:
        raise RuntimeError(f"peak memory of {prepare.__name__}: {wrong}")
    return int(rise)


def _measure(pipe: Any, prepare: Callable[..., Callable[[], Any]], args: tuple[Any, ...]) -> None:
    try:
        work = prepare(*args)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
        before = _status("VmRSS")
        result = work()
        pipe.send((max(0, _status("VmHWM") - before), ""))
        del result
    except Exception as exc:
        pipe.send((0, f"{type(exc).__name__}: {exc}"))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
