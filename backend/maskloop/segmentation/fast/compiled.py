"""The lean forward pass through torch.compile: one graph for each shape, few shapes, eager where it fails."""

from __future__ import annotations

import itertools
import logging
import threading
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.errors import first_line
from maskloop.log import log_action
from maskloop.segmentation.fast.model_forward import LeanOutput, lean_forward
from maskloop.segmentation.fast.swin import swin_windows

__all__ = ["MOST_GRAPHS", "Shape", "batch_bucket", "compiled_forward", "graph_count", "is_settled"]

Shape = tuple[int, int, int]  # batch, height and width of what goes in
MOST_GRAPHS = 40  # of one model; each took a compiler up to a minute, and its code stays in memory

_LOG = logging.getLogger(__name__)
_COMPILING = threading.Lock()  # one at a time: it patches modules of torch that the whole process has
_NUMBERS = itertools.count()
_backend = "inductor"


@dataclass(kw_only=True, eq=False)
class _Graphs:
    """What was compiled of one model; None where that failed, and it runs as written."""

    made: dict[tuple[Shape, torch.dtype], Callable[..., LeanOutput] | None] = field(default_factory=dict)
    off: bool = False  # nothing more is compiled


_GRAPHS: WeakKeyDictionary[Any, _Graphs] = WeakKeyDictionary()


def batch_bucket(batch: int) -> int:
    """Return how many images a compiled graph is given for so many: the next power of two."""
    return 1 << (batch - 1).bit_length()


def is_settled(model: Any, shape: Shape, dtype: torch.dtype) -> bool:
    """Return whether nothing would be compiled for a batch, as its graph is there or there will be none.

    Args:
        model: any.
        shape: of the batch, before it is filled up.
        dtype: that products are computed in.
    """
    graphs = _GRAPHS.get(model)
    if graphs is None:
        return False
    return graphs.off or (_bucket(shape), dtype) in graphs.made


def graph_count(model: Any) -> int:
    """Return how many graphs of a model were compiled."""
    graphs = _GRAPHS.get(model)
    return sum(graph is not None for graph in graphs.made.values()) if graphs else 0


def compiled_forward(
    model: Any,
    pixel_values_bchw: Tensor,
    task_inputs_bt: Tensor | None = None,
    *,
    swin: bool = False,
    triton: bool = False,
) -> LeanOutput:
    """Return what `lean_forward` does, by a graph of the shape; where that fails, without one.

    The batch is filled up to the next power of two, so that a size has few graphs, and what the filling
    gave is dropped. The first call of a shape compiles it, which takes seconds to a minute.

    Args:
        model: as for `lean_forward`.
        pixel_values_bchw: float32.
        task_inputs_bt: OneFormer's token ids.
        swin: as for `lean_forward`.
        triton: as for `lean_forward`; the same for all calls with one model.

    Raises:
        torch.OutOfMemoryError: in a graph that ran before.
    """
    with torch.inference_mode():
        words = None if task_inputs_bt is None else _inference_tensor(task_inputs_bt)
        output = _by_graph(model, _inference_tensor(pixel_values_bchw), words, swin, triton)
    if output is None:
        output = lean_forward(model, pixel_values_bchw, task_inputs_bt, swin=swin, triton=triton)
    return output


def _by_graph(
    model: Any, pixels: Tensor, words: Tensor | None, swin: bool, triton: bool
) -> LeanOutput | None:
    batch, _, height, width = pixels.shape
    key = _bucket((batch, height, width)), _product_dtype(pixels.device)
    filled = key[0][0] - batch
    if filled:
        pixels = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, filled))
        words = None if words is None else torch.cat((words, words[-1:].expand(filled, -1)))
    encoder = model.model.pixel_level_module.encoder
    windows = swin_windows(encoder, pixels.shape, pixels.device) if swin else None
    options = {"swin": swin, "windows": windows, "triton": triton}
    known = is_settled(model, *key)
    try:
        graph = _graphs(model).made.get(key) if known else None
        if known and graph is None:
            return None
        if graph is not None:
            return _first(graph(model, pixels, words, **options), batch)
        return _compile(model, key, pixels, words, batch=batch, **options)
    except Exception as exc:
        if known and isinstance(exc, torch.OutOfMemoryError):
            raise
        if (
            not known or not _COMPILING.locked()
        ):  # another thread that traces makes a graph fail, this time only
            _give_up(model, key, exc)
        return None


def _compile(
    model: Any,
    key: tuple[Shape, torch.dtype],
    pixels_bchw: Tensor,
    task_inputs_bt: Tensor | None,
    *,
    batch: int,
    **options: Any,
) -> LeanOutput:
    graphs = _graphs(model)
    with _COMPILING:
        graph = graphs.made.get(key) or torch.compile(
            _own_copy(), fullgraph=True, dynamic=False, backend=_backend
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what its tracer and its compiler would like to be done otherwise
            output = graph(model, pixels_bchw, task_inputs_bt, **options)
        graphs.made[key] = graph
        if len(graphs.made) >= MOST_GRAPHS:
            graphs.off = True
            _warn(model, f"ends after {MOST_GRAPHS} shapes; others run uncompiled")
    return _first(output, batch)


def _inference_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor of the one kind that graphs are made for: for the other they would be made anew."""
    return tensor if tensor.is_inference() else tensor.clone()


def _own_copy() -> Callable[..., LeanOutput]:
    """Return lean_forward with a code object of its own.

    The compiler counts what it made by code object, stops silently at a limit and tries all on each call: one
    code object for each graph has neither, and a model that goes takes its graphs along.
    """
    code = lean_forward.__code__.replace(co_name=f"lean_forward_{next(_NUMBERS)}")
    copied = types.FunctionType(code, lean_forward.__globals__, code.co_name)
    copied.__kwdefaults__ = lean_forward.__kwdefaults__
    copied.__defaults__ = lean_forward.__defaults__
    return copied


def _first(output: LeanOutput, batch: int) -> LeanOutput:
    return LeanOutput(
        class_queries_logits=output.class_queries_logits[:batch],
        masks_queries_logits=output.masks_queries_logits[:batch],
        pixel_decoder_last_hidden_state=output.pixel_decoder_last_hidden_state[:batch],
        transformer_decoder_last_hidden_state=output.transformer_decoder_last_hidden_state[:batch],
        transformer_decoder_layers=output.transformer_decoder_layers[:, :batch],
        level_tokens=tuple(tokens_bsc[:batch] for tokens_bsc in output.level_tokens),
        level_sizes=output.level_sizes,
    )


def _bucket(shape: Shape) -> Shape:
    return batch_bucket(shape[0]), shape[1], shape[2]


def _product_dtype(device: torch.device) -> torch.dtype:
    inside = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if inside else torch.float32


def _graphs(model: Any) -> _Graphs:
    return _GRAPHS.setdefault(model, _Graphs())


def _give_up(model: Any, key: tuple[Shape, torch.dtype], error: Exception) -> None:
    graphs = _graphs(model)
    graphs.made[key] = None
    if all(graph is None for graph in graphs.made.values()) and not isinstance(error, torch.OutOfMemoryError):
        graphs.off = True  # what fails at first fails for the next shape as well
    _warn(model, f"is off for {'all shapes' if graphs.off else key[0]}: {first_line(error)}")


def _warn(model: Any, text: str) -> None:
    log_action(_LOG, "compile_off", level=logging.WARNING, part=model.config.model_type, reason=text)
