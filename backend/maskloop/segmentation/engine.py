"""One thread that runs the models: micro-batches what waits, keeps a few checkpoints, swaps without a gap."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

from maskloop.errors import MaskloopError
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.segmentation.sources import first_line
from maskloop.segmentation.views import ViewPlan
from maskloop.types import Prediction, RgbImage, SegmentationTask

__all__ = ["Answer", "Engine", "EngineClosedError", "InferenceError"]

Answer: TypeAlias = Prediction | MaskloopError  # of one image
logger = logging.getLogger(__name__)


class EngineClosedError(MaskloopError):
    """The engine was closed and takes no more images."""


class InferenceError(MaskloopError):
    """The model itself failed on an image, for instance for want of memory."""


@dataclass(kw_only=True, eq=False)
class _Request:
    source: str
    checkpoint: Checkpoint
    images: Sequence[RgbImage]
    task: SegmentationTask
    thresholds: Thresholds
    study: bool
    future: Future[list[Answer]] = field(default_factory=Future)
    answers: dict[int, Answer] = field(default_factory=dict)
    started: bool = False  # its first image was taken: it can no longer be cancelled
    dropped: bool = False  # it was cancelled before

    def fits(self, other: _Request) -> bool:
        """Whether both may share a batch."""
        mine = (self.task, self.thresholds, self.study)
        return self.checkpoint is other.checkpoint and mine == (other.task, other.thresholds, other.study)


class Engine:
    """Predicts for many threads at once, on one.

    Callers name the model of each request. To swap, load the new one and then name it: requests that
    were taken before keep their model, and none waits for a load but those that need it.
    """

    def __init__(
        self,
        *,
        task: SegmentationTask,
        thresholds: Thresholds,
        max_batch: int,
        device: str,
        keep: int = 2,
        plan: ViewPlan = ViewPlan(),  # noqa: B008  # frozen
    ) -> None:
        """Start the thread.

        Args:
            task: which post-processing, for requests that name none.
            thresholds: what counts, for requests that name none.
            max_batch: images in one forward pass, of one request or several.
            device: as for load_checkpoint.
            keep: checkpoints held; more while requests for them wait.
            plan: which views a study asks for.
        """
        if max_batch < 1 or keep < 1:
            raise ValueError(f"Engine: expected max_batch and keep of at least 1, got {max_batch} and {keep}")
        self._task, self._thresholds, self._max_batch = task, thresholds, max_batch
        self._device, self._keep, self._plan = device, keep, plan
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[tuple[_Request, int]] = deque()  # an image is its request and its index there
        self._models: OrderedDict[str, Checkpoint] = OrderedDict()  # least recently used first
        self._loading: dict[str, Future[Checkpoint]] = {}
        self._busy: Counter[str] = Counter()  # unanswered requests per source
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="maskloop-engine", daemon=True)
        self._thread.start()

    def load(self, source: str) -> Checkpoint:
        """Return the checkpoint of a source, loading it where it is not held; inference goes on meanwhile.

        Raises:
            ModelLoadError: it cannot be loaded; what was held stays.
            EngineClosedError: after close().
        """
        with self._changed:
            self._check_open()
            if source in self._models:
                self._models.move_to_end(source)
                return self._models[source]
            pending = self._loading.get(source)
            mine = pending is None
            if pending is None:
                pending = self._loading[source] = Future()
        if mine:
            self._load_now(source, pending)
        return pending.result()

    def submit(
        self,
        images: Sequence[RgbImage],
        *,
        source: str,
        task: SegmentationTask | None = None,
        thresholds: Thresholds | None = None,
        study: bool = False,
    ) -> Future[list[Answer]]:
        """Queue images for a model, loading it first where it is not held.

        Args:
            images: uint8 (H, W, 3), upright RGB, any sizes; may be none.
            source: as for load_checkpoint.
            task: which post-processing; the engine's by default.
            thresholds: what counts; the engine's by default.
            study: also say what choosing wants to know; for those who wait for nothing.

        Returns:
            A future of one answer per image, in order: the prediction, or the error of that image. A
            future cancelled before its first image is taken costs no inference.

        Raises:
            ModelLoadError: the model cannot be loaded.
            EngineClosedError: after close().
        """
        checkpoint = self.load(source)
        request = _Request(
            source=source,
            checkpoint=checkpoint,
            images=tuple(images),
            task=self._task if task is None else task,
            thresholds=self._thresholds if thresholds is None else thresholds,
            study=study,
        )
        if not request.images:
            request.future.set_result([])
            return request.future
        with self._changed:
            self._check_open()
            self._busy[source] += 1
            # another load may have evicted it in between
            self._models.setdefault(source, checkpoint)
            self._waiting.extend((request, index) for index in range(len(request.images)))
            self._changed.notify_all()
        return request.future

    def predict(
        self,
        images: Sequence[RgbImage],
        *,
        source: str,
        task: SegmentationTask | None = None,
        thresholds: Thresholds | None = None,
        study: bool = False,
    ) -> list[Answer]:
        """Return one answer per image; the same as submit, but waits. Safe from any thread."""
        return self.submit(images, source=source, task=task, thresholds=thresholds, study=study).result()

    @property
    def held(self) -> tuple[str, ...]:
        """Sources of the checkpoints in memory, least recently used first."""
        with self._changed:
            return tuple(self._models)

    @property
    def queued(self) -> int:
        """Images that wait for the thread."""
        with self._changed:
            return len(self._waiting)

    def close(self) -> None:
        """Answer all that is queued, then stop; later requests are refused. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._changed:
            self._models.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError(
                "engine", expected="an open engine", got="a closed one", remedy="start a new engine"
            )

    def _load_now(self, source: str, pending: Future[Checkpoint]) -> None:
        try:
            checkpoint = load_checkpoint(source, device=self._device)
        except BaseException as exc:
            with self._changed:
                del self._loading[source]
            pending.set_exception(exc)
            return
        with self._changed:
            del self._loading[source]
            if not self._closed:
                self._models[source] = checkpoint
                self._evict(newest=source)
        logger.info("model loaded", extra={"action": "model-loaded", "model_source": source})
        pending.set_result(checkpoint)

    def _evict(self, newest: str | None = None) -> None:
        idle = [source for source in self._models if not self._busy[source] and source != newest]
        for source in idle[: max(0, len(self._models) - self._keep)]:
            del self._models[source]
            logger.info("model dropped", extra={"action": "model-dropped", "model_source": source})

    def _run(self) -> None:
        while self._step():  # a call of its own: what it held of a dropped model goes with it
            pass

    def _step(self) -> bool:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return False
            batch = self._take()
        if batch:
            images = [request.images[index] for request, index in batch]
            self._deliver(batch, self._answer(batch[0][0], images))
        return True

    def _take(self) -> list[tuple[_Request, int]]:
        """Take the oldest image and others asked for alike, as many as fit; forget cancelled requests."""
        batch: list[tuple[_Request, int]] = []
        left: deque[tuple[_Request, int]] = deque()
        for request, index in self._waiting:
            if len(batch) == self._max_batch or (batch and not request.fits(batch[0][0])):
                left.append((request, index))
            elif self._start(request):
                batch.append((request, index))
        self._waiting = left
        return batch

    def _start(self, request: _Request) -> bool:
        if not request.started:
            request.started = True
            request.dropped = not request.future.set_running_or_notify_cancel()
            if request.dropped:
                self._finish(request)
        return not request.dropped

    def _answer(self, request: _Request, images: list[RgbImage]) -> list[Answer]:
        try:
            return list(self._predict(request, images))
        except Exception as exc:
            if len(images) > 1:  # find the one at fault: the others get their prediction
                return [answer for image in images for answer in self._answer(request, [image])]
            if isinstance(exc, MaskloopError):
                return [exc]
            return [_inference_error(request.checkpoint, images[0], exc)]

    def _predict(self, request: _Request, images: list[RgbImage]) -> list[Prediction]:
        return predict_images(
            request.checkpoint,
            images,
            task=request.task,
            thresholds=request.thresholds,
            max_batch=self._max_batch,
            study=request.study,
            plan=self._plan,
        )

    def _deliver(self, batch: list[tuple[_Request, int]], answers: list[Answer]) -> None:
        for (request, index), answer in zip(batch, answers, strict=True):
            request.answers[index] = answer
            if len(request.answers) == len(request.images):
                with self._changed:
                    self._finish(request)
                request.future.set_result([request.answers[key] for key in range(len(request.images))])

    def _finish(self, request: _Request) -> None:
        self._busy[request.source] -= 1
        if not self._busy[request.source]:
            del self._busy[request.source]
        self._evict()


def _inference_error(checkpoint: Checkpoint, image: RgbImage, exc: Exception) -> InferenceError:
    return InferenceError(
        f"model {checkpoint.source}, image {getattr(image, 'shape', type(image).__name__)}",
        expected="a prediction",
        got=first_line(exc),
        remedy="try a smaller image, or another device through MASKLOOP_DEVICE",
    )
