"""One forward pass for predictions: which precision, and ours or transformers' own."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from maskloop.errors import first_line
from maskloop.log import log_action
from maskloop.segmentation.fast.source_check import is_replaceable

__all__ = [
    "CompileMode",
    "ForwardPlan",
    "Precision",
    "can_compile",
    "can_symbolize",
    "cpu_has_bfloat16",
    "forward_pass",
    "inference_dtype",
]

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
CompileMode: TypeAlias = Literal["on", "off"]
FAMILIES = ("mask2former", "oneformer")
_LOG = logging.getLogger(__name__)
_REFUSED: set[tuple[str, str]] = set()  # kinds of device and families that ours failed on


@dataclass(frozen=True, kw_only=True)
class ForwardPlan:
    """How a model is run; the same wherever predictions are made, judged or served."""

    precision: Precision = "auto"  # "auto" is bfloat16 on CUDA cards that have it, else float32
    accelerate: bool = True  # what gives the same to rounding, faster
    compiled: bool = False  # by torch.compile, at once for each new shape; only what is accelerated
    triton: bool = False  # deformable attention on CUDA by our Triton kernel, which no GPU has run yet
    openvino: bool = False  # on the CPU by the model's graph, where graphs.py has a good and faster one


def forward_pass(
    model: Any,
    pixel_values_bchw: Tensor,
    pixel_mask_bhw: Tensor | None = None,
    task_inputs_bt: Tensor | None = None,
    *,
    plan: ForwardPlan = ForwardPlan(),  # frozen
    features: bool = False,
) -> Any:
    """Return the model's output, its logits in float32.

    Args:
        model: of any family, in eval mode, called without gradients.
        pixel_values_bchw: float32, on the model's device.
        pixel_mask_bhw: the models take it and ignore it.
        task_inputs_bt: OneFormer's token ids.
        plan: how.
        features: also the hidden states that an embedding is made from.
    """
    device = pixel_values_bchw.device
    dtype = inference_dtype(plan.precision, device)
    if plan.accelerate and _is_lean(model):
        output = _planned_output(model, pixel_values_bchw, task_inputs_bt, plan)
        if output is not None:
            return output
    if task_inputs_bt is not None:
        dtype = torch.float32  # bfloat16 has no room for the ids of tokens
    words: dict[str, Any] = {"output_hidden_states": True} if features else {}
    if task_inputs_bt is not None:
        words["task_inputs"] = task_inputs_bt
    with _autocast(device, dtype):
        output = model(
            pixel_values=pixel_values_bchw,
            pixel_mask=pixel_mask_bhw,
            output_auxiliary_logits=False,
            **words,
        )
    if dtype is not torch.float32:
        output.class_queries_logits = output.class_queries_logits.float()
        output.masks_queries_logits = output.masks_queries_logits.float()
    return output


def inference_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type that products of a forward pass are computed in."""
    if precision == "auto":
        wide = device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float32 if wide else torch.bfloat16
    return torch.float32 if precision == "float32" else torch.bfloat16


def cpu_has_bfloat16() -> bool:
    """Return whether this CPU has bfloat16 instructions: without them bfloat16 is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def can_compile(model: Any, plan: ForwardPlan, mode: CompileMode) -> bool:
    """Return whether a served model is compiled: the mode is "on", and our forward pass can run it.

    Args:
        model: of any family, in eval mode.
        plan: how it is run.
        mode: as MASKLOOP_COMPILE has it.
    """
    with torch.no_grad():
        return mode == "on" and plan.accelerate and _is_lean(model)


def can_symbolize(model: Any, plan: ForwardPlan) -> str | None:
    """Return "swin" or "other", the backbone, where `SymbolicForward` knows the model; else None.

    Args:
        model: of any family, in eval mode.
        plan: how it is run.
    """
    with torch.no_grad():
        if plan.compiled or not plan.accelerate or not _is_lean(model):
            return None
        return "swin" if _is_swin(model.model.pixel_level_module.encoder) else "other"


def _planned_output(
    model: Any, pixel_values_bchw: Tensor, task_inputs_bt: Tensor | None, plan: ForwardPlan
) -> Any | None:
    """Return the output of ours or of the model's graph; None as for `_lean_output`."""
    device = pixel_values_bchw.device
    dtype = inference_dtype(plan.precision, device)

    def lean() -> Any | None:
        with _autocast(device, dtype):
            return _lean_output(model, pixel_values_bchw, task_inputs_bt, plan)

    if not plan.openvino or device.type != "cpu":
        return lean()
    from maskloop.segmentation.fast.graphs import graph_forward

    return graph_forward(model, pixel_values_bchw, task_inputs_bt, dtype=dtype, lean=lean)


def _lean_output(
    model: Any, pixel_values_bchw: Tensor, task_inputs_bt: Tensor | None, plan: ForwardPlan
) -> Any | None:
    """Return the output; None where a GPU refuses a kernel, from then on for all models of the family."""
    device, family = pixel_values_bchw.device, model.config.model_type
    if (device.type, family) in _REFUSED:
        return None
    swin = _is_swin(model.model.pixel_level_module.encoder)
    try:
        forward = _lean(plan.compiled)
        return forward(model, pixel_values_bchw, task_inputs_bt, swin=swin, triton=plan.triton)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as exc:
        if device.type == "cpu":  # where it is tested, an error is an error
            raise
        _REFUSED.add((device.type, family))
        log_action(
            _LOG,
            "acceleration_off",
            level=logging.WARNING,
            part=family,
            device=device.type,
            error=first_line(exc),
        )
        return None


@functools.cache
def _lean(compiled: bool) -> Callable[..., Any]:
    from maskloop.segmentation.fast.compiled import compiled_forward
    from maskloop.segmentation.fast.model_forward import lean_forward

    return compiled_forward if compiled else lean_forward


def _autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def _is_lean(model: Any) -> bool:
    config: Any = getattr(model, "config", None)
    return bool(
        getattr(config, "model_type", None) in FAMILIES
        and not getattr(model, "training", True)  # a stand-in without this attribute is run as it is
        and not torch.is_grad_enabled()
        and not config.pre_norm
        and is_replaceable(config.model_type)
    )


def _is_swin(backbone: Any) -> bool:
    return bool(
        type(backbone).__name__ == "SwinBackbone"
        and not backbone.training
        and not backbone.config.use_absolute_embeddings
        and is_replaceable("swin")
    )
