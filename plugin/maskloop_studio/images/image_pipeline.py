"""From image addresses to predictions: fetch, decode, predict; an error stays with its image."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from maskloop.errors import MaskloopError
from maskloop.memory_budget import MemoryBudget
from maskloop.segmentation.image import EncodedImage
from maskloop.store.holdout import is_blind
from maskloop.types import ImageResult, Prediction, PredictionFailure
from maskloop_studio.images.image_looks import ImageLooks, LookedImage, OutputObserver
from maskloop_studio.images.time_limit import TimeLimit

if TYPE_CHECKING:
    from maskloop.segmentation.engine import Engine
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.types import SegmentationTask
    from maskloop_studio.images.deadline import FetchLimit
    from maskloop_studio.images.fetcher import ImageFetcher

__all__ = ["ImageInput", "ImagePipeline"]

BATCHES = 3  # of one request at once: one is prepared, one is in the model, one is drawn
LEAST_IN_FLIGHT = 8  # images of one request, where batches are small
FETCHES_AT_ONCE = 8  # of one request
MAX_FILE_BYTES = 64 * 2**20
FILE_MEMORY_BYTES = 2**30
PREPARED_BYTES = 4 * 2**20  # of an image at the model's size; 800 x 1333 take 3.1 MB
Used = TypeVar("Used")


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """One image that is to be predicted."""

    uri: object  # as the task gives it; anything but a text is an error of this image
    task_id: int | None  # for storage addresses and messages
    task: SegmentationTask  # which post-processing
    thresholds: Thresholds  # which segments count
    keep_features: bool = False  # for clicks on the image that may follow


@dataclass(frozen=True, kw_only=True)
class ImagePipeline:
    """Predicts the images of many tasks; safe from any thread."""

    fetcher: ImageFetcher
    engine: Engine
    max_pixels: int  # of one image
    max_file_bytes: int = MAX_FILE_BYTES  # of one image file
    # Of all requests together, for image files from the download to the prediction.
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(FILE_MEMORY_BYTES))
    looks: ImageLooks | None = None  # keeps features; None: none are kept
    blind_below: float = 0.0  # images before this place in the order of content get no segment

    def predict(
        self, inputs: Sequence[ImageInput], *, source: str, for_selection: bool = False
    ) -> list[ImageResult]:
        """Return one result an image, in order: its prediction, or why there is none.

        Args:
            inputs: the images.
            source: the checkpoint, as for load_checkpoint.
            for_selection: also return what choosing the next task needs.

        Raises:
            ModelLoadError: the checkpoint cannot be loaded.
        """
        results = self.predict_and_use(
            inputs, lambda _, result: result, source=source, for_selection=for_selection
        )
        return [result for result in results if result is not None]  # without a limit all are there

    def predict_and_use(
        self,
        inputs: Sequence[ImageInput],
        use: Callable[[int, ImageResult], Used],
        *,
        source: str,
        limit: TimeLimit | None = None,
        for_selection: bool = False,
    ) -> list[Used | None]:
        """Return what is made of each image's result, in order; made beside the model, several at once.

        Of a large request few images and few predictions are in memory at any time.

        Args:
            inputs: the images.
            use: makes what is wanted of an image's index and its result; called in several threads.
            source: the checkpoint, as for load_checkpoint.
            limit: when this has to return; what is not done by then is given up.
            for_selection: also return what choosing the next task needs.

        Returns:
            What `use` returned; None where the limit came first.

        Raises:
            Exception: what `use` raised.
            ModelLoadError: the checkpoint cannot be loaded.
        """
        limit = limit or TimeLimit()
        fetches = limit.fetches.child()
        results: list[Used | None] = [None] * len(inputs)
        in_flight: dict[Future[Used], _Flight[Used]] = {}
        index_of: dict[Future[Used], int] = {}
        most = max(LEAST_IN_FLIGHT, BATCHES * self.engine.max_batch)
        waiting = enumerate(inputs)
        threads = ThreadPoolExecutor(min(FETCHES_AT_ONCE, max(1, len(inputs))), "fetch")
        try:
            while not limit.is_over:
                for index, image in itertools.islice(waiting, most - len(in_flight)):
                    flight = _Flight(
                        image, partial(use, index), limit, source=source, for_selection=for_selection
                    )
                    in_flight[flight.used] = flight
                    index_of[flight.used] = index
                    flight.fetched = threads.submit(self._fetch, flight, fetches)
                    flight.fetched.add_done_callback(partial(self._submit, flight))
                if not in_flight:
                    break
                for used in limit.wait(in_flight):
                    in_flight.pop(used).let_go()
                    results[index_of[used]] = used.result()
        finally:
            for flight in in_flight.values():
                flight.cancel()
            # Abandoned, but not waited for: a slow image host must not hold up the answer.
            fetches.cancelled.set()
            threads.shutdown(wait=False, cancel_futures=True)
        return results

    def _fetch(self, flight: _Flight[Used], limit: FetchLimit) -> bytes | MaskloopError | None:
        """Return an image file, or why there is none; None where the limit came before there was room.

        How large a file is shows only at its end, so the largest one has to have room before.
        """
        most, image = self.max_file_bytes + PREPARED_BYTES, flight.image
        if not self.memory.acquire(most, is_over=lambda: limit.is_over):
            return None
        held = 0
        try:
            (data,) = self.fetcher.fetch_many([image.uri], task_ids=[image.task_id], limit=limit)
            if isinstance(data, bytes):
                held = min(len(data) + PREPARED_BYTES, most, self.memory.total_bytes)
                flight.held_bytes = held
        finally:
            self.memory.release(min(most, self.memory.total_bytes) - held)
        return data

    def _submit(self, flight: _Flight[Used], fetched: Future[bytes | MaskloopError | None]) -> None:
        """Hand a fetched image to the engine; its result is used in the thread that made it."""
        if fetched.cancelled():
            return
        predicted: Future[list[ImageResult]] | None = None
        observer = None
        try:
            data = fetched.result()
            if flight.limit.is_over or data is None:
                return
            if isinstance(data, MaskloopError):
                flight.finish(PredictionFailure(error=data))
                return
            flight.is_blind = is_blind(hashlib.sha256(data).hexdigest(), self.blind_below)
            observer = self._observer(flight, data)
            predicted = flight.predicted = self.engine.submit(
                [EncodedImage(data=data, max_pixels=self.max_pixels)],
                source=flight.source,
                task=flight.image.task,
                thresholds=flight.image.thresholds,
                for_selection=flight.for_selection,
                use_output=observer[0] if observer is not None else None,
            )
        except Exception as exc:
            if observer is not None:
                observer[1](exc)
            flight.used.set_exception(exc)
            return
        finally:
            if predicted is None:
                self.memory.release(flight.held_bytes)
        predicted.add_done_callback(lambda _: self.memory.release(flight.held_bytes))
        predicted.add_done_callback(flight.take)
        if observer is not None:
            predicted.add_done_callback(observer[1])

    def _observer(self, flight: _Flight[Used], data: bytes) -> OutputObserver | None:
        image = flight.image
        if self.looks is None or not image.keep_features or not isinstance(image.uri, str):
            return None
        looked = LookedImage(address=image.uri, task_id=image.task_id, task=image.task, source=flight.source)
        return self.looks.observer(looked, data)


class _Flight(Generic[Used]):
    """One image on its way through fetching, the engine and its use."""

    def __init__(
        self,
        image: ImageInput,
        use: Callable[[ImageResult], Used],
        limit: TimeLimit,
        *,
        source: str,
        for_selection: bool,
    ) -> None:
        self.image, self.limit, self.source, self.for_selection = image, limit, source, for_selection
        self.used: Future[Used] = Future()
        self.held_bytes = 0  # of the file, once it is there
        self.is_blind = False  # its segments are not shown
        self.fetched: Future[bytes | MaskloopError | None] | None = None
        self.predicted: Future[list[ImageResult]] | None = None
        self._use = use

    def take(self, predicted: Future[list[ImageResult]]) -> None:
        """Use the engine's result, unless the limit came first."""
        if predicted.cancelled() or self.limit.is_over:
            return
        try:
            result = predicted.result()[0]
        except Exception as exc:
            self.used.set_exception(exc)
        else:
            if self.is_blind and isinstance(result, Prediction):
                result = dataclasses.replace(result, segments=())
            self.finish(result)

    def finish(self, result: ImageResult) -> None:
        """Use a result."""
        try:
            self.used.set_result(self._use(result))
        except Exception as exc:
            self.used.set_exception(exc)

    def let_go(self) -> None:
        """Drop the file and the prediction now: their futures refer back, so gc alone would free them."""
        self.fetched = self.predicted = None

    def cancel(self) -> None:
        """Save the work that has not begun."""
        for future in (self.fetched, self.predicted):
            if future is not None:
                future.cancel()
