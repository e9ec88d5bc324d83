"""Predictions that Label Studio has stored, in the form of corrections: they stand in for annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from maskloop.errors import ConfigurationError
from maskloop_studio.formats import annotation_to_segments, config_for_task
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.formats.task_data import task_images

if TYPE_CHECKING:
    from maskloop.store.corrections import TaskCorrections
    from maskloop.types import Correction
    from maskloop_studio.services import Services

__all__ = ["stored_predictions"]

PREFIX = "predictions:"


def stored_predictions(project_id: int, include: str, services: Services) -> Iterator[TaskCorrections]:
    """Yield a version's predictions of tasks without an annotation, by task number, one in memory at once.

    Args:
        project_id: Label Studio's number.
        include: "predictions:VERSION".
        services: the notes of pushed predictions, Label Studio, images.

    Raises:
        ConfigurationError: it has another form, or nothing of such a version was pushed.
        StudioError: Label Studio does not answer.
    """
    from maskloop.store.corrections import TaskCorrections
    from maskloop.store.holdout import HOLDOUT, TRAIN, content_position

    version = include.removeprefix(PREFIX)
    sides = services.store.holdout.sides(project_id)
    pushed = sorted(services.store.pushes.of(project_id, version))
    if not include.startswith(PREFIX) or not pushed:
        raise ConfigurationError(
            "--include",
            expected=f"predictions:VERSION, of a version whose predictions are in Label Studio "
            f"({', '.join(services.store.pushes.versions(project_id)) or 'there is none'})",
            got=include[:100],
            remedy="see `maskloop models list`, and run `maskloop prelabel`",
        )
    annotated = set(services.store.annotations.labelled_tasks(project_id))
    config_text = services.client.project(project_id).label_config
    for task_id in pushed:
        if task_id in annotated:
            continue
        corrections = _read(project_id, task_id, version, config_text, services)
        if corrections:
            # As intake would place the images of the task, if it were annotated.
            key = min(one.image_key for one in corrections)
            by_content = HOLDOUT if content_position(key) < services.settings.holdout_fraction else TRAIN
            split = sides.get(key, by_content)
            yield TaskCorrections(task_id=task_id, split=split, corrections=corrections)


def _read(
    project_id: int, task_id: int, version: str, config_text: str, services: Services
) -> tuple[Correction, ...]:
    from maskloop.segmentation.image import decode_image
    from maskloop.types import Correction

    task = services.client.task(task_id, project_id=project_id)
    found = [raw for raw in services.client.predictions_of(task_id) if raw.get("model_version") == version]
    if task is None or not found:
        return ()
    newest: Mapping[str, Any] = max(found, key=lambda raw: int(raw["id"]))
    config = config_for_task(parse_label_config(config_text), task.data)
    place = f"task {task_id}, prediction {newest['id']}"
    images = task_images(config, task.data, place=place)
    made = []
    for image in images:
        data = services.fetcher.fetch(image.address, task_id=task_id)
        height, width = decode_image(data, max_pixels=services.settings.max_image_pixels).shape[:2]
        content = annotation_to_segments(
            newest.get("result") or [], config, size_hw=(height, width), place=place, image=image
        )
        made.append(
            Correction(
                project_id=project_id,
                task_id=task_id,
                annotation_id=0,
                updated_at=_time(newest),
                image_key=services.image_cache.put(data),
                size_hw=(height, width),
                segments=content.segments,
                model_version=version,
                view=image.to_name if len(images) > 1 else "",
                image_index=image.item_index or 0,
                image_uri=image.address,
            )
        )
    return tuple(made)


def _time(prediction: Mapping[str, Any]) -> datetime:
    text = str(prediction.get("created_at") or "1970-01-01T00:00:00Z")
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
