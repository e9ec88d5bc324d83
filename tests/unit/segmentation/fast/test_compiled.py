"""One graph a shape, filled batches, and running on without where compiling fails."""

from __future__ import annotations

import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from maskloop.lab.tiny_models import Tiny, build_tiny_mask2former, build_tiny_oneformer
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.fast import compiled
from maskloop.segmentation.fast.compiled import batch_bucket, graph_count, is_settled
from maskloop.segmentation.fast.forward import ForwardPlan, can_compile, forward_pass
from maskloop.segmentation.fast.model_forward import LeanOutput
from maskloop.segmentation.fast.swin import swin_features, swin_windows
from maskloop.types import SegmentationTask

BUILDERS: dict[str, Callable[..., Checkpoint]] = {
    "mask2former": build_tiny_mask2former,
    "oneformer": build_tiny_oneformer,
}
PLAIN = ForwardPlan(precision="float32")
COMPILED = ForwardPlan(precision="float32", compiled=True)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let graphs run as they were traced; returns the batch that each was traced for."""
    batches: list[int] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        batches.append(next(len(one) for one in inputs if one.dim() == 4 and one.shape[1] == 3))
        return graph.forward

    monkeypatch.setattr(compiled, "_backend", backend)
    return batches


@pytest.fixture
def swin() -> Checkpoint:
    """One family, for what is alike in both: what is done where compiling fails."""
    return build_tiny_mask2former(("cat", "dog"), seed=3, backbone="swin")


@pytest.fixture(params=BUILDERS)
def fresh(request: pytest.FixtureRequest) -> Checkpoint:
    return BUILDERS[request.param](("cat", "dog"), seed=3, backbone="swin")


def ask(checkpoint: Checkpoint, batch: int, plan: ForwardPlan, side: int = 64, seed: int = 0) -> LeanOutput:
    pixels = torch.randn(batch, 3, side, 96, generator=torch.Generator().manual_seed(seed))
    words = None
    if checkpoint.task_text is not None:
        words = checkpoint.task_text.task_inputs(SegmentationTask.INSTANCE, batch, checkpoint.device)
    with torch.inference_mode():
        output = forward_pass(checkpoint.model, pixels, None, words, plan=plan)
    assert isinstance(output, LeanOutput)
    return output


@pytest.mark.parametrize(
    ("batch", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (16, 16)]
)
def test_batch_bucket_any_is_the_next_power_of_two(batch: int, bucket: int) -> None:
    assert batch_bucket(batch) == bucket


def test_compiled_forward_batches_of_one_size_share_graphs(fresh: Checkpoint, traced: list[int]) -> None:
    for batch in (1, 3, 4, 3, 1):
        ours, plain = (ask(fresh, batch, plan, seed=batch) for plan in (COMPILED, PLAIN))
        for name in LeanOutput.__annotations__:
            torch.testing.assert_close(getattr(ours, name), getattr(plain, name), atol=1e-4, rtol=1e-4)
    assert traced == [1, 4]
    assert graph_count(fresh.model) == 2
    assert is_settled(fresh.model, (3, 64, 96), torch.float32)
    assert not is_settled(fresh.model, (5, 64, 96), torch.float32)
    assert not is_settled(fresh.model, (3, 64, 96), torch.bfloat16)


@pytest.mark.parametrize(("family", "backbone"), [("mask2former", "convnext"), ("oneformer", "resnet")])
def test_compiled_forward_families_are_one_graph(family: str, backbone: str, traced: list[int]) -> None:
    checkpoint = BUILDERS[family](("cat",), seed=1, backbone=backbone)
    torch.testing.assert_close(
        ask(checkpoint, 1, COMPILED).masks_queries_logits,
        ask(checkpoint, 1, PLAIN).masks_queries_logits,
        atol=1e-4,
        rtol=1e-4,
    )
    assert traced == [1]


def test_compiled_forward_more_models_than_the_compilers_limit_all_compile(traced: list[int]) -> None:
    models = [build_tiny_mask2former(("cat",), seed=seed) for seed in range(3)]
    with torch._dynamo.config.patch(recompile_limit=1):
        for model in (*models, *models):
            ask(model, 1, COMPILED)
    assert traced == [1] * 3


def test_compiled_forward_too_many_shapes_runs_without(
    traced: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "MOST_GRAPHS", 2)
    checkpoint = build_tiny_mask2former(("cat",), seed=1)
    for side in (32, 64, 96, 128, 64):
        ask(checkpoint, 1, COMPILED, side=side)
    assert traced == [1, 1]
    assert caplog.text.count("ends after 2 shapes") == 1


def test_compiled_forward_compiler_fails_runs_without_and_says_so_once(
    swin: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no compiler here")

    monkeypatch.setattr(compiled, "_backend", broken)
    with caplog.at_level(logging.WARNING):
        for batch in (1, 2, 1):
            ours, plain = (ask(swin, batch, plan).masks_queries_logits for plan in (COMPILED, PLAIN))
            assert torch.equal(ours, plain)
    records = [record for record in caplog.records if getattr(record, "action", "") == "compile_off"]
    assert len(records) == 1
    assert graph_count(swin.model) == 0


def test_compiled_forward_graph_fails_later_runs_without(
    swin: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    def backend(graph: Any, _inputs: list[Any]) -> Any:
        def run(*given: Any) -> Any:
            runs.append(1)
            if len(runs) > 1:
                raise RuntimeError("an illegal instruction")
            return graph.forward(*given)

        return run

    monkeypatch.setattr(compiled, "_backend", backend)
    ask(swin, 1, COMPILED)
    assert torch.equal(ask(swin, 1, COMPILED).masks_queries_logits, ask(swin, 1, PLAIN).masks_queries_logits)
    ask(swin, 1, COMPILED)
    assert len(runs) == 2
    assert caplog.text.count("illegal instruction") == 1


@pytest.mark.usefixtures("traced")
def test_compiled_forward_tracing_elsewhere_runs_without_for_once(swin: Checkpoint) -> None:
    ask(swin, 1, COMPILED)
    plain = ask(swin, 1, PLAIN).masks_queries_logits
    key = ((1, 64, 96), torch.float32)
    kept = compiled._GRAPHS[swin.model].made[key]

    def refuse(*_: Any, **__: Any) -> LeanOutput:
        raise RuntimeError("Detected that you are using FX to symbolically trace")

    compiled._GRAPHS[swin.model].made[key] = refuse
    with compiled._COMPILING:
        assert torch.equal(ask(swin, 1, COMPILED).masks_queries_logits, plain)
    assert compiled._GRAPHS[swin.model].made[key] is refuse
    compiled._GRAPHS[swin.model].made[key] = kept


def test_compiled_forward_other_thread_uses_the_same_graph(swin: Checkpoint, traced: list[int]) -> None:
    thread = threading.Thread(target=ask, args=(swin, 1, COMPILED))
    thread.start()
    thread.join()
    ask(swin, 1, COMPILED, seed=4)
    assert traced == [1]


@pytest.mark.usefixtures("traced")
def test_compiled_forward_dropped_model_takes_its_graphs_along() -> None:
    checkpoint = build_tiny_mask2former(("cat",), seed=1, backbone="swin")
    ask(checkpoint, 1, COMPILED)
    model = weakref.ref(checkpoint.model)
    del checkpoint
    gc.collect()
    assert model() is None


def test_swin_windows_made_before_give_the_same(fresh: Checkpoint) -> None:
    encoder = fresh.model.model.pixel_level_module.encoder
    pixels = torch.randn(2, 3, 90, 134, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        made = swin_features(encoder, pixels, swin_windows(encoder, pixels.shape, pixels.device))
        for ours, plain in zip(made, swin_features(encoder, pixels), strict=True):
            assert torch.equal(ours, plain)


@pytest.mark.parametrize(
    ("mode", "accelerate", "expected"),
    [("on", True, True), ("on", False, False), ("off", True, False)],
    ids=["on", "on without our forward pass", "off"],
)
def test_can_compile_only_where_the_setting_is_on(
    fresh: Checkpoint, mode: Any, accelerate: bool, expected: bool
) -> None:
    assert can_compile(fresh.model, ForwardPlan(accelerate=accelerate), mode) is expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_forward_real_compiler_equals_plain() -> None:
    checkpoint = build_tiny_mask2former(("cat", "dog"), seed=3, tiny=Tiny(decoder_layers=2))
    ours, plain = (ask(checkpoint, 1, plan, side=32) for plan in (COMPILED, PLAIN))
    assert graph_count(checkpoint.model) == 1
    torch.testing.assert_close(ours.masks_queries_logits, plain.masks_queries_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.class_queries_logits, plain.class_queries_logits, atol=1e-4, rtol=1e-4)


def test_forward_pass_plain_plan_compiles_nothing(fresh: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_backend", "nothing of this name")
    ask(fresh, 1, PLAIN)
    assert graph_count(fresh.model) == 0
