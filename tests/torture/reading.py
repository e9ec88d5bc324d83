"""What the loop's database says; the one place of the fault test that knows how it is kept."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import select

from maskloop.store.database import Store
from maskloop.store.jobs import JobStatus
from maskloop.store.tables import JobRow
from maskloop.types import Correction

from .studio_view import Said, canonical

ALL = 1_000_000
SYNC_PREFIX = "sync:"  # of the keys of events that the reconciler wrote


def read_said(store: Store, project_id: int) -> dict[int, Said]:
    """Return the annotations that stand, by number, with what was said in their newest versions."""
    return {
        annotation_id: Said(
            annotation_id=annotation_id,
            task_id=known.task_id,
            updated_at=known.updated_at,
            state=known.state,
            result=_newest(store, annotation_id),
        )
        for annotation_id, known in store.annotations.known(project_id).items()
    }


def read_corrections(store: Store, project_id: int) -> dict[tuple[int, int], Correction]:
    """Return the masks that trainings would use, by annotation and image of its task."""
    return {
        (correction.annotation_id, correction.image_index): correction
        for correction in store.corrections.of(project_id)
    }


def read_set_aside(store: Store, project_id: int) -> dict[int, str]:
    """Return why annotations are set aside, by annotation."""
    return {row.annotation_id: row.reason for row in store.annotations.set_aside(project_id, limit=ALL)}


def read_open(store: Store) -> Counter[str]:
    """Return how many jobs are not done, by kind and status."""
    jobs = store.jobs.find(statuses=[JobStatus.WAITING, JobStatus.RUNNING], limit=ALL)
    return Counter(f"{job.kind} {job.status}" for job in jobs)


def read_dead(store: Store) -> list[str]:
    """Return the dead-letter list."""
    jobs = store.jobs.find(statuses=[JobStatus.DEAD], limit=ALL)
    return [f"{job.name} {job.action} {job.subject_ids}: {job.error}" for job in jobs]


def count_jobs(store: Store) -> Counter[str]:
    """Return how many jobs there were, by kind and status."""
    return Counter(f"{job.kind} {job.status}" for job in store.jobs.find(limit=ALL))


def count_effort(store: Store) -> dict[str, int]:
    """Return what the kills cost: who told of events, how often a lease lapsed, how often a job failed."""
    with store._sessions.read() as session:
        rows = session.execute(select(JobRow.key, JobRow.lapses, JobRow.attempts)).all()
    found = sum(key.startswith(SYNC_PREFIX) for key, _, _ in rows if key)
    return {
        "events told by webhooks": sum(key is not None for key, _, _ in rows) - found,
        "events found by comparing": found,
        "leases lapsed": sum(lapses for _, lapses, _ in rows),
        "attempts failed": sum(attempts for _, _, attempts in rows),
    }


def _newest(store: Store, annotation_id: int) -> str:
    """The annotation's own row says which version stands; it is the one that was last saved."""
    versions = store.annotations.history(annotation_id)
    newest = max(versions, key=lambda version: (version.updated_at, version.version_id))
    return canonical(newest.content.get("result"))
