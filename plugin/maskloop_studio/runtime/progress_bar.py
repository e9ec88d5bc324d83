"""The progress of a command: a bar on a terminal, plain lines in a file, a pipe or a service's log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["PlainProgress", "progress_bar"]

PLAIN_S = 10.0  # between two lines of one task


def progress_bar() -> Progress:
    """Return a progress bar on standard error; where that is no terminal, plain lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return PlainProgress(console)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class PlainProgress(Progress):
    """Progress as one line each ten seconds and task, without colours or control characters.

    Args:
        console: where the lines go.
        clock: seconds that only grow.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console=console, disable=True)  # draws nothing by itself
        self._clock = clock
        self._printed_at: dict[TaskID, float] = {}

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """See Progress.update; a task that advances quickly prints nothing."""
        super().update(task_id, **changes)
        now = self._clock()
        if now - self._printed_at.setdefault(task_id, now) < PLAIN_S:
            return
        self._printed_at[task_id] = now
        task = next(task for task in self.tasks if task.id == task_id)
        line = f"{task.description}: {_amount(task.completed, task.total)}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _amount(completed: float, total: float | None) -> str:
    if total == 1:  # a share
        return f"{completed:.0%}"
    return f"{completed:g}" if total is None else f"{completed:g} of {total:g}"
