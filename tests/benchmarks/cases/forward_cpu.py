"""The forward pass on the CPU against transformers and OpenVINO, at equal precision.

All ways run in one process, in turn, with the same threads and the same allocator. OpenVINO gets the model of
transformers, converted for the one size and compiled for latency; without its package (`pip install
openvino`) those rows are left out, and a note says so.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..harness.case import Budget, Case, Result
from ..harness.timing import Pair, in_turn
from .forward import (
    FAMILIES,
    compare_half,
    equal_in_double,
    equal_in_float,
    random_inputs,
    random_model,
    run_ours,
    run_plain,
    trained_iou,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CASES"]

SIZES_HW = ((480, 640), (800, 1088))
AIMS = {("transformers", "float32"): 1.5, ("transformers", "bfloat16"): 2.0}
OPENVINO_AIM = 2.0
OPENVINO_PRECISION = {"float32": "f32", "bfloat16": "bf16"}
Way = Callable[[], Any]


def forward_cpu(budget: Budget) -> list[Result]:
    """Run both families on the CPU, in float32 and in bfloat16, against each reference of that precision."""
    import torch

    import maskloop.segmentation.fast.forward as ours
    from maskloop.malloc import keep_freed_memory

    keep_freed_memory()  # as maskloop's processes do, and here for all ways alike
    plans = {"float32": ours.ForwardPlan(precision="float32")}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        plans["bfloat16"] = ours.ForwardPlan(precision="bfloat16")
    results = []
    for family in FAMILIES[:1] if budget.quick else FAMILIES:
        model = random_model(family, "swin-t", torch.device("cpu"))
        said = {"float32": equal_in_double(model)}
        if "bfloat16" in plans:
            said["bfloat16"] = trained_iou(family, plans["bfloat16"])
        for size_hw in SIZES_HW[:1] if budget.quick else SIZES_HW:
            inputs = random_inputs(family, size_hw, 1, torch.device("cpu"))
            rounding = equal_in_float(model, size_hw, plans["float32"])
            ways: dict[str, Way] = {}
            for precision, plan in plans.items():
                ways[f"ours {precision}"] = functools.partial(run_ours, model, inputs, plan)
                ways[f"transformers {precision}"] = functools.partial(_run_autocast, model, inputs, precision)
            ways |= _openvino_ways(model, inputs, tuple(plans))
            seconds, found = in_turn(ways, budget, min_rounds=1 if budget.quick else 5)
            truth = found["transformers float32"]
            for precision in plans:
                for engine in ("transformers", "openvino"):
                    if (name := f"{engine} {precision}") not in ways:
                        continue
                    pair = Pair(
                        ours_s=seconds[f"ours {precision}"],
                        reference_s=seconds[name],
                        ours=found[f"ours {precision}"],
                        reference=found[name],
                    )
                    same = rounding if precision == "float32" else compare_half(pair.ours, truth)
                    theirs = _correlation(pair.reference, truth)
                    results.append(
                        pair.result(
                            f"forward-cpu/{family} swin-t {size_hw[0]}x{size_hw[1]} {precision}"
                            + ("" if engine == "transformers" else " openvino"),
                            against=f"{engine}, {precision}",
                            same=f"{same}; {said[precision]}; the reference's {theirs}",
                            aim=OPENVINO_AIM if engine == "openvino" else AIMS[engine, precision],
                        )
                    )
    return results


def _run_autocast(model: Any, inputs: dict[str, Tensor], precision: str) -> tuple[Tensor, Tensor]:
    """Run transformers as its users do: bfloat16 is autocast's."""
    import torch

    if precision == "float32":
        return run_plain(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        return run_plain(model, inputs)


def _openvino_ways(model: Any, inputs: dict[str, Tensor], precisions: tuple[str, ...]) -> dict[str, Way]:
    """Return OpenVINO's runs of the same model and inputs; none where its package is not installed."""
    import torch

    try:
        import openvino
    except ImportError:
        logging.getLogger(__name__).warning("openvino is not installed: its rows are left out")
        return {}
    from maskloop.segmentation.graph_export import openvino_graph

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model  # as a part: its weights are parameters of the graph

        def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
            output = self.model(**dict(zip(inputs, given, strict=True)))
            return output.class_queries_logits, output.masks_queries_logits

    example = tuple(inputs.values())
    graph = openvino_graph(Logits(), example)  # for this one size
    graph.reshape({place: openvino.PartialShape(list(one.shape)) for place, one in enumerate(example)})
    core = openvino.Core()
    arrays = [one.numpy() for one in example]
    ways: dict[str, Way] = {}
    for precision in precisions:
        compiled = core.compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": OPENVINO_PRECISION[precision],
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )
        ways[f"openvino {precision}"] = functools.partial(_run_openvino, compiled, arrays)
    return ways


def _run_openvino(compiled: Any, arrays: list[Any]) -> tuple[Tensor, Tensor]:
    import torch

    found = compiled(arrays)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _correlation(one: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]) -> str:
    import torch

    pair = torch.stack((one[1].float().flatten(), truth[1].float().flatten()))
    return f"correlate by {float(torch.corrcoef(pair)[0, 1]):.5f}"


CASES = [
    Case(
        name="forward-cpu",
        summary="the forward pass on the CPU, against transformers and OpenVINO at equal precision",
        run=forward_cpu,
    ),
]
