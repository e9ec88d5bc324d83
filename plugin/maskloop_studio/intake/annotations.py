"""An event -> the annotation as Label Studio's API has it now -> its masks.

An event is only a hint: the annotation is always read from Label Studio's API when the event is worked on. So
events may come twice, late, out of order or forged, and the newest annotation is stored all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from maskloop.errors import CodecError, MaskloopError, StudioError
from maskloop.log import log_action
from maskloop.store.annotations import AnnotationSnapshot, SavedAnnotation, SaveStatus
from maskloop.store.audit import Actor, ActorKind, AuditAction, AuditEntry
from maskloop.store.holdout import TRAIN
from maskloop.store.jobs import Job, JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop.types import ShowMode
from maskloop_studio.dispatch import count_new_corrections, job_spec, queue_or_wait, request, try_again
from maskloop_studio.intake.absence import note_missing
from maskloop_studio.intake.reading import READER_VERSION, read_version
from maskloop_studio.intake.retake import keep_reading, retry_set_aside
from maskloop_studio.intake.webhook import ANNOTATION_ACTIONS
from maskloop_studio.labelstudio.models import Presence
from maskloop_studio.projects.kept_floors import are_raised, kept_floors

if TYPE_CHECKING:
    from maskloop.queue.lease import JobControl
    from maskloop_studio.intake.parts import IntakeParts
    from maskloop_studio.labelstudio.client import StudioProject

__all__ = ["HANDLED_ACTIONS", "take_event"]

logger = logging.getLogger(__name__)


def take_event(job: Job, control: JobControl, parts: IntakeParts) -> None:
    """Bring the database to the state that Label Studio has now of the subjects of an event.

    Raises:
        MaskloopError: a part of it failed; the other parts are done.
    """
    HANDLERS[job.action](job, control, parts)


def _request_jobs(job: Job, _control: JobControl, parts: IntakeParts) -> None:
    # Tasks that are imported with annotations send no event about these.
    for kind in (JobKind.PRELABEL, JobKind.SYNC):
        request(kind, job.project_id, "new tasks", store=parts.store, queue=parts.queue)


def _check_project(job: Job, _control: JobControl, parts: IntakeParts) -> None:
    _find_project(job.project_id, parts)


def _find_project(project_id: int, parts: IntakeParts) -> StudioProject | None:
    """Return a project; None where it is deleted, or not connected and not there.

    Raises:
        StudioError: Label Studio does not answer, or the project is away and may come back.
    """
    state = parts.client.project_state(project_id)
    if state.presence is Presence.UNKNOWN and state.error is not None:
        raise state.error
    if state.project is not None:
        return state.project
    if note_missing(project_id, parts.store.projects, at=parts.clock()):
        _drop_project(project_id, parts)
        return None
    if project_id not in parts.store.projects.ids():
        return None
    raise StudioError(
        f"project {project_id}",
        expected="the project in Label Studio",
        got="404",
        remedy="restore the project, or the token's access to it; a project that is missing for over an hour "
        "counts as deleted",
        status=404,
    )


def _take_annotations(job: Job, control: JobControl, parts: IntakeParts) -> None:
    # A deletion is checked against the API too: a forged one must not delete anybody's work.
    project = _find_project(job.project_id, parts)
    if project is None:
        return
    failed: list[tuple[int, MaskloopError]] = []
    for done, annotation_id in enumerate(job.subject_ids):
        control.progress(done, len(job.subject_ids))
        try:
            _take_annotation(annotation_id, project, parts)
        except MaskloopError as exc:
            # The other annotations of a bulk event are taken in all the same.
            failed.append((annotation_id, exc))
    _train_when_due(job.project_id, parts)
    _trim_when_due(project.model_version, job.project_id, parts)
    if failed:
        parts.store.jobs.narrow(job.job_id, control.owner, [number for number, _ in failed])
        # An error that may pass decides, so that the job is tried again.
        raise min((exc for _, exc in failed), key=lambda exc: isinstance(exc, CodecError))


def _take_annotation(annotation_id: int, project: StudioProject, parts: IntakeParts) -> None:
    store, read_at = parts.store, now()
    annotation = parts.client.annotation(annotation_id)
    if annotation is None:
        if store.annotations.delete(project.id, annotation_ids=[annotation_id], read_at=read_at):
            log_action(logger, "annotation_deleted", annotation_id=annotation_id, project_id=project.id)
        return
    if int(annotation["project"]) != project.id:
        # The event is forged, or Label Studio gave the number of a deleted annotation to another project's.
        store.annotations.delete(project.id, annotation_ids=[annotation_id], read_at=read_at)
        log_action(logger, "annotation_of_other_project", level=logging.WARNING, annotation_id=annotation_id)
        return
    task_id = int(annotation["task"])
    skipped = bool(annotation.get("was_cancelled"))
    saved = store.annotations.save(
        AnnotationSnapshot(
            annotation_id=annotation_id,
            project_id=project.id,
            task_id=task_id,
            updated_at=datetime.fromisoformat(str(annotation["updated_at"])),
            state="skipped" if skipped else "submitted",
            content=annotation,
            label_config=project.label_config,
            split=TRAIN,  # until its images are read: their content decides
            read_at=read_at,
        )
    )
    _log_saved(saved, annotation_id=annotation_id, task_id=task_id, skipped=skipped)
    if saved.version is None:
        return
    read_at = now()
    # With the project named, Label Studio does not ask us for a live prediction of the task.
    task = parts.client.task(task_id, project_id=project.id)
    if task is None:
        # Label Studio can keep an annotation that was saved while its task was deleted; nobody sees it again.
        # Asked after it was stored: a task that is deleted later finds it by its own event.
        if store.annotations.delete(project.id, annotation_ids=[annotation_id], read_at=read_at):
            store.projects.add_orphan(project.id, skipped=skipped)
        log_action(logger, "annotation_without_task", annotation_id=annotation_id, task_id=task_id)
        return
    if skipped or store.corrections.has(saved.version.version_id, reader_version=READER_VERSION):
        return
    keep_reading(saved.version, read_version(saved.version, task.data, parts), store, parts.settings)


def _log_saved(saved: SavedAnnotation, *, annotation_id: int, task_id: int, skipped: bool) -> None:
    if saved.status is SaveStatus.STORED:
        log_action(
            logger,
            "annotation_stored",
            annotation_id=annotation_id,
            task_id=task_id,
            version_id=saved.version_id,
            skipped=skipped,
        )
    elif saved.status is SaveStatus.UNCHANGED:
        log_action(logger, "annotation_unchanged", annotation_id=annotation_id, version_id=saved.version_id)
    else:
        log_action(logger, "annotation_stale", annotation_id=annotation_id, task_id=task_id)


def _drop_tasks(job: Job, control: JobControl, parts: IntakeParts) -> None:
    client, store, project_id = parts.client, parts.store, job.project_id
    for done, task_id in enumerate(job.subject_ids):
        control.progress(done, len(job.subject_ids))
        read_at = now()
        if client.task(task_id, project_id=project_id) is None:
            store.annotations.delete(project_id, task_ids=[task_id], read_at=read_at)
            # On SQLite, Label Studio gives a deleted task's number to the next task, which has no prediction.
            store.pushes.forget(project_id, [task_id])
            store.scores.forget_tasks(project_id, [task_id])
        else:
            _drop_gone(task_id, project_id, parts)


def _drop_gone(task_id: int, project_id: int, parts: IntakeParts) -> None:
    """Delete the annotations of a deleted task whose number another task has now."""
    store, read_at = parts.store, now()
    known = set(store.annotations.of_task(project_id, task_id))
    if not known:
        return
    task = parts.client.stamped_task(project_id, task_id)
    standing = {annotation.id for annotation in task.annotations} if task is not None else set()
    if store.annotations.delete(project_id, annotation_ids=sorted(known - standing), read_at=read_at):
        store.pushes.forget(project_id, [task_id])
        store.scores.forget_tasks(project_id, [task_id])


def _follow_project(job: Job, _control: JobControl, parts: IntakeParts) -> None:
    store = parts.store
    project = _find_project(job.project_id, parts)
    if project is None or job.project_id not in store.projects.ids():
        return
    store.projects.save(job.project_id, project.label_config)
    # What could not be read under the old label config may be readable under this one.
    for event_id in retry_set_aside(job.project_id, project.label_config, store=store):
        queue_or_wait(parts.queue, job_spec(JobKind.EVENT, event_id))
    for dead in store.jobs.find(
        statuses=[JobStatus.DEAD], kind=JobKind.EVENT, project_id=job.project_id, limit=1000
    ):
        if dead.action in ANNOTATION_ACTIONS:
            try_again(dead, store=store, queue=parts.queue)


def _drop_project(project_id: int, parts: IntakeParts) -> None:
    deleted = parts.store.annotations.delete_project(project_id)
    parts.store.projects.remove(project_id)
    parts.store.scores.forget_project(project_id)
    parts.store.audit.append(
        AuditEntry(
            project_id=project_id,
            action=AuditAction.DELETED,
            actor=Actor(kind=ActorKind.STUDIO_USER, name="not named by Label Studio"),
            subject=f"project {project_id}",
            reason="deleted in Label Studio",
            facts={"annotations": deleted},
        )
    )
    log_action(logger, "project_deleted", project_id=project_id, annotations=deleted)


def _train_when_due(project_id: int, parts: IntakeParts) -> None:
    store, settings = parts.store, parts.settings
    new = count_new_corrections(project_id, store)
    if new >= settings.train_after and project_id in store.projects.ids():
        request(
            JobKind.TRAINING,
            project_id,
            f"{new} new corrections",
            store=store,
            queue=parts.queue,
            quiet_s=settings.train_quiet_s,
        )


def _trim_when_due(model_version: str, project_id: int, parts: IntakeParts) -> None:
    """Ask for a prelabelling where annotators have shown that fewer regions are worth drawing."""
    store, settings = parts.store, parts.settings
    if settings.show is not ShowMode.AUTO or not model_version or project_id not in store.projects.ids():
        return
    floors = kept_floors(project_id, model_version, store.corrections, settings)
    done = store.jobs.find(statuses=[JobStatus.DONE], kind=JobKind.PRELABEL, project_id=project_id, limit=1)
    outcome = (done[0].outcome or {}) if done else {}
    before = outcome.get("kept_floors")
    if outcome.get("model_version") == model_version and are_raised(
        floors, before if isinstance(before, dict) else {}
    ):
        named = ", ".join(sorted(floors))
        request(
            JobKind.PRELABEL,
            project_id,
            f"annotators keep too few of the regions of {named}"[:200],
            store=store,
            queue=parts.queue,
        )


HANDLERS: dict[str, Callable[[Job, JobControl, IntakeParts], None]] = {
    **dict.fromkeys(ANNOTATION_ACTIONS, _take_annotations),
    "TASKS_CREATED": _request_jobs,
    "TASKS_DELETED": _drop_tasks,
    "PROJECT_UPDATED": _follow_project,
    "PROJECT_DELETED": _check_project,
}
HANDLED_ACTIONS = frozenset(HANDLERS)  # with other events there is nothing to do
