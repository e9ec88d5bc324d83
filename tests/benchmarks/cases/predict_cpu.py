"""A whole prediction on the CPU, image to segments: by OpenVINO, by our forward pass, by transformers' own.

All three run in turn in one process, with the same threads and allocator. OpenVINO's graph is exported from
our forward pass and used whether it is faster or not; without its package the case is skipped.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..harness.case import Budget, Case, Result, Skip
from ..harness.timing import Pair, in_turn
from .serve import make_swin, usual_score

__all__ = ["CASES"]

EDGE = 480  # pixels: the shorter side of what the large model sees, as it is
SIZE_HW = (480, 640)
AIM = 1.3
LEAST_AGREEING = 0.95
LATEST_S = 300.0  # until a shape is compiled


def predict_cpu(budget: Budget) -> list[Result]:
    """Return milliseconds a prediction of one image, for the shipped models and a Swin-T."""
    if importlib.util.find_spec("openvino") is None:
        raise Skip("openvino is not installed")
    import torch

    from maskloop.lab.synthetic.shapes import make_image
    from maskloop.malloc import keep_freed_memory
    from maskloop.segmentation.fast.forward import cpu_has_bfloat16
    from maskloop.settings import BASE_MODEL, BASE_ONEFORMER

    keep_freed_memory()  # as maskloop's processes do, and here for all ways alike
    torch.manual_seed(0)
    results = []
    with tempfile.TemporaryDirectory() as name:
        image = make_image(3).image_hwc
        models = [(BASE_MODEL, image), (BASE_ONEFORMER, image)]
        if not budget.quick:
            large = make_image(3, size_hw=SIZE_HW).image_hwc
            models.append((make_swin(Path(name) / "swin-t", edge=EDGE, contrast=1.0), large))
        for folder, shown in models:
            halves = cpu_has_bfloat16() and folder.name == "swin-t"
            for precision in ("float32", "bfloat16") if halves else ("float32",):
                results += _compare(folder, shown, precision, Path(name), budget)
    return results


def _compare(folder: Path, image: Any, precision: Any, scratch: Path, budget: Budget) -> list[Result]:
    from maskloop.segmentation.checkpoint import load_checkpoint
    from maskloop.segmentation.fast.forward import ForwardPlan
    from maskloop.segmentation.precision_check import agreement

    ours = load_checkpoint(folder, device="cpu", plan=ForwardPlan(precision=precision))
    plain = ForwardPlan(precision=precision, accelerate=False)
    checkpoints = {
        "openvino": replace(ours, plan=replace(ours.plan, openvino=True)),
        "torch": ours,
        "transformers": load_checkpoint(folder, device="cpu", plan=plain),
    }
    least = usual_score(ours, [image]) if folder.name == "swin-t" else 0.5
    cpu_s: dict[str, list[float]] = {name: [] for name in checkpoints}
    ways: dict[str, Callable[[], Any]] = {
        name: functools.partial(_predict, one, image, least, cpu_s[name]) for name, one in checkpoints.items()
    }
    _graph(checkpoints["openvino"], scratch / f"{folder.name}-{precision}", ways["openvino"])
    seconds, found = in_turn(ways, budget)
    cpu_ms = {name: round(1000 * min(all_s), 1) for name, all_s in cpu_s.items()}
    results = []
    for name, reference in (("openvino", "torch"), ("openvino", "transformers"), ("torch", "transformers")):
        pair = Pair(
            ours_s=seconds[name],
            reference_s=seconds[reference],
            ours=found[name],
            reference=found[reference],
        )
        agreeing, segments = agreement(pair.reference, pair.ours, least_score=least)
        assert segments > 0, "no segments to compare"
        if precision == "float32":  # random weights are never sure: bfloat16 may decide otherwise
            assert agreeing >= LEAST_AGREEING * segments, f"{agreeing} of {segments} segments agree"
        results.append(
            pair.result(
                f"predict-cpu/{folder.name} {precision} {name}, {reference}",
                against=reference,
                same=f"{agreeing} of {segments} segments with equal label and IoU of .9",
                aim=AIM if reference == "torch" else None,
                notes={"least CPU-ms": cpu_ms},
            )
        )
    return results


def _predict(checkpoint: Any, image: Any, least: float, cpu_s: list[float]) -> Any:
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.segmentation.predict import predict_images
    from maskloop.types import SegmentationTask

    start = time.process_time()
    (prediction,) = predict_images(
        checkpoint, [image], task=SegmentationTask.INSTANCE, thresholds=Thresholds(score=least), max_batch=1
    )
    cpu_s.append(time.process_time() - start)
    return prediction


def _graph(checkpoint: Any, folder: Path, ask: Callable[[], Any]) -> None:
    """Export the model and predict until OpenVINO answers."""
    from maskloop.segmentation.fast.graphs import graph_counts, offer_graph
    from maskloop.segmentation.graph_export import GRAPH_FILES, export_graph

    export_graph(checkpoint, folder)
    offer_graph(checkpoint.model, folder / GRAPH_FILES[0], forced=True)
    end = time.monotonic() + LATEST_S
    while not (counts := graph_counts(checkpoint.model)).by_graph:
        assert counts.off is None, counts.off
        assert time.monotonic() < end, "the graph is not compiled"
        ask()


CASES = [
    Case(
        name="predict-cpu",
        summary="a whole prediction on the CPU: OpenVINO, our forward pass, transformers' own",
        run=predict_cpu,
    ),
]
