"""Compare a project with Label Studio and write the events that webhooks should have told.

Nothing is taken here: an event found is worked on like one that was told, with the same retries. Changes are
read since the watermark, a time of Label Studio's; what leaves no trace there (deleted tasks) shows in its
counts of annotations, and only then everything is listed.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop.store.jobs import JobKind, JobStatus, NewEvent
from maskloop_studio.intake.diff import AnnotationTable, Difference, DifferenceKind
from maskloop_studio.labelstudio.models import AnnotationStamp, TaskPage

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["OVERLAP", "SyncReport", "find_changes", "sync_project"]

logger = logging.getLogger(__name__)

OVERLAP = timedelta(minutes=5)  # a transaction of Label Studio's may show its changes this much later
CATCH_UPS = 2  # what changed while a pass read is read again before all is listed
MAX_ASKED = 50  # annotations of waiting events that are asked about one by one; more, and listing is as cheap
MAX_REPAIRS = 5  # events for one and the same difference that ended and left it as it was
OPEN = (JobStatus.WAITING, JobStatus.RUNNING, JobStatus.DEAD, JobStatus.CANCELLED, JobStatus.DROPPED)
OPEN_LIMIT = 10_000
WORK_BATCH = 1000
ACTIONS = {
    DifferenceKind.MISSED: "ANNOTATION_UPDATED",
    DifferenceKind.CHANGED: "ANNOTATION_UPDATED",
    DifferenceKind.DELETED: "ANNOTATIONS_DELETED",
    DifferenceKind.TASK_DELETED: "TASKS_DELETED",
}


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """What a comparison found."""

    project_id: int
    checked: int  # tasks that were read; one that changed meanwhile counts again
    missed: int  # annotations
    changed: int
    deleted: int
    event_ids: tuple[int, ...]  # written now; what an open event is about already has none here
    listed_all: bool = False  # everything was compared, not only what changed
    project_gone: bool = False

    def as_json(self) -> dict[str, object]:
        """Return its numbers as plain values."""
        return {**asdict(self), "event_ids": list(self.event_ids)}

    @property
    def found(self) -> int:
        """How many annotations differed."""
        return self.missed + self.changed + self.deleted


def find_changes(
    project_id: int,
    services: Services,
    *,
    full: bool = False,
    on_page: Callable[[int, int], object] = lambda _checked, _total: None,
) -> SyncReport:
    """Write an event for everything that Label Studio says and the database does not.

    May be stopped at any moment and run again: events and watermark move on after every page.

    Args:
        project_id: Label Studio's number.
        services: what to work with.
        full: compare everything, not only what changed and what the counts show.
        on_page: told after every page how many tasks were read, and of how many (an estimate).

    Raises:
        StudioError: Label Studio cannot be reached or refuses.
    """
    return _Comparison(project_id, services, on_page).run(full=full)


def sync_project(
    project_id: int,
    services: Services,
    *,
    run: Callable[[int], object],
    full: bool = False,
    on_page: Callable[[int, int], object] = lambda _checked, _total: None,
    on_event: Callable[[int], object] = lambda _done: None,
) -> SyncReport:
    """Find a project's changes, and work off its waiting events in this process.

    Args:
        project_id: Label Studio's number.
        services: what to work with.
        run: works on the job of this number, and notes itself how that ended.
        full: compare everything.
        on_page: see `find_changes`.
        on_event: told after every event how many are done.

    Returns:
        What was found. An event that failed waits for its next try, or is dead: see the list of jobs.
    """
    report = find_changes(project_id, services, full=full, on_page=on_page)
    tried: set[int] = set()
    for job_id in _waiting(report.event_ids, project_id, services):
        if job_id not in tried:
            tried.add(job_id)
            run(job_id)
            on_event(len(tried))
    return report


class _Comparison:
    """One pass over one project."""

    def __init__(self, project_id: int, services: Services, on_page: Callable[[int, int], object]) -> None:
        self._project_id = project_id
        self._client = services.client
        self._store = services.store
        self._on_page = on_page
        self._table = AnnotationTable(self._store.annotations.known(project_id))
        self._watermark = self._store.projects.watermark(project_id)
        self._checked = 0
        self._found: Counter[DifferenceKind] = Counter()
        self._event_ids: list[int] = []
        self._open: set[tuple[str, int]] | None = None  # what events that are not done are about

    def run(self, *, full: bool) -> SyncReport:
        project = self._client.find_project(self._project_id)
        if project is None:
            return self._project_gone()
        self._note_config(project.label_config)
        self._read_changes()
        listed_all = full or not self._agrees()
        if listed_all:
            self._read_all()
        return self._report(listed_all=listed_all)

    def _note_config(self, label_config: str) -> None:
        if self._project_id not in self._store.projects.ids():
            return
        self._store.projects.save(self._project_id, label_config)
        digest = hashlib.sha256(label_config.encode()).hexdigest()
        event = _event(self._project_id, "PROJECT_UPDATED", self._project_id, digest)
        (job_id,) = self._store.jobs.add_events([event])
        if job_id is not None:
            self._event_ids.append(job_id)

    def _read_changes(self) -> None:
        since = None if self._watermark is None else self._watermark - OVERLAP
        began: datetime | None = None
        for page in self._client.changed_pages(self._project_id, since):
            began = began or page.at
            self._note(page, [one for task in page.tasks for one in self._table.compare(task)])
            if page.tasks:
                self._move_watermark(page.tasks[-1].updated_at)
        # Nothing changed lately: what was read is as new as the question.
        if began is not None:
            self._move_watermark(began)

    def _agrees(self) -> bool:
        for _ in range(CATCH_UPS):
            if self._counts_agree():
                return True
            self._ask_about_open_events()
            self._read_changes()
        return self._counts_agree()

    def _counts_agree(self) -> bool:
        project = self._client.project(self._project_id)
        return self._table.counts() == (project.annotation_count, project.skipped_count)

    def _ask_about_open_events(self) -> None:
        # What waits, or was given up, is not in the database yet: that alone must not list everything.
        numbers = sorted(subject for family, subject in self._open_subjects() if family == "ANNOTATION")
        if len(numbers) > MAX_ASKED:
            return
        for number in numbers:
            raw = self._client.annotation(number)
            if raw is None or int(raw["project"]) != self._project_id:
                self._write(list(self._table.settle(number, 0, None)))
                continue
            stamp = AnnotationStamp(
                id=number,
                updated_at=datetime.fromisoformat(str(raw["updated_at"])),
                skipped=bool(raw["was_cancelled"]),
            )
            self._write(list(self._table.settle(number, int(raw["task"]), stamp)))

    def _read_all(self) -> None:
        known = self._table.task_ids()
        at = 0
        for page in self._client.stamp_pages(self._project_id):
            differences = [one for task in page.tasks for one in self._table.compare(task)]
            end = len(known) if page.is_last or not page.tasks else bisect_right(known, page.tasks[-1].id)
            listed = {task.id for task in page.tasks}
            for task_id in known[at:end]:
                if task_id not in listed:
                    differences.extend(self._table.drop_task(task_id))
            at = end
            self._note(page, differences)
        self._store.projects.note_listed(self._project_id)

    def _note(self, page: TaskPage, differences: Sequence[Difference]) -> None:
        self._write(differences)
        self._checked += len(page.tasks)
        self._on_page(self._checked, self._checked + page.total - len(page.tasks))

    def _write(self, differences: Sequence[Difference]) -> None:
        for one in differences:
            self._found[one.kind] += one.annotations
        self._add(
            [_event(self._project_id, ACTIONS[one.kind], one.subject_id, one.state) for one in differences]
        )

    def _add(self, events: Sequence[NewEvent]) -> None:
        # A key that is known already belongs to an event that waits or was given up: that one serves. Or it
        # was done, and the same difference has come back: then it is told again, but not for ever.
        for turn in range(MAX_REPAIRS):
            if not events:
                return
            turned = [replace(event, key=f"{event.key}:{turn}") for event in events]
            job_ids = self._store.jobs.add_events(turned)
            self._event_ids += [job_id for job_id in job_ids if job_id is not None]
            known = [event for event, job_id in zip(events, job_ids, strict=True) if job_id is None]
            events = [event for event in known if not self._is_open(event)]
        for event in events:
            log_action(
                logger,
                "difference_not_repaired",
                level=logging.WARNING,
                project_id=self._project_id,
                event_action=event.action,
                subject_id=event.subject_ids[0],
                tries=MAX_REPAIRS,
            )

    def _is_open(self, event: NewEvent) -> bool:
        return (_family(event.action), event.subject_ids[0]) in self._open_subjects()

    def _open_subjects(self) -> set[tuple[str, int]]:
        if self._open is None:
            jobs = self._store.jobs.find(
                statuses=OPEN, kind=JobKind.EVENT, project_id=self._project_id, limit=OPEN_LIMIT
            )
            self._open = {(_family(job.action), subject) for job in jobs for subject in job.subject_ids}
        return self._open

    def _move_watermark(self, at: datetime) -> None:
        # A clock that runs ahead must not make the next pass skip anything.
        at = min(at, datetime.now(UTC))
        if self._watermark is None or at > self._watermark:
            self._watermark = at
            self._store.projects.set_watermark(self._project_id, at)

    def _project_gone(self) -> SyncReport:
        gone = len(self._table)
        if gone or self._project_id in self._store.projects.ids():
            self._found[DifferenceKind.DELETED] += gone
            event = _event(self._project_id, "PROJECT_DELETED", self._project_id, self._table.state())
            self._add([event])
        return self._report(listed_all=False, project_gone=True)

    def _report(self, *, listed_all: bool, project_gone: bool = False) -> SyncReport:
        found = self._found
        report = SyncReport(
            project_id=self._project_id,
            checked=self._checked,
            missed=found[DifferenceKind.MISSED],
            changed=found[DifferenceKind.CHANGED],
            deleted=found[DifferenceKind.DELETED] + found[DifferenceKind.TASK_DELETED],
            event_ids=tuple(self._event_ids),
            listed_all=listed_all,
            project_gone=project_gone,
        )
        fields = {**asdict(report), "event_ids": len(report.event_ids)}
        log_action(
            logger, "project_compared", level=logging.INFO if report.found else logging.DEBUG, **fields
        )
        return report


def _event(project_id: int, action: str, subject_id: int, state: str) -> NewEvent:
    said = f"{project_id}:{action}:{subject_id}:{state}"
    key = f"sync:{hashlib.sha256(said.encode()).hexdigest()}"
    return NewEvent(key=key, action=action, project_id=project_id, subject_ids=(subject_id,))


def _family(action: str) -> str:
    return action.partition("_")[0].removesuffix("S")


def _waiting(first: Iterable[int], project_id: int, services: Services) -> Iterator[int]:
    yield from first
    seen: set[int] = set()
    while True:
        jobs = services.store.jobs.find(
            statuses=(JobStatus.WAITING,),
            kind=JobKind.EVENT,
            project_id=project_id,
            limit=WORK_BATCH + len(seen),
        )
        new = [job.job_id for job in jobs if job.job_id not in seen]
        if not new:
            return
        seen.update(new)
        yield from new
