"""A model judged better predicts beside the champion, for a share of requests; its predictions are not shown.

It is bounded so that no answer waits for it: one thread of the lowest priority with one image in hand and one
waiting, idle most of the time; images that come meanwhile are left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.types import Prediction
from maskloop_studio.serving.model_directory import ServedModel

if TYPE_CHECKING:
    from maskloop.segmentation.checkpoint import Checkpoint
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop_studio.images.fetcher import ImageFetcher
    from maskloop_studio.projects.prediction_plan import ProjectPlan

__all__ = ["ShadowImage", "ShadowRunner"]

logger = logging.getLogger(__name__)
DIFFERS_BELOW = 0.9  # of agreement: then an annotator would see another drawing
REST = 4  # times as long as an image took, it does nothing
MAX_URI_CHARACTERS = 10_000_000  # an image in the address itself is kept in memory until its turn
LOWEST_PRIORITY = 19


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowImage:
    """An image that the champion has answered, and how."""

    project_id: int
    task_id: int | None
    uri: str
    data: Mapping[str, object]  # of its task: labels may come with it
    plan: ProjectPlan  # the champion's
    champion: ServedModel
    shadow: ServedModel
    prediction: Prediction  # the champion's


class ShadowRunner:
    """Takes images from answered requests, and counts where the shadow predicts something else."""

    def __init__(
        self, settings: Settings, *, fetcher: Callable[[], ImageFetcher], store: Callable[[], Store]
    ) -> None:
        """Args:
        settings: the share of requests, and bounds.
        fetcher: fetches the images; this and the store are made at their first use.
        store: keeps what was counted.
        """
        self._settings, self._fetcher, self._store = settings, fetcher, store
        self._images: queue.Queue[ShadowImage | None] = queue.Queue(maxsize=1)
        self._lock = threading.Lock()
        self._owed = 0.0  # requests
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._loaded: tuple[str, Checkpoint] | None = None
        self._broken: str | None = None  # source that failed: not tried again

    def wants(self, shadow: ServedModel | None) -> bool:
        """Return whether this request is one of the share that is looked at."""
        if shadow is None or shadow.source == self._broken:
            return False
        with self._lock:
            self._owed += self._settings.shadow_share
            due = self._owed >= 1
            self._owed -= due
        return due and not self._images.full()

    def offer(self, image: ShadowImage) -> None:
        """Hand an image over; it is dropped where another one waits. Returns at once."""
        if len(image.uri) > MAX_URI_CHARACTERS or self._stop.is_set():
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
                self._thread.start()
        with contextlib.suppress(queue.Full):
            self._images.put_nowait(image)

    def stop(self) -> None:
        """Look at no more images; the one in hand is finished."""
        self._stop.set()
        with contextlib.suppress(queue.Full):
            self._images.put_nowait(None)
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # not every system has priorities for threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while not self._stop.is_set():
            image = self._images.get()
            if image is None:
                return
            started = time.monotonic()
            self._look(image)
            self._stop.wait(REST * (time.monotonic() - started))

    def _look(self, image: ShadowImage) -> None:
        try:
            self._compare(image)
        except MaskloopError as exc:
            log_action(
                logger, "shadow_failed", level=logging.WARNING, model_version=image.shadow.tag, error=exc
            )
        except Exception:
            log_action(
                logger,
                "shadow_failed",
                level=logging.ERROR,
                exc_info=True,
                model_version=image.shadow.tag,
            )

    def _compare(self, image: ShadowImage) -> None:
        from maskloop.masks import agreement

        prediction = self._predict(image)
        agreed = agreement(image.prediction, prediction)
        self._store().shadows.note(
            image.project_id,
            image.champion.tag,
            image.shadow.tag,
            agreement=agreed,
            differs=agreed < DIFFERS_BELOW,
        )

    def _predict(self, image: ShadowImage) -> Prediction:
        from maskloop.segmentation.image import decode_image
        from maskloop.segmentation.predict import predict_images

        shadow = image.shadow
        (data,) = self._fetcher().fetch_many([image.uri], task_ids=[image.task_id])
        if isinstance(data, MaskloopError):
            raise data
        plan = dataclasses.replace(image.plan, model_labels=shadow.labels, model_version=shadow.tag).of_task(
            image.data
        )
        # Not through the engine: an image in its queue would delay those that annotators wait for.
        (prediction,) = predict_images(
            self._checkpoint(shadow.source),
            [decode_image(data, max_pixels=self._settings.max_image_pixels)],
            task=plan.task,
            thresholds=plan.thresholds,
            max_batch=1,
        )
        return prediction

    def _checkpoint(self, source: str) -> Checkpoint:
        from maskloop.segmentation.checkpoint import load_checkpoint

        if self._loaded is None or self._loaded[0] != source:
            self._loaded = None  # two of them need twice the memory
            try:
                self._loaded = source, load_checkpoint(source, device=self._settings.device)
            except Exception:
                self._broken = source
                raise
        return self._loaded[1]
