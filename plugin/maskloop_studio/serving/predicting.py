"""From image addresses to predictions: fetch, decode, ask the engine; an error stays with its task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskloop.errors import ImageError, MaskloopError
from maskloop.segmentation.image import decode_image
from maskloop.types import Prediction, RgbImage
from maskloop_studio.serving.options import PredictionPlan

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["predict_uris"]

CHUNK = 16  # images decoded at once: bounds memory, whatever the request's size


def predict_uris(
    uris: Sequence[object],
    *,
    task_ids: Sequence[int | None],
    source: str,
    plan: PredictionPlan,
    services: Services,
    deadline: float | None = None,
    study: bool = False,
) -> list[Prediction | MaskloopError | None]:
    """Return one prediction a task, in order.

    Args:
        uris: what the tasks say of their images; anything but a text is an error of its task.
        task_ids: the tasks' numbers, for messages and for storage addresses.
        source: the checkpoint that answers.
        plan: what is asked of it.
        services: fetcher, engine, bounds.
        deadline: `time.monotonic()` after which no further chunk is begun.
        study: also say what choosing wants to know.

    Returns:
        The prediction, or why there is none; None where the deadline came first.
    """
    answers: list[Prediction | MaskloopError | None] = []
    for first in range(0, len(uris), CHUNK):
        if deadline is not None and time.monotonic() > deadline:
            answers.extend([None] * (len(uris) - len(answers)))
            break
        chunk = slice(first, first + CHUNK)
        images = [
            _decoded(data, services.settings.max_image_pixels)
            for data in _fetched(uris[chunk], task_ids[chunk], services)
        ]
        answers.extend(_predicted(images, source, plan, services, study))
    return answers


def _fetched(
    uris: Sequence[object], task_ids: Sequence[int | None], services: Services
) -> list[bytes | MaskloopError]:
    good = [(uri, task_id) for uri, task_id in zip(uris, task_ids, strict=True) if isinstance(uri, str)]
    fetched = iter(
        services.fetcher.fetch_many([uri for uri, _ in good], task_ids=[number for _, number in good])
    )
    return [
        next(fetched)
        if isinstance(uri, str)
        else ImageError(
            f"task {task_id}",
            expected="the address of an image",
            got=type(uri).__name__,
            remedy="check `value` of <Image> in the label config against the task's data",
        )
        for uri, task_id in zip(uris, task_ids, strict=True)
    ]


def _decoded(data: bytes | MaskloopError, max_pixels: int) -> RgbImage | MaskloopError:
    if isinstance(data, MaskloopError):
        return data
    try:
        return decode_image(data, max_pixels=max_pixels)
    except ImageError as exc:
        return exc


def _predicted(
    images: Sequence[RgbImage | MaskloopError],
    source: str,
    plan: PredictionPlan,
    services: Services,
    study: bool,
) -> list[Prediction | MaskloopError]:
    good = [image for image in images if not isinstance(image, MaskloopError)]
    answers = iter(
        services.engine.predict(good, source=source, task=plan.task, thresholds=plan.thresholds, study=study)
    )
    return [image if isinstance(image, MaskloopError) else next(answers) for image in images]
