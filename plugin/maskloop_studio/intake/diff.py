"""Differences between Label Studio's annotations and the database's; nothing is read or written here.

`reconcile.py` reads the pages, and adds an event for each difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from maskloop_studio.labelstudio.models import AnnotationStamp, StampedTask

__all__ = ["AnnotationTable", "Difference", "DifferenceKind"]

SKIPPED = "skipped"


class DifferenceKind(StrEnum):
    """How Label Studio and the database differ."""

    MISSED = "missed"
    CHANGED = "changed"
    DELETED = "deleted"
    TASK_DELETED = "task deleted"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One annotation, or one task with all its annotations, that has to be read again."""

    kind: DifferenceKind
    subject_id: int  # the task where the task is gone, else the annotation
    state: str  # differs from that of an older difference of the same subject
    annotations: int = 1  # how many are concerned


class Known(Protocol):
    """An annotation of the database."""

    @property
    def task_id(self) -> int:
        """Its task."""

    @property
    def updated_at(self) -> datetime:
        """When it was last saved in Label Studio."""

    @property
    def state(self) -> str:
        """Submitted or skipped."""


class _Entry(NamedTuple):
    task_id: int
    updated_at: datetime
    skipped: bool


class AnnotationTable:
    """A project's annotations as they will be when the differences found so far are worked off."""

    def __init__(self, known: Mapping[int, Known]) -> None:
        self._entries = {
            number: _Entry(one.task_id, one.updated_at, one.state == SKIPPED) for number, one in known.items()
        }
        self._of_task: dict[int, set[int]] = {}
        for number, entry in self._entries.items():
            self._of_task.setdefault(entry.task_id, set()).add(number)

    def __len__(self) -> int:
        return len(self._entries)

    def counts(self) -> tuple[int, int]:
        """Return how many are submitted, and how many skipped."""
        skipped = sum(entry.skipped for entry in self._entries.values())
        return len(self._entries) - skipped, skipped

    def state(self) -> str:
        """Return a text that is another one for another table."""
        newest = max((entry.updated_at for entry in self._entries.values()), default=None)
        return f"{len(self._entries)}:{newest.isoformat() if newest else None}"

    def task_ids(self) -> list[int]:
        """Return the tasks with annotations, in order."""
        return sorted(self._of_task)

    def compare(self, task: StampedTask) -> Iterator[Difference]:
        """Yield how a task's annotations differ, and change the table to Label Studio's state."""
        for stamp in task.annotations:
            yield from self.settle(stamp.id, task.id, stamp)
        for number in self._of_task.get(task.id, set()) - {stamp.id for stamp in task.annotations}:
            yield from self.settle(number, task.id, None)

    def settle(self, number: int, task_id: int, stamp: AnnotationStamp | None) -> Iterator[Difference]:
        """Yield how one annotation differs, and change the table to Label Studio's state.

        Args:
            number: the annotation.
            task_id: its task.
            stamp: its state in Label Studio; None where it is deleted there.
        """
        old = self._remove(number)
        if stamp is None:
            if old is not None:
                yield Difference(kind=DifferenceKind.DELETED, subject_id=number, state=_text(old))
            return
        new = _Entry(task_id, stamp.updated_at, stamp.skipped)
        self._entries[number] = new
        self._of_task.setdefault(task_id, set()).add(number)
        if old != new:
            kind = DifferenceKind.MISSED if old is None else DifferenceKind.CHANGED
            yield Difference(kind=kind, subject_id=number, state=_text(new))

    def drop_task(self, task_id: int) -> Iterator[Difference]:
        """Yield that a task is deleted, and remove its annotations from the table."""
        numbers = sorted(self._of_task.get(task_id, ()))
        entries = [entry for number in numbers if (entry := self._remove(number)) is not None]
        if entries:
            yield Difference(
                kind=DifferenceKind.TASK_DELETED,
                subject_id=task_id,
                state=f"{numbers}:{_text(max(entries, key=lambda entry: entry.updated_at))}",
                annotations=len(entries),
            )

    def _remove(self, number: int) -> _Entry | None:
        entry = self._entries.pop(number, None)
        if entry is not None:
            siblings = self._of_task[entry.task_id]
            siblings.discard(number)
            if not siblings:
                del self._of_task[entry.task_id]
        return entry


def _text(entry: _Entry) -> str:
    state = SKIPPED if entry.skipped else "submitted"
    return f"{entry.task_id}:{entry.updated_at.isoformat()}:{state}"
