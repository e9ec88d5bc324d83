"""From image addresses to predictions: fetch, decode, ask the engine; an error stays with its task."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from maskloop.errors import MaskloopError
from maskloop.segmentation.image import decode_image
from maskloop.types import ImageResult, PredictionFailure
from maskloop_studio.projects.prediction_plan import PredictionPlan

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["draw_uris", "predict_uris"]

BATCHES = 3  # of one request at once: one is prepared, one is in the model, one is drawn
LEAST_AHEAD = 8  # images of one request that are under way, where batches are small
Drawn = TypeVar("Drawn")


def predict_uris(
    uris: Sequence[object],
    *,
    task_ids: Sequence[int | None],
    source: str,
    plan: PredictionPlan,
    services: Services,
    for_selection: bool = False,
) -> list[ImageResult]:
    """Return one result a task, in order: its prediction, or why there is none. Arguments as of draw_uris."""
    results = draw_uris(
        uris,
        lambda _, answer: answer,
        task_ids=task_ids,
        source=source,
        plan=plan,
        services=services,
        for_selection=for_selection,
    )
    return [result for result in results if result is not None]  # None only marks what a deadline cut off


def draw_uris(
    uris: Sequence[object],
    draw: Callable[[int, ImageResult], Drawn],
    *,
    task_ids: Sequence[int | None],
    source: str,
    plan: PredictionPlan,
    services: Services,
    deadline: float | None = None,
    for_selection: bool = False,
) -> list[Drawn | None]:
    """Return what is made of each task's prediction, in order; made beside the model, several at once.

    Of a large request few images are in memory at any time, and few predictions.

    Args:
        uris: what the tasks say of their images; anything but a text is an error of its task.
        draw: makes of a task's place in the request, and its prediction or error, what is wanted.
        task_ids: the tasks' numbers, for messages and for storage addresses.
        source: the checkpoint that answers.
        plan: what is asked of it.
        services: fetcher, engine, bounds.
        deadline: `time.monotonic()` after which no further image is begun.
        for_selection: also say what choosing wants to know.

    Returns:
        What `draw` returned; None where the deadline came first.

    Raises:
        Exception: what `draw` raised.
    """
    most = max(LEAST_AHEAD, BATCHES * services.engine.max_batch)
    drawn: list[Drawn | None] = []
    flying: deque[_Flight[Drawn]] = deque()
    with closing(services.fetcher.fetch_ahead(uris, task_ids=task_ids)) as fetched:
        for number, data in enumerate(fetched):
            if deadline is not None and time.monotonic() > deadline:
                break
            flying.append(_begin(data, partial(draw, number), source, plan, services, for_selection))
            if len(flying) == most:
                drawn.append(_landed(flying, deadline))
    while flying:
        drawn.append(_landed(flying, deadline))
    return drawn + [None] * (len(uris) - len(drawn))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Flight(Generic[Drawn]):
    """One image on its way."""

    asked: Future[list[ImageResult]]  # the engine's
    drawn: Future[Drawn]


def _begin(
    data: bytes | MaskloopError,
    draw: Callable[[ImageResult], Drawn],
    source: str,
    plan: PredictionPlan,
    services: Services,
    for_selection: bool,
) -> _Flight[Drawn]:
    drawn: Future[Drawn] = Future()
    if isinstance(data, MaskloopError):
        asked: Future[list[ImageResult]] = Future()
        asked.set_result([PredictionFailure(error=data)])
    else:
        decode = partial(decode_image, data, max_pixels=services.settings.max_image_pixels)
        asked = services.engine.submit(
            [decode], source=source, task=plan.task, thresholds=plan.thresholds, for_selection=for_selection
        )
    # In the thread that has the answer: the masks are gone before the next ones come.
    asked.add_done_callback(partial(_draw_into, drawn, draw))
    return _Flight(asked=asked, drawn=drawn)


def _draw_into(
    drawn: Future[Drawn],
    draw: Callable[[ImageResult], Drawn],
    asked: Future[list[ImageResult]],
) -> None:
    if asked.cancelled():
        drawn.cancel()
        return
    try:
        drawn.set_result(draw(asked.result()[0]))
    except Exception as exc:
        drawn.set_exception(exc)


def _landed(flying: deque[_Flight[Drawn]], deadline: float | None) -> Drawn | None:
    """Return what was drawn of the first; after the deadline only what the model has already."""
    first = flying.popleft()
    try:
        return first.drawn.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        for flight in (first, *flying):
            flight.asked.cancel()  # in vain where the model has it: then it is waited for
    try:
        return first.drawn.result()
    except CancelledError:
        return None
