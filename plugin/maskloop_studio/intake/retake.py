"""Stored annotations that are read again: by a newer reader, or because they were set aside."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop.store.annotations import text_digest
from maskloop.store.jobs import NewEvent
from maskloop_studio.intake.reading import READER_VERSION, AnnotationReading, read_again

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.annotations import AnnotationVersion
    from maskloop.store.database import Store

__all__ = ["keep_reading", "read_old_again", "retry_set_aside"]

logger = logging.getLogger(__name__)
PAGE = 64  # annotations
MAX_RETRIED = 100_000  # annotations that are set aside


def keep_reading(
    version: AnnotationVersion, reading: AnnotationReading, store: Store, settings: Settings
) -> None:
    """Store what a version teaches and whether it is learnt from or judges, or why it is set aside."""
    if reading.set_aside is None:
        side = store.holdout.place(
            version.project_id,
            [image.image_key for image in reading.images],
            fraction=settings.holdout_fraction,
            near_distance=settings.near_distance,
        )
        store.annotations.set_split(version.annotation_id, side)
        store.corrections.save(version.version_id, *reading.images, reader_version=READER_VERSION)
        return
    store.corrections.set_aside(
        version.version_id,
        reading.set_aside,
        label_config=store.projects.label_config(version.project_id) or version.label_config,
        reader_version=READER_VERSION,
    )
    log_action(
        logger,
        "annotation_set_aside",
        level=logging.WARNING,
        annotation_id=version.annotation_id,
        task_id=version.task_id,
        version_id=version.version_id,
        reason=reading.set_aside,
    )


def read_old_again(
    project_id: int,
    *,
    store: Store,
    settings: Settings,
    on_page: Callable[[], object] = lambda: None,
) -> tuple[int, ...]:
    """Read a project's annotations again that an older reader has read; once for each reader version.

    May be stopped at any moment: what was read is stored page by page.

    Args:
        project_id: Label Studio's number.
        store: where they are stored.
        settings: how labels and answers are read.
        on_page: called after every page; what it raises ends the work.

    Returns:
        The numbers of events that were added for annotations whose task has to be read from Label Studio.
    """
    config_text = store.projects.label_config(project_id) or ""
    event_ids: list[int] = []
    read = set_aside = 0
    deferred: set[int] = set()
    while True:
        olds = store.corrections.old_readings(
            project_id, reader_version=READER_VERSION, limit=PAGE + len(deferred)
        )
        new = [old for old in olds if old.version_id not in deferred]
        if not new:
            break
        for old in new:
            version = store.annotations.version(old.version_id)
            if version is None:  # a database that was changed by hand
                deferred.add(old.version_id)
                continue
            reading = read_again(
                version, old.masks, config_text=version.label_config or config_text, settings=settings
            )
            if reading is None:
                deferred.add(old.version_id)
                event_ids += _add_event(version.project_id, version.annotation_id, "reader", store)
                continue
            keep_reading(version, reading, store, settings)
            read += 1
            set_aside += reading.set_aside is not None
        on_page()
    if read or event_ids:
        log_action(
            logger,
            "annotations_read_again",
            project_id=project_id,
            reader_version=READER_VERSION,
            read=read,
            set_aside=set_aside,
            events=len(event_ids),
        )
    return tuple(event_ids)


def retry_set_aside(
    project_id: int, label_config: str, *, store: Store, every: bool = False
) -> tuple[int, ...]:
    """Add events for annotations that are set aside and that may be readable now.

    Args:
        project_id: Label Studio's number.
        label_config: the project's label config now.
        store: where they are stored.
        every: also those that were tried with this config and this reader; at most once a day.

    Returns:
        The numbers of the new events.
    """
    config = text_digest(label_config)
    event_ids: list[int] = []
    for one in store.annotations.set_aside(project_id, limit=MAX_RETRIED):
        if every:
            state = f"{one.version_id}:{date.today().isoformat()}"
        elif (one.reader_version, one.label_config) != (READER_VERSION, config):
            state = f"{one.version_id}:{READER_VERSION}:{config}"
        else:
            continue
        event_ids += _add_event(project_id, one.annotation_id, state, store)
    return tuple(event_ids)


def _add_event(project_id: int, annotation_id: int, state: str, store: Store) -> list[int]:
    text = f"retake:{project_id}:{annotation_id}:{READER_VERSION}:{state}"
    event = NewEvent(
        key=f"retake:{hashlib.sha256(text.encode()).hexdigest()}",
        action="ANNOTATION_UPDATED",
        project_id=project_id,
        subject_ids=(annotation_id,),
    )
    return [job_id for job_id in store.jobs.add_events([event]) if job_id is not None]
