"""When a graph answers instead of torch: never before it gave the same, and only where it is faster."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.fast import graphs
from maskloop.segmentation.fast.forward import ForwardPlan, can_symbolize, forward_pass
from maskloop.segmentation.fast.graphs import graph_counts, offer_graph
from maskloop.segmentation.fast.model_forward import LeanOutput, lean_forward
from maskloop.segmentation.fast.symbolic import SymbolicForward
from maskloop.types import SegmentationTask

BUILDERS: dict[str, Callable[..., Checkpoint]] = {
    "mask2former": build_tiny_mask2former,
    "oneformer": build_tiny_oneformer,
}
PLAN = ForwardPlan(precision="float32", openvino=True)
ASKED = graphs.WORTH + graphs.TRIALS + 1  # until a shape is decided


class StandIn:
    """Stands in for OpenVINO: a compiled graph is torch's forward pass; notes the shapes it was made for."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.shapes: list[tuple[int, ...]] = []
        self.runs = 0
        self.change: Callable[[list[Any]], None] = lambda outputs: None

    def compile(self, _path: Path, key: Any, _threads: int) -> SimpleNamespace:
        self.shapes.append(key[0])
        request = SimpleNamespace(output_tensors=[])

        def infer(inputs: list[Any], share_inputs: bool) -> None:
            self.runs += 1
            with torch.inference_mode():
                output = lean_forward(self.model, *(torch.from_numpy(one) for one in inputs))
            outputs = [
                output.class_queries_logits.numpy().copy(),
                output.masks_queries_logits.numpy().copy(),
                output.pixel_decoder_last_hidden_state.numpy(),
                output.transformer_decoder_layers.numpy(),
                *(tokens.numpy() for tokens in output.level_tokens),
            ]
            self.change(outputs)
            request.output_tensors = [SimpleNamespace(data=one) for one in outputs]

        request.infer = infer
        return request


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tiny: Checkpoint) -> StandIn:
    stand_in = StandIn(tiny.model.eval())
    monkeypatch.setattr(graphs, "_compile", stand_in.compile)
    monkeypatch.setattr(graphs, "_start_worker", lambda: None)
    monkeypatch.setattr(graphs, "_JOBS", SimpleNamespace(put=graphs._compile_job))
    monkeypatch.setattr(graphs, "LEAST_GAIN", 0.0)  # always faster, however busy this machine is
    offer_graph(tiny.model, Path("graph.xml"))
    return stand_in


@pytest.fixture(
    params=[f"{family} {backbone}" for family in BUILDERS for backbone in ("resnet", "swin", "convnext")],
    scope="module",
)
def fresh_traced(request: pytest.FixtureRequest) -> tuple[Checkpoint, Any]:
    family, backbone = request.param.split()
    checkpoint = BUILDERS[family](("cat", "dog"), seed=3, backbone=backbone)
    example = [torch.zeros(1, 3, 64, 96)]
    if checkpoint.task_text is not None:
        example.append(torch.zeros(1, checkpoint.task_text.task_length, dtype=torch.int64))
    assert can_symbolize(checkpoint.model, ForwardPlan()) == ("swin" if backbone == "swin" else "other")
    forward = SymbolicForward(checkpoint.model, swin=backbone == "swin").eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return checkpoint, torch.jit.trace(forward, tuple(example), check_trace=False)


def ask(checkpoint: Checkpoint, times: int = 1, *, side: int = 64, plan: ForwardPlan = PLAN) -> LeanOutput:
    words = None
    if checkpoint.task_text is not None:
        words = checkpoint.task_text.task_inputs(SegmentationTask.INSTANCE, 2, checkpoint.device)
    pixels = torch.randn(2, 3, side, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for _ in range(times):
            output = forward_pass(checkpoint.model, pixels, None, words, plan=plan)
    assert isinstance(output, LeanOutput)
    return output


def test_graph_forward_same_and_faster_answers_all_outputs(tiny: Checkpoint, stand_in: StandIn) -> None:
    ask(tiny, ASKED)
    runs = stand_in.runs
    by_graph, ours = ask(tiny), ask(tiny, plan=ForwardPlan(precision="float32"))
    assert (stand_in.shapes, stand_in.runs - runs) == ([(2, 3, 64, 96)], 1)
    for name in LeanOutput.__annotations__:
        torch.testing.assert_close(getattr(by_graph, name), getattr(ours, name))
    counts = graph_counts(tiny.model)
    assert counts is not None
    assert (counts.by_graph, counts.on_trial, counts.slower, counts.off) == (1, 0, 0, None)


def test_graph_forward_slower_leaves_the_shape_to_torch(
    tiny: Checkpoint, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "LEAST_GAIN", float("inf"))
    ask(tiny, ASKED)
    runs = stand_in.runs
    ask(tiny, 2 * graphs.WORTH)
    counts = graph_counts(tiny.model)
    assert counts is not None
    assert (counts.by_graph, counts.slower, stand_in.runs, len(stand_in.shapes)) == (0, 1, runs, 1)


def test_graph_forward_forced_answers_though_slower(
    tiny: Checkpoint, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "LEAST_GAIN", float("inf"))
    offer_graph(tiny.model, Path("graph.xml"), forced=True)
    ask(tiny, ASKED)
    counts = graph_counts(tiny.model)
    assert counts is not None
    assert counts.by_graph == 1


def flip_masks(outputs: list[Any]) -> None:
    outputs[1] *= -1


def shift_classes(outputs: list[Any]) -> None:
    outputs[0][:, :, 0] += 1.0


def spoil(outputs: list[Any]) -> None:
    outputs[0][:] = np.nan


def cut(outputs: list[Any]) -> None:
    outputs[1] = outputs[1][:, :, :-1]


def fail(outputs: list[Any]) -> None:
    raise RuntimeError("no kernel")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flip_masks, "have IoU 0.000, expected 0.95"),
        (shift_classes, "of the queries agree, expected 0.95"),
        (spoil, "classes of 0.00 of the queries agree"),
        (cut, "masks_queries_logits expected (2, "),
        (fail, "it failed: RuntimeError: no kernel"),
    ],
    ids=["masks", "classes", "not-a-number", "shape", "error"],
)
def test_graph_forward_wrong_goes_back_to_torch_with_one_line(
    tiny: Checkpoint,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[list[Any]], None],
    said: str,
) -> None:
    monkeypatch.setattr(graphs, "FOUND", 0.0)  # random weights find no objects: all queries count
    stand_in.change = change
    with caplog.at_level(logging.WARNING):
        ask(tiny, 3 * ASKED)
    assert [record.getMessage() for record in caplog.records if said in record.getMessage()]
    assert sum("graph_off" in record.getMessage() for record in caplog.records) == 1
    assert stand_in.runs == 1
    torch.testing.assert_close(
        ask(tiny).class_queries_logits,
        ask(tiny, plan=ForwardPlan(precision="float32")).class_queries_logits,
    )


def test_graph_forward_failing_later_answers_by_torch(tiny: Checkpoint, stand_in: StandIn) -> None:
    ask(tiny, ASKED)
    stand_in.change = fail
    found = ask(tiny)
    ours = ask(tiny, plan=ForwardPlan(precision="float32"))
    torch.testing.assert_close(found.masks_queries_logits, ours.masks_queries_logits)
    counts = graph_counts(tiny.model)
    assert counts is not None
    assert counts.off == "it failed: RuntimeError: no kernel"


@pytest.mark.parametrize(
    ("side", "times"),
    [(64, graphs.WORTH - 1), (80, 2 * ASKED), (32, 2 * ASKED)],
    ids=["rare", "odd", "small"],
)
def test_graph_forward_rare_odd_or_small_shape_is_not_compiled(
    tiny: Checkpoint, stand_in: StandIn, side: int, times: int
) -> None:
    ask(tiny, times, side=side)
    assert stand_in.shapes == []


def test_graph_forward_many_shapes_keeps_the_frequent_ones(
    tiny: Checkpoint, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST_SHAPES", 1)
    offer_graph(tiny.model, Path("graph.xml"))
    ask(tiny, ASKED, side=64)
    ask(tiny, ASKED, side=128)
    assert stand_in.shapes == [(2, 3, 64, 96)]
    ask(tiny, ASKED, side=128)
    assert stand_in.shapes == [(2, 3, 64, 96), (2, 3, 128, 96)]


def test_offer_graph_large_model_gets_fewer_shapes(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sum(one.numel() * one.element_size() for one in tiny.model.parameters())
    monkeypatch.setattr(graphs, "GRAPH_BYTES", 3 * weights)
    offer_graph(tiny.model, Path("graph.xml"))
    assert graphs._GRAPHS[tiny.model].most == 3


def test_forward_pass_plan_without_openvino_never_looks_for_a_graph(
    tiny: Checkpoint, stand_in: StandIn
) -> None:
    ask(tiny, 2 * ASKED, plan=ForwardPlan(precision="float32"))
    assert (stand_in.shapes, graphs._GRAPHS[tiny.model].seen) == ([], {})


@pytest.mark.parametrize("size_hw", [(32, 64), (96, 160), (224, 96)], ids=str)
def test_symbolic_forward_traced_once_gives_the_same_at_other_sizes(
    fresh_traced: tuple[Checkpoint, Any], size_hw: tuple[int, int]
) -> None:
    checkpoint, traced = fresh_traced
    inputs = [torch.randn(2, 3, *size_hw, generator=torch.Generator().manual_seed(1))]
    if checkpoint.task_text is not None:
        inputs.append(checkpoint.task_text.task_inputs(SegmentationTask.PANOPTIC, 2, checkpoint.device))
    with torch.inference_mode():
        output = lean_forward(checkpoint.model, *inputs)
        found = traced(*inputs)
    names = ("class_queries_logits", "masks_queries_logits", "pixel_decoder_last_hidden_state")
    ours = [*(getattr(output, name) for name in names), output.transformer_decoder_layers]
    for mine, theirs in zip([*ours, *output.level_tokens], found, strict=True):
        torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=1e-4)
