"""The lean forward pass by OpenVINO on the CPU: one exported graph a model, compiled for frequent shapes.

Such a shape is compiled in the background. Its first batches then run both ways: what is answered comes from
ours, until the graph has given the same and was faster. Where it was not, ours goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Tensor

from maskloop.errors import first_line
from maskloop.log import log_action
from maskloop.segmentation.fast.model_forward import LeanOutput

__all__ = ["STRIDE", "GraphCounts", "graph_counts", "graph_forward", "offer_graph", "refuse_graph"]

STRIDE = 32  # sides that a graph takes are multiples of it
LEAST_SIDE = 2 * STRIDE  # OpenVINO resizes a map to a single row from another place than torch does
GRAPH_BYTES = 1 << 30  # of weights, which each compiled shape of a model has for itself
MOST_SHAPES = 8
WORTH = 8  # recent batches of a shape before it is compiled, which takes as long as a few images
REMEMBERED = 256  # most recent batches that are counted
TRIALS = 4  # batches that run both ways, after one that warms the graph up
LEAST_GAIN = 1.1  # times as fast as ours
PROBABILITY, LEAST_QUERIES = 0.03, 0.95  # the share of queries whose class probabilities agree this well
LEAST_IOU = 0.95  # mean of the masks of found objects
FOUND = 0.5  # probability of being an object
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}

_LOG = logging.getLogger(__name__)
_Key: TypeAlias = tuple[tuple[int, ...], torch.dtype]  # batch, channels, height and width; of products
_Verdict: TypeAlias = Literal["trial", "graph", "slower"]


@dataclass(kw_only=True, eq=False)
class _Compiled:
    """A graph that is compiled for one shape."""

    request: Any  # openvino.InferRequest
    verdict: _Verdict
    ours_s: list[float] = field(default_factory=list)
    graph_s: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)  # a request has one set of outputs


class _Graphs:
    """What is known of one model's graph."""

    def __init__(self, path: Path, *, forced: bool, most: int) -> None:
        self.path, self.forced, self.most = path, forced, most
        self.lock = threading.Lock()  # guards everything below
        self.recent: deque[_Key] = deque(maxlen=REMEMBERED)
        self.seen: Counter[_Key] = Counter()
        self.made: dict[_Key, _Compiled | None] = {}  # None while it is compiled
        self.slower: set[_Key] = set()
        self.off: str | None = None  # why nothing runs by the graph any more
        self.threads = torch.get_num_threads()  # now: a forward pass may be given less cores than there are


@dataclass(frozen=True, kw_only=True)
class GraphCounts:
    """How the shapes of a model are run; a shape that comes rarely is in none of these."""

    by_graph: int  # by OpenVINO
    on_trial: int  # compiled or tried now
    slower: int  # by ours, which was as fast
    off: str | None  # why the model's graph is not used at all


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    model: ref[Any]  # weak: a dropped model is not kept for its graph
    key: _Key
    threads: int


_GRAPHS: WeakKeyDictionary[Any, _Graphs] = WeakKeyDictionary()
_JOBS: queue.SimpleQueue[_Job] = queue.SimpleQueue()
_STARTING = threading.Lock()
_worker: threading.Thread | None = None


def offer_graph(model: Any, path: Path, *, forced: bool = False) -> None:
    """Let a model run by its exported graph from now on, where the plan allows it.

    Args:
        model: of transformers, on the CPU, whose weights do not change any more.
        path: OpenVINO's XML file of a SymbolicForward of it, its weights beside it.
        forced: also where it is not faster.
    """
    weights = sum(one.numel() * one.element_size() for one in model.parameters())
    most = max(1, min(MOST_SHAPES, GRAPH_BYTES // max(1, weights)))
    _GRAPHS[model] = _Graphs(path, forced=forced, most=most)


def refuse_graph(model: Any, reason: str) -> None:
    """Run a model without its graph from now on; the first reason is logged."""
    graphs = _GRAPHS.get(model)
    if graphs is None:
        return
    with graphs.lock:
        is_first, graphs.off = graphs.off is None, graphs.off or reason
        graphs.made.clear()
    if is_first:
        log_action(_LOG, "graph_off", level=logging.WARNING, part=model.config.model_type, reason=reason)


def graph_counts(model: Any) -> GraphCounts | None:
    """Return how a model's shapes are run; None where it has no graph."""
    graphs = _GRAPHS.get(model)
    if graphs is None:
        return None
    with graphs.lock:
        verdicts = Counter(None if one is None else one.verdict for one in graphs.made.values())
        return GraphCounts(
            by_graph=verdicts["graph"],
            on_trial=verdicts["trial"] + verdicts[None],
            slower=len(graphs.slower),
            off=graphs.off,
        )


def graph_forward(
    model: Any,
    pixel_values_bchw: Tensor,
    task_inputs_bt: Tensor | None,
    *,
    dtype: torch.dtype,
    lean: Callable[[], Any],
) -> Any:
    """Return a LeanOutput: by the model's graph where it is the same and faster, else by `lean`.

    Args:
        model: in eval mode, on the CPU.
        pixel_values_bchw: float32.
        task_inputs_bt: OneFormer's token ids.
        dtype: of products.
        lean: runs ours.
    """
    graphs = _GRAPHS.get(model)
    if graphs is None or pixel_values_bchw.device.type != "cpu":
        return lean()
    key = tuple(pixel_values_bchw.shape), dtype
    compiled = _find(model, graphs, key)
    if compiled is None:
        return lean()
    inputs = [pixel_values_bchw, *(() if task_inputs_bt is None else (task_inputs_bt,))]
    try:
        if compiled.verdict == "graph":
            return _run(compiled, inputs)
        return _try(model, graphs, key, inputs, lean)
    except torch.OutOfMemoryError:
        raise
    except Exception as exc:  # of OpenVINO, which has no type of its own for errors
        refuse_graph(model, f"it failed: {first_line(exc)}")
        return lean()


def _find(model: Any, graphs: _Graphs, key: _Key) -> _Compiled | None:
    """Count a batch; return its compiled graph, or have it compiled where such batches come often."""
    with graphs.lock:
        if len(graphs.recent) == REMEMBERED:
            graphs.seen[graphs.recent[0]] -= 1
        graphs.recent.append(key)
        graphs.seen[key] += 1
        if (found := graphs.made.get(key)) is not None:
            return found
        known = graphs.off is not None or key in graphs.made or key in graphs.slower
        if known or graphs.seen[key] < WORTH or not _takes(key):
            return None
        if len(graphs.made) >= graphs.most:
            rarest = min(graphs.made, key=lambda one: graphs.seen[one])
            if graphs.made[rarest] is None or graphs.seen[key] < 2 * graphs.seen[rarest]:
                return None
            del graphs.made[rarest]
        graphs.made[key] = None
    _start_worker()
    _JOBS.put(_Job(model=ref(model), key=key, threads=graphs.threads))
    return None


def _takes(key: _Key) -> bool:
    (_, _, height, width), dtype = key
    fits = all(side % STRIDE == 0 and side >= LEAST_SIDE for side in (height, width))
    return fits and dtype in PRECISIONS


def _start_worker() -> None:
    global _worker
    with _STARTING:
        if _worker is None or not _worker.is_alive():
            # a daemon: the end of a process does not wait for a compiler
            _worker = threading.Thread(target=_compile_all, name="maskloop-graph", daemon=True)
            _worker.start()


def _compile_all() -> None:
    while True:
        job = _JOBS.get()
        _compile_job(job)
        del job


def _compile_job(job: _Job) -> None:
    model = job.model()
    graphs = None if model is None else _GRAPHS.get(model)
    if graphs is None or graphs.off is not None:
        return
    start = time.perf_counter()
    try:
        request = _compile(graphs.path, job.key, job.threads)
    except Exception as exc:
        refuse_graph(model, f"it cannot be compiled: {first_line(exc)}")
        return
    with graphs.lock:
        if graphs.off is None and job.key in graphs.made:
            graphs.made[job.key] = _Compiled(request=request, verdict="trial")
    took_s = round(time.perf_counter() - start, 1)
    log_action(_LOG, "graph_compiled", shape=job.key[0], precision=PRECISIONS[job.key[1]], duration_s=took_s)


def _compile(path: Path, key: _Key, threads: int) -> Any:
    import openvino

    (batch, *sides), dtype = key
    core = openvino.Core()
    graph = core.read_model(path)
    shapes = {0: openvino.PartialShape([batch, *sides])}
    if len(graph.inputs) > 1:
        length = graph.inputs[1].partial_shape[1]
        shapes[1] = openvino.PartialShape([openvino.Dimension(batch), length])
    graph.reshape(shapes)
    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # other processes of the loop share the cores
    }
    return core.compile_model(graph, "CPU", options).create_infer_request()


def _run(compiled: _Compiled, inputs: list[Tensor]) -> LeanOutput:
    with compiled.lock:
        compiled.request.infer([one.contiguous().numpy() for one in inputs], share_inputs=True)
        # copies: the request writes the next batch's outputs in the same place
        found = [torch.from_numpy(np.array(one.data)) for one in compiled.request.output_tensors]
    classes_bqk, masks_bqhw, pixels_bchw, layers_lbqc, *tokens = found
    height, width = inputs[0].shape[2:]
    strides = [STRIDE >> index for index in range(len(tokens))]
    return LeanOutput(
        class_queries_logits=classes_bqk,
        masks_queries_logits=masks_bqhw,
        pixel_decoder_last_hidden_state=pixels_bchw,
        transformer_decoder_last_hidden_state=layers_lbqc[-1],
        transformer_decoder_layers=layers_lbqc,
        level_tokens=tuple(tokens),
        level_sizes=tuple((height // stride, width // stride) for stride in strides),
    )


def _try(model: Any, graphs: _Graphs, key: _Key, inputs: list[Tensor], lean: Callable[[], Any]) -> Any:
    """Run both ways, and decide after a few batches; return ours."""
    start = time.perf_counter()
    truth = lean()
    middle = time.perf_counter()
    compiled = graphs.made.get(key)
    if compiled is None:
        return truth
    output = _run(compiled, inputs)
    end = time.perf_counter()
    if (apart := _difference(truth, output)) is not None:
        refuse_graph(model, f"its outputs differ from ours: {apart}")
        return truth
    compiled.ours_s.append(middle - start)
    compiled.graph_s.append(end - middle)
    if len(compiled.graph_s) > TRIALS:  # the first one warmed it up
        _decide(graphs, key, compiled)
    return truth


def _decide(graphs: _Graphs, key: _Key, compiled: _Compiled) -> None:
    ours_s, graph_s = min(compiled.ours_s[1:]), min(compiled.graph_s[1:])
    is_chosen = graphs.forced or graph_s * LEAST_GAIN <= ours_s
    with graphs.lock:
        if compiled.verdict != "trial":  # another thread was first
            return
        compiled.verdict = "graph" if is_chosen else "slower"
        if not is_chosen:
            graphs.slower.add(key)
            graphs.made.pop(key, None)
    log_action(
        _LOG,
        "engine_chosen",
        engine="openvino" if is_chosen else "torch",
        shape=key[0],
        precision=PRECISIONS[key[1]],
        torch_ms=round(1000 * ours_s, 1),
        openvino_ms=round(1000 * graph_s, 1),
    )


def _difference(truth: LeanOutput, output: LeanOutput) -> str | None:
    """Return what differs by more than rounding does, None for nothing."""
    for name in ("class_queries_logits", "masks_queries_logits", "pixel_decoder_last_hidden_state"):
        ours, theirs = getattr(truth, name), getattr(output, name)
        if ours.shape != theirs.shape:
            return f"{name} expected {tuple(ours.shape)}, got {tuple(theirs.shape)}"
    if output.level_sizes != truth.level_sizes:
        return f"level_sizes expected {truth.level_sizes}, got {output.level_sizes}"
    ours_bqk, theirs_bqk = (one.class_queries_logits.softmax(-1) for one in (truth, output))
    close_bq = (ours_bqk - theirs_bqk).abs().amax(-1) <= PROBABILITY  # False for NaN
    share = float(close_bq.float().mean())
    if share < LEAST_QUERIES:
        return f"classes of {share:.2f} of the queries agree, expected {LEAST_QUERIES}"
    found_bq = ours_bqk[..., -1] < 1 - FOUND
    one, other = (out.masks_queries_logits[found_bq] > 0 for out in (truth, output))
    either_n = (one | other).sum((1, 2))
    if bool((either_n > 0).any()):
        iou_n = ((one & other).sum((1, 2)) / either_n)[either_n > 0]
        if float(iou_n.mean()) < LEAST_IOU:
            return f"masks of {len(iou_n)} objects have IoU {float(iou_n.mean()):.3f}, expected {LEAST_IOU}"
    return None
