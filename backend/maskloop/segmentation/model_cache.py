"""The checkpoints in memory: a few, loaded while inference goes on, the least recently used dropped first."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from concurrent.futures import Future
from dataclasses import replace

from maskloop.errors import MaskloopError
from maskloop.hit_counter import HitCounter
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.fast.forward import CompileMode, can_compile
from maskloop.segmentation.fast.graphs import graph_counts
from maskloop.segmentation.graph_export import GraphExports

__all__ = ["EngineClosedError", "ModelCache", "closed_error"]

logger = logging.getLogger(__name__)


class EngineClosedError(MaskloopError):
    """The engine was closed and takes no more images."""


class ModelCache:
    """Keeps checkpoints by their source; safe to use from many threads.

    At most `keep` are in memory, one that is being loaded included. The least recently used are dropped
    before a load, never the most recently used one. More are held only while requests wait for them.
    """

    def __init__(
        self,
        *,
        device: str,
        keep: int,
        compile_mode: CompileMode = "off",
        graphs: GraphExports | None = None,
    ) -> None:
        """Args:
        device: as for load_checkpoint.
        keep: checkpoints held; with 1, a second one while it is loaded.
        compile_mode: whether their plan is to be compiled.
        graphs: gives them one for OpenVINO, where they are not compiled.
        """
        self._device, self._keep, self._compile_mode = device, keep, compile_mode
        self._graphs = graphs
        self._lock = threading.Lock()  # guards everything below
        self._models: OrderedDict[str, Checkpoint] = OrderedDict()  # least recently used first
        self._loading: dict[str, Future[Checkpoint]] = {}
        self.lookups = HitCounter()
        self._claims: Counter[str] = Counter()  # by source
        self._closed = False
        self._one_load = threading.Lock()  # two at once would hold one more than a swap needs

    def load(self, source: str) -> Checkpoint:
        """Return the checkpoint of a source, loading it where it is not held.

        Raises:
            ModelLoadError: it cannot be loaded; what was used last stays.
            EngineClosedError: after close().
        """
        with self._lock:
            self._check_open()
            self.lookups.note(source in self._models)
            if source in self._models:
                self._models.move_to_end(source)
                return self._models[source]
            pending = self._loading.get(source)
            mine = pending is None
            if pending is None:
                pending = self._loading[source] = Future()
        if mine:
            with self._one_load:
                self._load_now(source, pending)
        return pending.result()

    def claim(self, source: str, checkpoint: Checkpoint) -> None:
        """Hold on to a checkpoint until it is released as often.

        Raises:
            EngineClosedError: after close().
        """
        with self._lock:
            self._check_open()
            self._claims[source] += 1
            self._models.setdefault(source, checkpoint)  # another load may have dropped it in between

    def release(self, source: str) -> None:
        """Give a claim back."""
        with self._lock:
            self._claims[source] -= 1
            if not self._claims[source]:
                del self._claims[source]
            self._drop_beyond(self._keep)

    @property
    def held(self) -> tuple[str, ...]:
        """Sources of the checkpoints in memory, least recently used first."""
        with self._lock:
            return tuple(self._models)

    @property
    def shape_engines(self) -> Counter[str]:
        """Shapes of the models in memory by what answers them: "openvino", "torch" or still a "trial"."""
        with self._lock:
            found = [graph_counts(checkpoint.model) for checkpoint in self._models.values()]
        sums: Counter[str] = Counter(openvino=0, trial=0, torch=0)
        for counts in found:
            if counts is not None:
                sums.update(openvino=counts.by_graph, trial=counts.on_trial, torch=counts.slower)
        return sums

    def close(self) -> None:
        """Drop all; later loads and claims are refused."""
        with self._lock:
            self._closed = True
            self._models.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error()

    def _load_now(self, source: str, pending: Future[Checkpoint]) -> None:
        with self._lock:
            self._drop_beyond(max(1, self._keep - 1))
        try:
            checkpoint = self._planned(load_checkpoint(source, device=self._device))
        except BaseException as exc:
            with self._lock:
                del self._loading[source]
            pending.set_exception(exc)
            return
        with self._lock:
            del self._loading[source]
            if not self._closed:
                self._models[source] = checkpoint
                self._drop_beyond(self._keep)
        log_action(logger, "model_loaded", model_source=source)
        pending.set_result(checkpoint)

    def _planned(self, checkpoint: Checkpoint) -> Checkpoint:
        plan = checkpoint.plan
        if not can_compile(checkpoint.model, plan, self._compile_mode):
            return checkpoint if self._graphs is None else self._graphs.prepare(checkpoint)
        return replace(checkpoint, plan=replace(plan, compiled=True))

    def _drop_beyond(self, count: int) -> None:
        newest = next(reversed(self._models), None)
        idle = [source for source in self._models if source not in self._claims and source != newest]
        for source in idle[: max(0, len(self._models) - count)]:
            del self._models[source]
            log_action(logger, "model_dropped", model_source=source)


def closed_error() -> EngineClosedError:
    """Return what a request after close() gets."""
    return EngineClosedError(
        "engine", expected="an open engine", got="a closed one", remedy="start a new engine"
    )
