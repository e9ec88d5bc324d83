"""Small pictures for lists: a task's first image, and the place of one region, as files of a few kB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskloop.errors import ImageError
from maskloop_studio.dashboard.lookups import roles_of
from maskloop_studio.dashboard.model_drawings import plan_of_project
from maskloop_studio.errors import NotFoundError
from maskloop_studio.projects.frozen_corrections import ensure_image
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.store.reviews import StoredSuspicion
    from maskloop.types import RgbImage
    from maskloop_studio.dashboard.model_drawings import ModelDrawings
    from maskloop_studio.services import Services

__all__ = ["SmallPictures"]

EDGE = 320  # pixels: the longer side
JPEG_QUALITY = 85


class SmallPictures:
    """Makes the pictures; called in threads, safe from any."""

    def __init__(self, services: Services, drawings: ModelDrawings) -> None:
        self._services, self._drawings = services, drawings

    def of_task(self, project_id: int, task_id: int) -> bytes:
        """Return a task's first image as a small JPEG.

        Raises:
            NotFoundError: Label Studio has no such task in the project.
            MaskloopError: the image cannot be had or read.
        """
        import cv2

        image_hwc = self._drawings.decode(self._data(project_id, task_id))
        height, width = image_hwc.shape[:2]
        scale = min(1.0, EDGE / max(height, width))
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        small_hwc = cv2.resize(image_hwc, size_wh, interpolation=cv2.INTER_AREA)
        return _jpeg(small_hwc.astype(np.uint8, copy=False))

    def of_suspicion(self, suspicion: StoredSuspicion) -> bytes:
        """Return the place of a region that is probably wrong, as a small JPEG; red: drawn, green: missing.

        Raises:
            MaskloopError: the image cannot be had or read.
        """
        from maskloop.curation.review.gallery import draw_crop

        image_hwc = self._drawings.decode(self._annotated(suspicion))
        missing = suspicion.missing
        return draw_crop(
            image_hwc,
            drawn=None if missing else suspicion.segment,
            proposed=suspicion.segment if missing else None,
        )

    def _annotated(self, suspicion: StoredSuspicion) -> bytes:
        services = self._services
        cache, key = services.image_cache, suspicion.image_key
        if not cache.path(key).exists():
            found = [
                one for one in services.store.corrections.at([suspicion.version_id]) if one.image_key == key
            ]
            if not found:
                raise ImageError(
                    f"suspicion {suspicion.number}",
                    expected="the image of the annotation",
                    got="an annotation of another image",
                    remedy="run `maskloop review` again",
                )
            ensure_image(found[0], image_cache=cache, fetcher=services.fetcher)
        return cache.get(key)

    def _data(self, project_id: int, task_id: int) -> bytes:
        services = self._services
        version = roles_of(project_id, services.registry).champion
        task = services.client.task(task_id, project_id=project_id)
        if version is None or task is None or task.project_id != project_id:
            raise NotFoundError(
                f"task {task_id}",
                expected=f"a task of project {project_id}, which has a model",
                got="none with this number",
                remedy="look up the number in Label Studio's Data Manager",
            )
        model = services.registry.peek(model_name(project_id), version)
        plan = plan_of_project(project_id, model, services)
        images = plan.images(task.data, place=f"task {task_id}")
        return services.fetcher.fetch(str(images[0].address), task_id=task_id)


def _jpeg(image_hwc: RgbImage) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_hwc)).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
