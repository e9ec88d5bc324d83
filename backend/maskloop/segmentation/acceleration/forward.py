"""One forward pass for predictions: which precision, and ours or transformers' own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from maskloop.segmentation.acceleration.replaced import is_replaceable

__all__ = ["ForwardPlan", "Precision", "forward_pass", "inference_dtype"]

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
FAMILIES = ("mask2former", "oneformer")


@dataclass(frozen=True, kw_only=True)
class ForwardPlan:
    """How a model is run; the same wherever predictions are made, judged or served."""

    precision: Precision = "auto"  # "auto" is bfloat16 on CUDA cards that have it, else float32
    accelerate: bool = True  # what gives the same to rounding, faster
    compiled: bool = False  # by torch.compile, once for each shape; only what is accelerated


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
        features: also the hidden states that a study reads.
    """
    lean = plan.accelerate and _is_lean(model)
    dtype = inference_dtype(plan.precision, pixel_values_bchw.device)
    if task_inputs_bt is not None and not lean:
        dtype = torch.float32  # bfloat16 has no room for the ids of tokens
    with _autocast(pixel_values_bchw.device, dtype):
        if lean:
            forward = _lean(plan.compiled)
            swin = _is_swin(model.model.pixel_level_module.encoder)
            return forward(model, pixel_values_bchw, task_inputs_bt, swin=swin)
        words: dict[str, Any] = {"output_hidden_states": True} if features else {}
        if task_inputs_bt is not None:
            words["task_inputs"] = task_inputs_bt
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


@functools.cache
def _lean(compiled: bool) -> Callable[..., Any]:
    from maskloop.segmentation.acceleration.lean import lean_forward

    return torch.compile(lean_forward, dynamic=False) if compiled else lean_forward


def _autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def _is_lean(model: Any) -> bool:
    config: Any = getattr(model, "config", None)
    return bool(
        getattr(config, "model_type", None) in FAMILIES
        and not getattr(model, "training", True)  # what only stands in for a model is asked itself
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
