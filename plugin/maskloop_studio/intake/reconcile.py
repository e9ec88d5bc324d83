"""Compare a project with Label Studio, and add events for everything that webhooks did not send.

Nothing is taken in here: an event that is found is worked on like one that was sent, with the same retries.
Changes are read since the watermark, a time of Label Studio's. What leaves no trace there (deleted tasks)
shows in its counts of annotations, and only then everything is listed.
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

from maskloop.errors import StudioError
from maskloop.log import log_action
from maskloop.store.jobs import JobKind, JobStatus, NewEvent
from maskloop.store.sessions import now
from maskloop_studio.intake.absence import note_missing
from maskloop_studio.intake.diff import AnnotationTable, Difference, DifferenceKind
from maskloop_studio.intake.retake import read_old_again, retry_set_aside
from maskloop_studio.labelstudio.models import AnnotationStamp, Presence, TaskPage
from maskloop_studio.labelstudio.webhooks import reactivate_webhooks, webhook_headers

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["OVERLAP", "SyncReport", "find_changes", "sync_project"]

logger = logging.getLogger(__name__)

OVERLAP = timedelta(minutes=5)  # a transaction of Label Studio's may show its changes this much later
CATCH_UPS = 2  # changes made while a pass was reading are read again before all is listed
MAX_SINGLE_READS = 50  # annotations of waiting events that are read one by one; for more, listing is as cheap
MAX_REPAIRS = 5  # events for the same difference that ended and did not remove it
OPEN = (JobStatus.WAITING, JobStatus.RUNNING, JobStatus.DEAD, JobStatus.CANCELLED, JobStatus.DROPPED)
OPEN_LIMIT = 10_000
HTTP_FORBIDDEN = 403
WORK_BATCH = 1000
ACTIONS = {
    DifferenceKind.MISSED: "ANNOTATION_UPDATED",
    DifferenceKind.CHANGED: "ANNOTATION_UPDATED",
    DifferenceKind.DELETED: "ANNOTATIONS_DELETED",
    DifferenceKind.TASK_DELETED: "TASKS_DELETED",
}


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """The result of a comparison."""

    project_id: int
    checked: int  # tasks that were read; one that changed meanwhile counts again
    missed: int  # annotations
    changed: int
    deleted: int
    event_ids: tuple[int, ...]  # added now; a difference that an open event covers already has none here
    listed_all: bool = False  # everything was compared, not only what changed
    project_gone: bool = False  # it counts as deleted
    project_away: bool = False  # Label Studio does not find it; it may come back
    set_aside: int = 0  # annotations that cannot be read, in the project as a whole
    webhooks_reactivated: int = 0  # webhooks that Label Studio had switched off

    def as_json(self) -> dict[str, object]:
        """Return its numbers as plain values."""
        return {**asdict(self), "event_ids": list(self.event_ids)}

    @property
    def found(self) -> int:
        """How many annotations differed."""
        return self.missed + self.changed + self.deleted


def find_changes(
    project_id: int,
    *,
    store: Store,
    client: StudioClient,
    settings: Settings,
    full: bool = False,
    on_page: Callable[[int, int], object] = lambda _checked, _total: None,
    clock: Callable[[], datetime] = now,
) -> SyncReport:
    """Add an event for every difference between Label Studio and the database.

    May be stopped at any moment and run again: events and watermark are stored after every page.

    Args:
        project_id: Label Studio's number.
        store: the database.
        client: Label Studio.
        settings: how annotations are read, and the headers of our webhooks.
        full: compare everything, not only what changed and what the counts show.
        on_page: called after every page with the tasks read so far, and an estimate of how many there are.
        clock: gives the time (aware).

    Raises:
        StudioError: Label Studio cannot be reached or refuses.
    """
    comparison = _Comparison(project_id, store=store, client=client, settings=settings, on_page=on_page)
    return comparison.run(full=full, clock=clock)


def sync_project(
    project_id: int,
    *,
    store: Store,
    client: StudioClient,
    settings: Settings,
    run: Callable[[int], object],
    full: bool = False,
    on_page: Callable[[int, int], object] = lambda _checked, _total: None,
    on_event: Callable[[int], object] = lambda _done: None,
) -> SyncReport:
    """Find a project's changes, and work off its waiting events in this process.

    Args:
        project_id: Label Studio's number.
        store: the database.
        client: Label Studio.
        settings: see `find_changes`.
        run: works on the job of this number, and stores how that ended.
        full: compare everything.
        on_page: see `find_changes`.
        on_event: called after every event with how many are done.

    Returns:
        What was found. An event that failed waits for its next try, or is dead: see the list of jobs.
    """
    report = find_changes(
        project_id, store=store, client=client, settings=settings, full=full, on_page=on_page
    )
    tried: set[int] = set()
    for job_id in _waiting(report.event_ids, project_id, store):
        if job_id not in tried:
            tried.add(job_id)
            run(job_id)
            on_event(len(tried))
    return replace(report, set_aside=store.annotations.count_set_aside(project_id))


class _Comparison:
    """One pass over one project."""

    def __init__(
        self,
        project_id: int,
        *,
        store: Store,
        client: StudioClient,
        settings: Settings,
        on_page: Callable[[int, int], object],
    ) -> None:
        self._project_id = project_id
        self._client = client
        self._store = store
        self._settings = settings
        self._on_page = on_page
        self._table = AnnotationTable(self._store.annotations.known(project_id))
        self._watermark = self._store.projects.watermark(project_id)
        self._checked = 0
        self._found: Counter[DifferenceKind] = Counter()
        self._event_ids: list[int] = []
        self._open: set[tuple[str, int]] | None = None  # subjects of events that are not done
        self._reactivated = 0

    def run(self, *, full: bool, clock: Callable[[], datetime]) -> SyncReport:
        state = self._client.project_state(self._project_id)
        if state.presence is Presence.UNKNOWN and state.error is not None:
            raise state.error
        if state.project is None:
            return self._project_missing(clock())
        connected = self._project_id in self._store.projects.ids()
        if connected:
            self._note_config(state.project.label_config)
            self._reactivate_webhooks()
            self._event_ids += read_old_again(
                self._project_id, store=self._store, settings=self._settings, on_page=self._report_progress
            )
        self._read_changes()
        # Label Studio sent nothing while a webhook was off, deletions included.
        listed_all = full or bool(self._reactivated) or not self._agrees()
        if listed_all:
            self._read_all()
        self._event_ids += retry_set_aside(
            self._project_id, state.project.label_config, store=self._store, every=listed_all
        )
        return self._report(listed_all=listed_all)

    def _report_progress(self) -> None:
        self._on_page(self._checked, self._checked)

    def _reactivate_webhooks(self) -> None:
        headers = webhook_headers(self._settings, self._store)
        try:
            self._reactivated = len(reactivate_webhooks(self._project_id, headers, self._client))
        except StudioError as exc:
            if exc.status != HTTP_FORBIDDEN:
                raise
            log_action(
                logger, "webhooks_not_checked", level=logging.WARNING, project_id=self._project_id, error=exc
            )

    def _note_config(self, label_config: str) -> None:
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
        # Nothing changed lately: the database is as new as the request.
        if began is not None:
            self._move_watermark(began)

    def _agrees(self) -> bool:
        for _ in range(CATCH_UPS):
            if self._counts_agree():
                return True
            self._read_open_events()
            self._read_changes()
        return self._counts_agree()

    def _counts_agree(self) -> bool:
        orphans = self._store.projects.orphans(self._project_id)
        return self._surplus(self._studio_counts()) == orphans

    def _studio_counts(self) -> tuple[int, int]:
        project = self._client.project(self._project_id)
        return project.annotation_count, project.skipped_count

    def _surplus(self, counts: tuple[int, int]) -> tuple[int, int]:
        """How many submitted and skipped annotations Label Studio counts and the table lacks."""
        submitted, skipped = self._table.counts()
        return counts[0] - submitted, counts[1] - skipped

    def _read_open_events(self) -> None:
        # What events that wait or failed are about is not stored yet: that alone must not list everything.
        numbers = sorted(subject for family, subject in self._open_subjects() if family == "ANNOTATION")
        if len(numbers) > MAX_SINGLE_READS:
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
        counts = self._studio_counts()
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
        self._note_orphans(counts)

    def _note_orphans(self, counts: tuple[int, int]) -> None:
        # Label Studio can keep an annotation that was saved while its task was deleted: it counts it, and
        # lists it nowhere. Without this, every later pass would list the whole project because of it.
        if self._studio_counts() != counts:
            return  # changed while it was listed
        submitted, skipped = (max(surplus, 0) for surplus in self._surplus(counts))
        if (submitted, skipped) == self._store.projects.orphans(self._project_id):
            return
        self._store.projects.set_orphans(self._project_id, submitted=submitted, skipped=skipped)
        log_action(
            logger,
            "annotations_without_task",
            level=logging.WARNING,
            project_id=self._project_id,
            submitted=submitted,
            skipped=skipped,
            remedy="none is needed: Label Studio shows them nowhere, and nothing is learnt from them",
        )

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
        # A key that is stored already belongs to an event that waits or failed: that one is enough. Or it was
        # done, and the same difference has come back: then a new one is added, but only a few times.
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

    def _project_missing(self, at: datetime) -> SyncReport:
        if not note_missing(self._project_id, self._store.projects, at=at):
            away = self._project_id in self._store.projects.ids()
            return self._report(listed_all=False, project_away=away, project_gone=not away)
        self._found[DifferenceKind.DELETED] += len(self._table)
        self._add([_event(self._project_id, "PROJECT_DELETED", self._project_id, self._table.state())])
        return self._report(listed_all=False, project_gone=True)

    def _report(
        self, *, listed_all: bool, project_gone: bool = False, project_away: bool = False
    ) -> SyncReport:
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
            project_away=project_away,
            set_aside=self._store.annotations.count_set_aside(self._project_id),
            webhooks_reactivated=self._reactivated,
        )
        fields = {**asdict(report), "event_ids": len(report.event_ids)}
        log_action(
            logger, "project_compared", level=logging.INFO if report.found else logging.DEBUG, **fields
        )
        return report


def _event(project_id: int, action: str, subject_id: int, state: str) -> NewEvent:
    text = f"{project_id}:{action}:{subject_id}:{state}"
    key = f"sync:{hashlib.sha256(text.encode()).hexdigest()}"
    return NewEvent(key=key, action=action, project_id=project_id, subject_ids=(subject_id,))


def _family(action: str) -> str:
    return action.partition("_")[0].removesuffix("S")


def _waiting(first: Iterable[int], project_id: int, store: Store) -> Iterator[int]:
    yield from first
    seen: set[int] = set()
    while True:
        jobs = store.jobs.find(
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
