"""An event -> what the annotator said, kept as it was said -> its masks.

An event is a hint only: what counts is what Label Studio's API says when the event is worked on. So events
may come twice, late, out of order or forged, and the newest truth is kept all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from maskloop.errors import CodecError, LabelConfigError, MaskloopError
from maskloop.learning.data.snapshot import split_of
from maskloop.log import log_action, log_failures
from maskloop.store.annotations import AnnotationSnapshot, AnnotationVersion, SaveStatus
from maskloop.store.corrections import DerivedMasks
from maskloop.store.jobs import Job, JobKind, JobStatus
from maskloop.store.sessions import now
from maskloop_studio.dispatch import count_new_corrections, request, try_again
from maskloop_studio.intake.webhook import ANNOTATION_ACTIONS

if TYPE_CHECKING:
    from maskloop.queue.lease import JobControl
    from maskloop_studio.labelstudio.client import StudioProject
    from maskloop_studio.services import Services

__all__ = ["take_event"]

logger = logging.getLogger(__name__)


def take_event(job: Job, control: JobControl, services: Services) -> None:
    """Bring the database to what Label Studio says now of what an event is about.

    Raises:
        MaskloopError: something of it could not be done; what could is done.
    """
    if job.action in ANNOTATION_ACTIONS:
        _take_annotations(job, control, services)
    elif job.action == "TASKS_CREATED":
        # Tasks that were imported with annotations are told as tasks only.
        for kind in (JobKind.PRELABEL, JobKind.SYNC):
            request(kind, job.project_id, "new tasks", store=services.store, queue=services.queue)
    elif job.action == "TASKS_DELETED":
        _drop_tasks(job, control, services)
    elif job.action == "PROJECT_UPDATED":
        _follow_project(job, services)
    elif job.action == "PROJECT_DELETED":
        _drop_project(job, services)


def _take_annotations(job: Job, control: JobControl, services: Services) -> None:
    # A deletion too is asked back, not believed: a forged one must not take anybody's work away.
    project = services.client.find_project(job.project_id)
    if project is None:
        _drop_project(job, services)
        return
    failed: list[tuple[int, MaskloopError]] = []
    for done, annotation_id in enumerate(job.subject_ids):
        control.progress(done, len(job.subject_ids))
        try:
            _take_annotation(annotation_id, project, services)
        except MaskloopError as exc:
            # The others of a bulk event do not wait for this one.
            failed.append((annotation_id, exc))
    _train_when_due(job.project_id, services)
    if failed:
        services.store.jobs.narrow(job.job_id, control.owner, [number for number, _ in failed])
        # The most hopeful error decides whether it is tried again.
        raise min((exc for _, exc in failed), key=lambda exc: isinstance(exc, CodecError))


def _take_annotation(annotation_id: int, project: StudioProject, services: Services) -> None:
    store, asked_at = services.store, now()
    annotation = services.client.annotation(annotation_id)
    if annotation is None:
        if store.annotations.delete(project.id, annotation_ids=[annotation_id], read_at=asked_at):
            log_action(logger, "annotation_deleted", annotation_id=annotation_id, project_id=project.id)
        return
    if int(annotation["project"]) != project.id:
        # Forged, or the number of a deleted one that Label Studio gave to another project's.
        store.annotations.delete(project.id, annotation_ids=[annotation_id], read_at=asked_at)
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
            split=split_of(project.id, task_id, services.settings.holdout_fraction),
            read_at=asked_at,
        )
    )
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
    if saved.version is not None and not skipped and not store.corrections.has(saved.version.version_id):
        derive_masks(saved.version, services)


def derive_masks(version: AnnotationVersion, services: Services) -> None:
    """Derive the masks of an annotation's version, and store them.

    Raises:
        CodecError: nothing of it can be read.
        ImageError: its image cannot be had.
        LabelConfigError: its label config has no image or nothing to draw with.
        StudioError: Label Studio does not answer.
    """
    masks = _derive(version, services)
    if masks is not None:
        services.store.corrections.save(version.version_id, masks)


def _derive(version: AnnotationVersion, services: Services) -> DerivedMasks | None:
    from maskloop.segmentation.image import decode_image
    from maskloop_studio.formats import annotation_to_segments, count_edits, is_approximate
    from maskloop_studio.formats.label_config import parse_label_config

    client = services.client
    place = f"task {version.task_id}, annotation {version.annotation_id}"
    # With the project named, Label Studio does not call us for a live prediction of the task.
    task = client.task(version.task_id, project_id=version.project_id)
    if task is None:
        return None  # deleted meanwhile, and with it the annotation: its own event says so
    config = parse_label_config(version.label_config)
    uri = task.data.get(config.image_field)
    if not isinstance(uri, str):
        raise LabelConfigError(
            place,
            expected=f"an image address in its field {config.image_field!r}",
            got=type(uri).__name__,
            remedy="check `value` of <Image> against the task's data",
        )
    data = services.fetcher.fetch(uri, task_id=version.task_id)
    height, width = decode_image(data, max_pixels=services.settings.max_image_pixels).shape[:2]
    size_hw = (height, width)
    result = version.content.get("result") or []
    content = annotation_to_segments(result, config, size_hw=size_hw, place=place)
    log_failures(
        logger,
        "regions_with_problems",
        [(version.task_id, problem) for problem in (*content.problems, *content.notes)],
        annotation_id=version.annotation_id,
    )
    if (content.problems or content.notes) and not content.segments:
        # Kept as it is, it would teach that nothing is to be seen on this image.
        raise CodecError(
            place,
            expected="at least one region that can be read",
            got=(*content.problems, *content.notes)[0],
            remedy="correct the regions in Label Studio and save again",
        )
    predicted = _prediction_of(version.content, services)
    predicted_ids = {str(region["id"]) for region in predicted.get("result", []) if "id" in region}
    return DerivedMasks(
        image_key=services.image_cache.put(data),
        image_uri=uri,
        size_hw=size_hw,
        segments=content.segments,
        edits=count_edits(result, predicted_ids),
        approximate=is_approximate(result),
        model_version=predicted.get("model_version"),
    )


def _prediction_of(annotation: Mapping[str, Any], services: Services) -> Mapping[str, Any]:
    prediction_id = annotation.get("parent_prediction")
    return (services.client.prediction(int(prediction_id)) if prediction_id else None) or {}


def _drop_tasks(job: Job, control: JobControl, services: Services) -> None:
    client, store, project_id = services.client, services.store, job.project_id
    for done, task_id in enumerate(job.subject_ids):
        control.progress(done, len(job.subject_ids))
        asked_at = now()
        if client.task(task_id, project_id=project_id) is None:
            store.annotations.delete(project_id, task_ids=[task_id], read_at=asked_at)
            # On SQLite Label Studio gives a deleted task's number to the next one, without a prediction yet.
            store.pushes.forget(project_id, [task_id])
            store.scores.forget_tasks(project_id, [task_id])
        else:
            _drop_gone(task_id, project_id, services)


def _drop_gone(task_id: int, project_id: int, services: Services) -> None:
    """Follow a task whose number another one has by now: the annotations of the first are gone."""
    store, asked_at = services.store, now()
    known = set(store.annotations.of_task(project_id, task_id))
    if not known:
        return
    task = services.client.stamped_task(project_id, task_id)
    standing = {annotation.id for annotation in task.annotations} if task is not None else set()
    if store.annotations.delete(project_id, annotation_ids=sorted(known - standing), read_at=asked_at):
        store.pushes.forget(project_id, [task_id])
        store.scores.forget_tasks(project_id, [task_id])


def _follow_project(job: Job, services: Services) -> None:
    store = services.store
    project = services.client.find_project(job.project_id)
    if project is None or job.project_id not in store.projects.ids():
        return
    store.projects.save(job.project_id, project.label_config)
    # What could not be read under the old label config may be readable under this one.
    for dead in store.jobs.find(
        statuses=[JobStatus.DEAD], kind=JobKind.EVENT, project_id=job.project_id, limit=1000
    ):
        if dead.action in ANNOTATION_ACTIONS:
            try_again(dead, store=store, queue=services.queue)


def _drop_project(job: Job, services: Services) -> None:
    if services.client.find_project(job.project_id) is not None:
        return
    gone = services.store.annotations.delete_project(job.project_id)
    services.store.projects.remove(job.project_id)
    services.store.scores.forget_project(job.project_id)
    log_action(logger, "project_deleted", project_id=job.project_id, annotations=gone)


def _train_when_due(project_id: int, services: Services) -> None:
    store, settings = services.store, services.settings
    new = count_new_corrections(project_id, store)
    if new >= settings.train_after:
        request(
            JobKind.TRAINING,
            project_id,
            f"{new} new corrections",
            store=store,
            queue=services.queue,
            quiet_s=settings.train_quiet_s,
        )
