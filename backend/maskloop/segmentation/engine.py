"""Inference for many callers: few threads run the models, others prepare images and finish predictions."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from maskloop.cores import on_cores
from maskloop.errors import ImageError
from maskloop.hit_counter import HitCounter
from maskloop.log import log_action
from maskloop.memory_budget import MemoryBudget
from maskloop.segmentation.batch_size import MOST_BY_DEFAULT, batch_limit
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.compile_warmup import CompileWarmup
from maskloop.segmentation.failures import prediction_failure
from maskloop.segmentation.fast.forward import CompileMode
from maskloop.segmentation.forward_turns import MOST_AT_A_TIME, ForwardTurns
from maskloop.segmentation.graph_export import GraphExports
from maskloop.segmentation.image import EncodedImage
from maskloop.segmentation.image_requests import (
    ImageRequest,
    ImageSource,
    OutputUse,
    ReadyImage,
    RunningBatch,
)
from maskloop.segmentation.model_cache import EngineClosedError, ModelCache, closed_error
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.precision_check import PrecisionChecks
from maskloop.segmentation.predict import (
    RawOutput,
    forward_batch,
    forward_sizes,
    postprocess_image,
    prepare_image,
)
from maskloop.segmentation.side_stream import on_side_stream, record_event
from maskloop.segmentation.test_time_views import ViewPlan
from maskloop.types import ImageResult, Prediction, PredictionFailure, RgbImage, SegmentationTask

__all__ = ["Engine", "EngineClosedError", "ImageSource"]

MOST_HELPERS = 8
PIXEL_BYTES = 3 * 2**29  # unless the engine gets a budget
FINISH_BYTES_PER_PIXEL = 4  # of an image whose masks are made
BATCHES_AHEAD = 1 + MOST_AT_A_TIME  # in progress: some in models while the one before is post-processed
_LOG = logging.getLogger(__name__)


class Engine:
    """Predicts for many threads at once.

    A helper thread decodes and resizes an image. An inference thread takes all images of one size that are
    ready when it is free, up to max_batch, as one batch. Another helper thread turns the output into segments
    while the next batch runs. No image waits for a batch to fill up. On a CPU, two images that a large model
    takes one by one are in it at the same time, on half of the cores each.

    Each request names its model. To change the model, load the new one and then name it in requests:
    earlier requests keep their model, and only requests for the new model wait for its load.
    """

    def __init__(
        self,
        *,
        task: SegmentationTask,
        thresholds: Thresholds,
        max_batch: int | None,
        device: str,
        keep: int = 2,
        plan: ViewPlan = ViewPlan(),  # noqa: B008  # frozen
        helpers: int | None = None,
        compile_mode: CompileMode = "off",
        memory: MemoryBudget | None = None,
        graphs: GraphExports | None = None,
    ) -> None:
        """Start the thread.

        Args:
            task: which post-processing, for requests that name none.
            thresholds: what counts, for requests that name none.
            max_batch: images in one forward pass, of one request or several; None: by model and device.
            device: as for load_checkpoint.
            keep: checkpoints held; more while requests for them wait.
            plan: which views the inputs of image selection are computed from.
            helpers: threads that prepare images, and as many that finish them; default: by the cores.
            compile_mode: whether models are compiled.
            memory: for the pixels of all images that are decoded or made masks of at the same time; an
                image that it does not hold is refused.
            graphs: gives models one for OpenVINO on the CPU; None: they run by torch.
        """
        if (max_batch is not None and max_batch < 1) or keep < 1:
            raise ValueError(f"Engine: expected max_batch and keep of at least 1, got {max_batch} and {keep}")
        self._task, self._thresholds, self._max_batch, self._plan = task, thresholds, max_batch, plan
        self._cache = ModelCache(device=device, keep=keep, compile_mode=compile_mode, graphs=graphs)
        self._warmup = CompileWarmup(task=task, plan=plan)
        self._precision = PrecisionChecks()
        count = helpers or min(MOST_HELPERS, max(1, len(os.sched_getaffinity(0)) // 2))
        # Two pools: what is nearly done must not wait behind what has just come.
        self._preparing = ThreadPoolExecutor(count, thread_name_prefix="maskloop-prepare")
        self._finishing = ThreadPoolExecutor(count, thread_name_prefix="maskloop-finish")
        self._room = threading.Semaphore(BATCHES_AHEAD)
        self._memory = memory or MemoryBudget(PIXEL_BYTES)
        self._changed = threading.Condition()  # guards everything below, and the requests
        self._ready: deque[ReadyImage] = deque()
        self._unready = 0  # images that are not prepared yet
        self._closed = False
        self._turns = ForwardTurns(max_batch=max_batch, precision=self._precision)
        self._threads = [
            threading.Thread(target=self._run, name=f"maskloop-engine-{number}", daemon=True)
            for number in range(MOST_AT_A_TIME)
        ]
        for thread in self._threads:
            thread.start()

    def load(self, source: str) -> Checkpoint:
        """Return the checkpoint of a source, loading it where it is not held; inference goes on meanwhile.

        Where models are compiled, it returns once this one is compiled for the most frequent shapes; the
        first model of all is compiled while it serves, since no other one could serve meanwhile.

        Raises:
            ModelLoadError: it cannot be loaded; what was used last stays.
            EngineClosedError: after close().
        """
        is_first = not self._cache.held
        checkpoint = self._cache.load(source)
        self._warmup.prepare(checkpoint, waits=not is_first)
        return checkpoint

    def submit(
        self,
        images: Sequence[ImageSource],
        *,
        source: str,
        task: SegmentationTask | None = None,
        thresholds: Thresholds | None = None,
        for_selection: bool = False,
        use_output: OutputUse | None = None,
        is_urgent: bool = False,
    ) -> Future[list[ImageResult]]:
        """Queue images for a model, loading it first where it is not held.

        Args:
            images: uint8 (H, W, 3), upright RGB, any sizes; or functions that return them, called by few
                threads so that few images are in memory; may be empty.
            source: as for load_checkpoint.
            task: which post-processing; the engine's by default.
            thresholds: what counts; the engine's by default.
            for_selection: with the inputs of image selection, which takes more forward passes.
            use_output: called with the model's output of each image, in a helper thread, after its result
                was delivered.
            is_urgent: before all that is not.

        Returns:
            A future of one result per image, in order: the prediction, or why there is none. A
            future cancelled before its first image is taken costs no inference. Its callbacks run in helper
            threads.

        Raises:
            ModelLoadError: the model cannot be loaded.
            EngineClosedError: after close().
        """
        checkpoint = self._cache.load(source)
        request = ImageRequest(
            source=source,
            checkpoint=checkpoint,
            images=list(images),
            task=self._task if task is None else task,
            thresholds=self._thresholds if thresholds is None else thresholds,
            for_selection=for_selection,
            use_output=use_output,
            is_urgent=is_urgent,
        )
        if not request.images:
            request.future.set_result([])
            return request.future
        self._cache.claim(source, checkpoint)
        with self._changed:
            if self._closed:
                raise closed_error()
            self._unready += len(request.images)
            for index in range(len(request.images)):
                self._preparing.submit(self._prepare, request, index)
        return request.future

    def predict(
        self,
        images: Sequence[ImageSource],
        *,
        source: str,
        task: SegmentationTask | None = None,
        thresholds: Thresholds | None = None,
        for_selection: bool = False,
    ) -> list[ImageResult]:
        """Return one result per image: submit, and wait. Safe from any thread."""
        return self.submit(
            images, source=source, task=task, thresholds=thresholds, for_selection=for_selection
        ).result()

    @property
    def held(self) -> tuple[str, ...]:
        """Sources of the checkpoints in memory, least recently used first."""
        return self._cache.held

    @property
    def model_lookups(self) -> HitCounter:
        """How often a model was held already, and how often it was not."""
        return self._cache.lookups

    @property
    def shape_engines(self) -> Counter[str]:
        """How many frequent shapes "openvino" answers, are on "trial", and "torch" is as fast at."""
        return self._cache.shape_engines

    @property
    def max_batch(self) -> int:
        """Images in one forward pass, at the most."""
        return self._max_batch or MOST_BY_DEFAULT

    @property
    def queued(self) -> int:
        """Images that wait for their forward pass."""
        with self._changed:
            return self._unready + len(self._ready)

    @property
    def ready(self) -> int:
        """Those of them that are prepared."""
        with self._changed:
            return len(self._ready)

    def close(self) -> None:
        """Finish all that is queued, then stop; later requests are refused. May be called twice.

        Not from a callback of a future: it would wait for itself.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._warmup.close()
        for thread in self._threads:
            thread.join()
        self._preparing.shutdown()
        self._finishing.shutdown()
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, request: ImageRequest, index: int) -> None:
        image, request.images[index] = request.images[index], None
        item: ReadyImage | None = None
        failure: PredictionFailure | None = None
        if not request.future.cancelled():
            try:
                work_bytes = image.work_bytes if isinstance(image, EncodedImage) else 0
                _demand_fits(work_bytes, self._memory)
                with self._memory.hold(work_bytes):
                    item = self._item(request, index, image() if callable(image) else image)
            except Exception as exc:
                failure = prediction_failure(request.source, exc)
        with self._changed:
            self._unready -= 1
            if item is not None and request.is_urgent:
                self._ready.appendleft(item)
            elif item is not None:
                self._ready.append(item)
            elif failure is None:
                self._begin(request)
            self._changed.notify_all()
        if failure is not None:
            self._deliver(request, index, failure)

    def _item(self, request: ImageRequest, index: int, image: RgbImage | None) -> ReadyImage:
        assert image is not None
        views = prepare_image(request.checkpoint, image, for_selection=request.for_selection, plan=self._plan)
        sizes_hw = forward_sizes(
            request.checkpoint, views[0].image_size_hw, for_selection=request.for_selection, plan=self._plan
        )
        return ReadyImage(request=request, index=index, views=views, sizes_hw=sizes_hw)

    def _run(self) -> None:
        while self._step():  # a call of its own: what it held of a dropped model goes with it
            pass

    def _step(self) -> bool:
        self._room.acquire()  # before the choice: what comes meanwhile may still join the batch
        with self._changed:
            while not self._may_take() and not (self._closed and self._unready == 0 and not self._ready):
                self._changed.wait()
            if not self._ready:
                self._changed.notify_all()  # the other thread, which may wait for the last of all
                return False
            items = self._take()
            if items:
                checkpoint = items[0].request.checkpoint
                cores = self._turns.begin(checkpoint, others_wait=bool(self._ready))
        if not items:
            self._room.release()
            return True
        try:
            with on_cores(cores) if cores else contextlib.nullcontext():
                self._forward(items)
        finally:
            with self._changed:
                self._turns.end(checkpoint)
                self._changed.notify_all()
        return True

    def _may_take(self) -> bool:
        return bool(self._ready) and self._turns.may_begin(self._ready[0].request.checkpoint)

    def _take(self) -> list[ReadyImage]:
        """Take the oldest image and others like it, as many as fit; forget cancelled requests."""
        items: list[ReadyImage] = []
        left: deque[ReadyImage] = deque()
        limit = 1
        for item in self._ready:
            first = items[0] if items else item
            alike = item.sizes_hw == first.sizes_hw and item.request.fits(first.request)
            if not alike or (items and len(items) >= limit):
                left.append(item)
            elif self._begin(item.request):
                limit = limit if items else self._max_batch or batch_limit(item.request.checkpoint)
                items.append(item)
        self._ready = left
        return items

    def _begin(self, request: ImageRequest) -> bool:
        """Mark a request as started, and return False where it was cancelled before."""
        if not request.started:
            request.started = True
            request.dropped = not request.future.set_running_or_notify_cancel()
            if request.dropped:
                self._cache.release(request.source)
        return not request.dropped

    def _forward(self, items: list[ReadyImage]) -> None:
        request = items[0].request
        try:
            sizes_hw = [item.views[0].image_size_hw for item in items]
            runner = self._warmup.for_batch(request.checkpoint, sizes_hw, for_selection=request.for_selection)
            raws = forward_batch(
                self._precision.chosen(runner),
                [item.views for item in items],
                task=request.task,
                for_selection=request.for_selection,
                plan=self._plan,
                keep_output=any(item.request.use_output is not None for item in items),
            )
            rivals = self._rival_outputs(items)
            batch = RunningBatch(left=len(items), event=record_event(request.checkpoint.device))
        except Exception as exc:
            if len(items) == 1:
                failure = prediction_failure(request.source, exc, items[0].views[0].image_size_hw)
                self._deliver(request, items[0].index, failure)
                self._room.release()
                return
            self._room.release()
            for item in items:  # find the one at fault: the others get their prediction
                self._room.acquire()
                self._forward([item])
            return
        for item, raw, rival in zip(items, raws, rivals, strict=True):
            self._finishing.submit(self._finish, batch, item, raw, rival)

    def _rival_outputs(self, items: list[ReadyImage]) -> list[tuple[RawOutput, ...] | None]:
        """Return the outputs in the other precision while that is checked, else None for each image."""
        request = items[0].request
        rival = self._precision.rival(request.checkpoint)
        if rival is None:
            return [None] * len(items)
        try:
            return list(
                forward_batch(
                    rival,
                    [item.views[:1] for item in items],
                    task=request.task,
                    for_selection=False,
                    plan=self._plan,
                )
            )
        except Exception as exc:
            self._precision.refuse(request.checkpoint, exc)
            return [None] * len(items)

    def _finish(
        self,
        batch: RunningBatch,
        item: ReadyImage,
        raws: tuple[RawOutput, ...],
        rivals: tuple[RawOutput, ...] | None,
    ) -> None:
        request = item.request
        result: ImageResult
        try:
            height, width = raws[0].size_hw
            with (
                self._memory.hold(height * width * FINISH_BYTES_PER_PIXEL),
                on_side_stream(request.checkpoint.device, batch.event),
            ):
                result = postprocess_image(
                    request.checkpoint,
                    raws,
                    task=request.task,
                    thresholds=request.thresholds,
                    for_selection=request.for_selection,
                    plan=self._plan,
                )
                if rivals is not None:
                    self._compare(request, result, rivals)
        except Exception as exc:
            result = prediction_failure(request.source, exc, raws[0].size_hw)
        with self._changed:
            batch.left -= 1
            done = batch.left == 0
        if done:
            self._room.release()
        self._deliver(request, item.index, result)
        if request.use_output is not None:
            _use_output(request, raws[0], batch.event)

    def _compare(self, request: ImageRequest, exact: Prediction, rivals: tuple[RawOutput, ...]) -> None:
        try:
            fast = postprocess_image(
                request.checkpoint,
                rivals,
                task=request.task,
                thresholds=request.thresholds,
                for_selection=False,
                plan=self._plan,
            )
        except Exception as exc:
            self._precision.refuse(request.checkpoint, exc)
            return
        least = request.thresholds.score
        self._precision.compare(request.checkpoint, exact, fast, least_score=least)

    def _deliver(self, request: ImageRequest, index: int, result: ImageResult) -> None:
        with self._changed:
            if not self._begin(request):
                return
            request.results[index] = result
            complete = len(request.results) == len(request.images)
        if complete:
            self._cache.release(request.source)
            request.future.set_result([request.results[key] for key in range(len(request.images))])


def _use_output(request: ImageRequest, raw: RawOutput, event: torch.cuda.Event | None) -> None:
    assert request.use_output is not None
    try:
        with on_side_stream(request.checkpoint.device, event):
            request.use_output(request.checkpoint, raw)
    except Exception:
        log_action(_LOG, "output_not_used", level=logging.ERROR, source=request.source, exc_info=True)


def _demand_fits(work_bytes: int, memory: MemoryBudget) -> None:
    if work_bytes > memory.total_bytes:
        raise ImageError(
            "image file",
            expected=f"an image that takes at most {memory.total_bytes >> 20} MiB while it is decoded",
            got=f"one that takes about {work_bytes >> 20} MiB",
            remedy="shrink the image or raise MASKLOOP_MEMORY_MB",
        )
