"""The real OpenVINO: exported by a child process, the same predictions and click features as torch."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.missing import skip_missing

from maskloop.interactive.image_features import ImageFeatures, image_features
from maskloop.lab.synthetic.shapes import make_image
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.masks import segment_iou
from maskloop.segmentation import graph_export
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.engine import Engine
from maskloop.segmentation.fast import graphs
from maskloop.segmentation.fast.forward import ForwardPlan, forward_pass
from maskloop.segmentation.fast.graphs import graph_counts, graph_forward, offer_graph
from maskloop.segmentation.fast.model_forward import LeanOutput
from maskloop.segmentation.graph_export import GraphExports, export_graph, find_graph
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import RawOutput
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER
from maskloop.types import Prediction, SegmentationTask

FLOAT32 = ForwardPlan(precision="float32")
SHIPPED = {"mask2former": BASE_MODEL, "oneformer": BASE_ONEFORMER}
LATEST_S = 120.0


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    if importlib.util.find_spec("openvino") is None:
        skip_missing("openvino", "pip install 'maskloop[openvino]'")


def made(source: str, folder: Path) -> None:
    export_graph(load_checkpoint(source, device="cpu", plan=FLOAT32), folder)


def by_graph(checkpoint: Checkpoint, path: Path, inputs: list[torch.Tensor]) -> LeanOutput:
    request = graphs._compile(path, (tuple(inputs[0].shape), torch.float32), 1)
    return graphs._run(graphs._Compiled(request=request, verdict="graph"), inputs)


@pytest.mark.parametrize(
    ("build", "backbone"), [(build_tiny_mask2former, "swin"), (build_tiny_oneformer, "convnext")]
)
def test_graph_one_export_is_equal_at_all_sizes_and_batches(
    tmp_path: Path, build: Callable[..., Checkpoint], backbone: str
) -> None:
    source = save_checkpoint(build(("cat", "dog"), seed=3, backbone=backbone), tmp_path / "model")
    made(str(source), tmp_path / "graph")
    checkpoint = load_checkpoint(source, device="cpu", plan=FLOAT32)
    for seed, (batch, height, width) in enumerate([(1, 96, 128), (3, 64, 160), (2, 224, 64)]):
        inputs = [torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))]
        words = None
        if checkpoint.task_text is not None:
            words = checkpoint.task_text.task_inputs(SegmentationTask.SEMANTIC, batch, checkpoint.device)
            inputs.append(words)
        found = by_graph(checkpoint, tmp_path / "graph" / "graph.xml", inputs)
        with torch.inference_mode():
            ours = forward_pass(checkpoint.model, inputs[0], None, words, plan=FLOAT32)
        for name in LeanOutput.__annotations__:
            torch.testing.assert_close(getattr(found, name), getattr(ours, name), atol=2e-4, rtol=1e-3)


def same(one: Prediction, other: Prediction) -> bool:
    pairs = list(zip(one.segments, other.segments, strict=True))
    assert all(segment_iou(mine, theirs) >= 0.99 for mine, theirs in pairs)
    return [mine.label for mine, _ in pairs] == [theirs.label for _, theirs in pairs]


@pytest.mark.parametrize("family", SHIPPED)
def test_engine_served_by_openvino_predicts_and_keeps_features_as_by_torch(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "WORTH", 2)
    images = [make_image(seed).image_hwc for seed in range(4)]
    exports, kept = GraphExports(tmp_path, mode="on"), []

    def keep(checkpoint: Checkpoint, raw: RawOutput) -> None:
        kept.append(image_features(checkpoint, raw))

    def kept_in_turn(used: Engine) -> list[Any]:  # images of one request may be finished in any order
        answers = []
        for number, image in enumerate(images, start=len(kept) + 1):
            answers += used.submit([image], source=source, use_output=keep).result()
            while len(kept) < number:
                time.sleep(0.005)
        return answers

    options = {"task": SegmentationTask.INSTANCE, "thresholds": Thresholds(), "device": "cpu", "max_batch": 1}
    source = str(SHIPPED[family])
    with Engine(**options) as torch_engine, Engine(**options, graphs=exports) as engine:
        expected = kept_in_turn(torch_engine)
        engine.load(source)
        exports.wait()  # the child has exported
        deadline = time.monotonic() + LATEST_S
        while not engine.shape_engines["openvino"]:
            assert time.monotonic() < deadline, engine.shape_engines
            engine.predict(images, source=source)
        found = kept_in_turn(engine)
    assert sum(len(one.segments) for one in expected) >= 8
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))
    assert len(kept) == 8
    for ours, theirs in zip(kept[:4], kept[4:], strict=True):
        compare_features(ours, theirs)


def compare_features(ours: ImageFeatures, theirs: ImageFeatures) -> None:
    for name in ("pixels_chw", "embeddings_nc", "class_probs_nk"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), atol=5e-3, rtol=5e-3)
    assert ours.click is not None
    assert theirs.click is not None
    assert ours.click.padded_l == theirs.click.padded_l
    for mine, other in zip(ours.click.tokens_lhwc, theirs.click.tokens_lhwc, strict=True):
        torch.testing.assert_close(other, mine, atol=5e-3, rtol=5e-3)


def test_graph_of_other_weights_is_refused(tmp_path: Path) -> None:
    folders = [
        save_checkpoint(build_tiny_mask2former(("cat", "dog"), seed=seed), tmp_path / str(seed))
        for seed in (1, 2)
    ]
    path = find_graph(tmp_path / "graphs", str(folders[0]), made)
    model = load_checkpoint(folders[1], device="cpu", plan=FLOAT32).model
    offer_graph(model, path)
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = forward_pass(model, pixels, plan=FLOAT32)
        deadline = time.monotonic() + LATEST_S
        while (counts := graph_counts(model)) is not None and counts.off is None:
            assert time.monotonic() < deadline
            found = graph_forward(model, pixels, None, dtype=torch.float32, lean=lambda: ours)
            assert found is ours
    assert counts is not None
    assert "differ from ours" in str(counts.off)


KILLED = """
import os, signal, sys, openvino
save = openvino.save_model
openvino.save_model = lambda *args, **options: (save(*args, **options), os.kill(os.getpid(), signal.SIGKILL))
from maskloop.segmentation.graph_export import _main
_main(*sys.argv[1:])
"""


def test_export_killed_leaves_no_graph_and_the_next_one_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "graphs" / "key"
    options = [str(os.getpid()), str(BASE_MODEL), str(folder)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *options], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in folder.parent.iterdir()] == [".partial"]
    command = [sys.executable, "-m", graph_export.__name__, *options]
    subprocess.run(command, check=True, capture_output=True)
    assert graph_export._damage(folder) is None


def test_export_without_its_parent_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", graph_export.__name__, "1", str(BASE_MODEL), str(tmp_path / "key")]
    done = subprocess.run(command, capture_output=True, timeout=LATEST_S, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])


def test_graph_off_keeps_the_plan(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(BASE_MODEL, device="cpu", plan=FLOAT32)
    assert GraphExports(tmp_path, mode="off").prepare(checkpoint) is checkpoint
    transformers_own = replace(checkpoint, plan=replace(FLOAT32, accelerate=False))
    assert GraphExports(tmp_path, mode="on").prepare(transformers_own) is transformers_own
