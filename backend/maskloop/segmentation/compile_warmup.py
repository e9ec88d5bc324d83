"""Which shapes a served model is compiled for, and when: before it starts to serve, or in the background.

Compiling takes up to a minute a shape, so no request waits for it: a shape without a graph runs uncompiled.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from maskloop.errors import first_line
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.fast.forward import inference_dtype
from maskloop.segmentation.predict import forward_sizes, run_model
from maskloop.segmentation.preprocess import Batch, padded_size
from maskloop.segmentation.test_time_views import ViewPlan
from maskloop.types import SegmentationTask

__all__ = ["CompileWarmup", "uncompiled"]

Shape: TypeAlias = tuple[int, int, int]  # batch, height and width of what a model is given

logger = logging.getLogger(__name__)
MOST_SHAPES = 4  # compiled before a model starts to serve
REMEMBERED = 512  # most recent batches that are counted
MIN_BATCHES = 2  # a shape is compiled once this many recent batches had it
USUAL_HW = (480, 640)  # (height, width) of an image, before the first request
LONGEST_S = 600.0  # until a model serves uncompiled


@dataclass(frozen=True)
class _SeenBatch:
    """A recent batch, by its image size: a model with another preprocessing gives it another shape."""

    size_hw: tuple[int, int]  # of an image before resizing
    count: int
    for_selection: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    checkpoint: weakref.ref[Checkpoint]  # weak: a dropped model is not kept for its graph
    shape: Shape
    done: Future[None]


class CompileWarmup:
    """Compiles models whose plan is compiled, in a thread of its own that starts with the first shape."""

    def __init__(self, *, task: SegmentationTask, plan: ViewPlan) -> None:
        """Args:
        task: OneFormer's task token while compiling; the graph is the same for all.
        plan: which views the inputs of image selection are computed from.
        """
        self._task, self._plan = task, plan
        self._recent: deque[_SeenBatch] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()  # guards everything below, and the recent batches
        self._pending: weakref.WeakKeyDictionary[object, dict[Shape, Future[None]]] = (
            weakref.WeakKeyDictionary()
        )
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def prepare(self, checkpoint: Checkpoint, *, waits: bool) -> None:
        """Compile a model for the most frequent recent shapes; for one usual shape before the first request.

        Args:
            checkpoint: the model that is about to serve.
            waits: return when it is compiled, while another model serves.
        """
        if not checkpoint.plan.compiled:
            return
        shapes = self._seen(checkpoint)
        if not shapes:
            shapes.update(self._shapes(checkpoint, _SeenBatch(USUAL_HW, 1, False)))
        jobs = self._compile(checkpoint, [shape for shape, _ in shapes.most_common(MOST_SHAPES)])
        if waits:
            _, late = wait(jobs, timeout=LONGEST_S)
            if late:
                log_action(
                    logger,
                    "served_before_compiled",
                    level=logging.WARNING,
                    model_source=checkpoint.source,
                    shapes_left=len(late),
                )

    def for_batch(
        self, checkpoint: Checkpoint, sizes_hw: Sequence[tuple[int, int]], *, for_selection: bool
    ) -> Checkpoint:
        """Return the model as it runs a batch: compiled only where all of its shapes have a graph.

        A shape without a graph that recent batches had as well is compiled in the background.

        Args:
            checkpoint: the model.
            sizes_hw: of the images of the batch, before resizing.
            for_selection: with the views for selection.
        """
        if not checkpoint.plan.compiled:
            return checkpoint
        batch = _SeenBatch(sizes_hw[0], len(sizes_hw), for_selection)
        shapes = self._shapes(checkpoint, batch)
        with self._lock:
            self._recent.append(batch)
        new = [shape for shape in shapes if not self._is_settled(checkpoint, shape)]
        if not new:
            return checkpoint
        seen = self._seen(checkpoint)
        self._compile(checkpoint, [shape for shape in new if seen[shape] >= MIN_BATCHES])
        return uncompiled(checkpoint)

    def close(self) -> None:
        """Compile no more; does not wait for what is being compiled."""
        with self._lock:
            self._closed = True
            waiting = [job for jobs in self._pending.values() for job in jobs.values()]
        for job in waiting:
            job.cancel()
        self._jobs.put(None)

    def _seen(self, checkpoint: Checkpoint) -> Counter[Shape]:
        """Return how many of the recent batches give this model each shape."""
        with self._lock:
            recent = Counter(self._recent)
        seen: Counter[Shape] = Counter()
        for batch, times in recent.items():
            for shape in set(self._shapes(checkpoint, batch)):
                seen[shape] += times
        return seen

    def _shapes(self, checkpoint: Checkpoint, batch: _SeenBatch) -> list[Shape]:
        from maskloop.segmentation.fast.compiled import batch_bucket

        count = batch_bucket(batch.count)
        sizes = forward_sizes(checkpoint, batch.size_hw, for_selection=batch.for_selection, plan=self._plan)
        return [(count, *padded_size(size_hw, checkpoint.preprocessing)) for size_hw in sizes]

    def _is_settled(self, checkpoint: Checkpoint, shape: Shape) -> bool:
        from maskloop.segmentation.fast.compiled import is_settled

        dtype = inference_dtype(checkpoint.plan.precision, checkpoint.device)
        return is_settled(checkpoint.model, shape, dtype)

    def _compile(self, checkpoint: Checkpoint, shapes: Iterable[Shape]) -> list[Future[None]]:
        """Queue the shapes that are neither compiled nor queued; return the futures of all."""
        jobs: list[Future[None]] = []
        with self._lock:
            if self._closed:
                return jobs
            pending = self._pending.setdefault(checkpoint.model, {})
            for shape in shapes:
                if self._is_settled(checkpoint, shape):
                    continue
                if shape not in pending:
                    pending[shape] = Future()
                    self._jobs.put(_Job(checkpoint=weakref.ref(checkpoint), shape=shape, done=pending[shape]))
                jobs.append(pending[shape])
            if jobs and self._thread is None:
                # a daemon: the end of a process does not wait for a compiler
                self._thread = threading.Thread(target=self._run, name="maskloop-compile", daemon=True)
                self._thread.start()
        return jobs

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.done.set_running_or_notify_cancel():
                self._compile_now(job)
                job.done.set_result(None)
            del job  # nor the future's model while it waits

    def _compile_now(self, job: _Job) -> None:
        checkpoint = job.checkpoint()
        if checkpoint is None:
            return
        try:
            run_model(checkpoint, _blank(checkpoint, job.shape), self._task)
        except Exception as exc:  # for instance want of memory; requests go on without
            log_action(
                logger,
                "shape_not_compiled",
                level=logging.WARNING,
                model_source=checkpoint.source,
                shape=job.shape,
                error=first_line(exc),
            )
            return
        with self._lock:
            self._pending.get(checkpoint.model, {}).pop(job.shape, None)
        log_action(logger, "shape_compiled", model_source=checkpoint.source, shape=job.shape)


def uncompiled(checkpoint: Checkpoint) -> Checkpoint:
    """Return the same model, run as it is written."""
    return replace(checkpoint, plan=replace(checkpoint.plan, compiled=False))


def _blank(checkpoint: Checkpoint, shape: Shape) -> Batch:
    count, height, width = shape
    device = checkpoint.device
    return Batch(
        pixel_values_bchw=torch.zeros((count, 3, height, width), device=device),
        pixel_mask_bhw=torch.ones((count, height, width), dtype=torch.int64, device=device),
        valid_sizes_hw=((height, width),) * count,
        image_sizes_hw=((height, width),) * count,
    )
