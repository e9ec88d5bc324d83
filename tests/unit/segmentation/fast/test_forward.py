"""Our forward pass against transformers' own, on random inputs, and where theirs is not known."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskloop.lab.synthetic.shapes import make_image
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.fast import forward as forward_module
from maskloop.segmentation.fast import source_check
from maskloop.segmentation.fast.deformable import deformable_attention
from maskloop.segmentation.fast.forward import ForwardPlan, forward_pass, inference_dtype
from maskloop.segmentation.fast.grid_sample import grid_sampled
from maskloop.segmentation.fast.model_forward import LeanOutput
from maskloop.segmentation.fast.patching import accelerate_model, restore_model
from maskloop.segmentation.fast.swin import swin_features
from maskloop.segmentation.predict import predict_images
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER
from maskloop.types import RgbImage, Segment, SegmentationTask

PLAIN = ForwardPlan(precision="float32", accelerate=False)
FAST = ForwardPlan(precision="float32")
HALF = ForwardPlan(precision="bfloat16")
BUILDERS: dict[str, Callable[..., Checkpoint]] = {
    "mask2former": build_tiny_mask2former,
    "oneformer": build_tiny_oneformer,
}


def stir(model: nn.Module) -> None:
    """Give every norm, bias and offset an effect, which fresh weights leave without."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1 or "attention_weights" in name or "bias_table" in name:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
            elif "sampling_offsets" in name:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)


@pytest.fixture(scope="module")
def stirred() -> dict[tuple[str, str], Checkpoint]:
    made = {}
    for family, build in BUILDERS.items():
        for backbone in ("resnet", "swin", "convnext"):
            made[family, backbone] = build(("cat", "dog"), seed=3, backbone=backbone)
            stir(made[family, backbone].model)
    return made


def call(checkpoint: Checkpoint, pixels: Tensor, plan: ForwardPlan, features: bool = False) -> Any:
    words = None
    if checkpoint.task_text is not None:
        words = checkpoint.task_text.task_inputs(SegmentationTask.INSTANCE, len(pixels), checkpoint.device)
    mask = torch.ones(len(pixels), *pixels.shape[-2:])
    mask[..., -8:] = 0
    with torch.inference_mode():
        return forward_pass(checkpoint.model, pixels, mask, words, plan=plan, features=features)


@pytest.fixture(params=BUILDERS)
def served(request: pytest.FixtureRequest, stirred: dict[tuple[str, str], Checkpoint]) -> Checkpoint:
    return stirred[request.param, "resnet"]


def noise(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.parametrize("backbone", ["resnet", "swin", "convnext"])
@pytest.mark.parametrize(
    ("batch", "height", "width"), [(1, 128, 128), (2, 96, 160), (2, 97, 131), (1, 32, 352)]
)
def test_forward_pass_equals_transformers(
    stirred: dict[tuple[str, str], Checkpoint],
    family: str,
    backbone: str,
    batch: int,
    height: int,
    width: int,
) -> None:
    checkpoint, pixels = stirred[family, backbone], noise(batch, height, width)
    theirs, ours = (call(checkpoint, pixels, plan) for plan in (PLAIN, FAST))
    assert isinstance(ours, LeanOutput)
    torch.testing.assert_close(ours.class_queries_logits, theirs.class_queries_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.masks_queries_logits, theirs.masks_queries_logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("folder", [BASE_MODEL, BASE_ONEFORMER], ids=lambda folder: folder.name)
@pytest.mark.parametrize("plan", [FAST, HALF], ids=lambda plan: plan.precision)
def test_predict_images_shipped_models_give_the_same_masks(folder: Path, plan: ForwardPlan) -> None:
    plain = load_checkpoint(folder, device="cpu", plan=PLAIN)
    images = [make_image(seed).image_hwc for seed in range(4)]
    theirs, ours = (
        predict_images(replace(plain, plan=way), images, task=SegmentationTask.INSTANCE)
        for way in (PLAIN, plan)
    )
    # scores that lie close may change places: each segment is held against the one most like it
    ious = [
        max(segment_iou(mine, his) for his in other.segments if his.label == mine.label)
        for one, other in zip(theirs, ours, strict=True)
        for mine in one.segments
    ]
    assert [len(one.segments) for one in theirs] == [len(other.segments) for other in ours]
    assert sum(ious) / len(ious) >= (0.9999 if plan is FAST else 0.98)


def segment_iou(one: Segment, other: Segment) -> float:
    full = np.zeros((2, 128, 128), dtype=bool)
    for layer, segment in zip(full, (one, other), strict=True):
        top, left, bottom, right = segment.box_yxyx
        layer[top:bottom, left:right] = segment.mask_hw
    return float((full[0] & full[1]).sum() / (full[0] | full[1]).sum())


@pytest.mark.parametrize("family", BUILDERS)
def test_forward_pass_features_equal_transformers(
    stirred: dict[tuple[str, str], Checkpoint], family: str
) -> None:
    checkpoint, pixels = stirred[family, "resnet"], noise(2, 96, 128)
    theirs, ours = (call(checkpoint, pixels, plan, features=True) for plan in (PLAIN, FAST))
    pixel, query = (
        (theirs.pixel_decoder_last_hidden_state, theirs.transformer_decoder_last_hidden_state)
        if family == "mask2former"
        else (theirs.pixel_decoder_hidden_states[0], theirs.transformer_decoder_object_queries)
    )
    torch.testing.assert_close(ours.pixel_decoder_last_hidden_state, pixel, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.transformer_decoder_last_hidden_state, query, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", BUILDERS)
def test_predict_images_study_equals_transformers(
    stirred: dict[tuple[str, str], Checkpoint], family: str, make_image: Callable[..., RgbImage]
) -> None:
    checkpoint = stirred[family, "resnet"]
    theirs, ours = (
        predict_images(
            replace(checkpoint, plan=plan), [make_image()], task=SegmentationTask.SEMANTIC, for_selection=True
        )[0].selection_inputs
        for plan in (PLAIN, FAST)
    )
    assert theirs is not None
    assert ours is not None
    assert abs(float(theirs.embedding_d @ ours.embedding_d) - 1) < 1e-4


def test_forward_pass_half_precision_keeps_float32_logits(tiny: Checkpoint) -> None:
    output = call(tiny, noise(1, 64, 96), HALF)
    assert output.class_queries_logits.dtype == output.masks_queries_logits.dtype == torch.float32


def test_forward_pass_half_precision_plain_oneformer_keeps_its_question(
    stirred: dict[tuple[str, str], Checkpoint],
) -> None:
    tiny_oneformer = stirred["oneformer", "resnet"]
    pixels = noise(1, 64, 96)
    plain_half = replace(HALF, accelerate=False)
    theirs, ours = (call(tiny_oneformer, pixels, plan) for plan in (PLAIN, plain_half))
    torch.testing.assert_close(ours.class_queries_logits, theirs.class_queries_logits)


@pytest.mark.parametrize("size_hw", [(128, 128), (56, 84), (61, 47), (20, 200)], ids=str)
def test_swin_features_equal_transformers(
    stirred: dict[tuple[str, str], Checkpoint], size_hw: tuple[int, int]
) -> None:
    backbone = stirred["mask2former", "swin"].model.model.pixel_level_module.encoder
    pixels = noise(2, *size_hw)
    with torch.inference_mode():
        for ours, theirs in zip(swin_features(backbone, pixels), backbone(pixels).feature_maps, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shapes", [[(5, 7), (3, 4), (1, 2)], [(1, 1)], [(9, 2), (4, 1)]], ids=str)
@pytest.mark.parametrize("sampled", [deformable_attention, grid_sampled])
def test_deformable_attention_and_its_gradients_equal_transformers(
    shapes: list[tuple[int, int]], sampled: Callable[..., Tensor]
) -> None:
    from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

    generator = torch.Generator().manual_seed(1)
    pixels = sum(height * width for height, width in shapes)
    value = torch.randn(2, pixels, 3, 8, generator=generator).requires_grad_()
    # from far outside, over the edges, to the middle
    locations = (torch.rand(2, 11, 3, len(shapes), 4, 2, generator=generator) * 2 - 0.5).requires_grad_()
    weights = torch.rand(2, 11, 3, len(shapes), 4, generator=generator).requires_grad_()
    inputs = (value, locations, weights)
    theirs = multi_scale_deformable_attention(value, shapes, locations, weights)
    ours = sampled(value, shapes, locations, weights)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    upstream = torch.randn(theirs.shape, generator=generator)
    for mine, his in zip(
        torch.autograd.grad(ours, inputs, upstream),
        torch.autograd.grad(theirs, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, his, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", BUILDERS)
def test_accelerate_model_changes_one_model_and_can_be_undone(
    stirred: dict[tuple[str, str], Checkpoint], family: str
) -> None:
    plain = stirred[family, "resnet"].model
    model = copy.deepcopy(plain)
    before = {type(module) for module in model.modules()}
    changed = accelerate_model(model)
    assert changed == len(model.model.pixel_level_module.decoder.encoder.layers)
    assert accelerate_model(model) == 0
    assert {type(module) for module in plain.modules()} == before
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert restore_model(model) == changed
    assert {type(module) for module in model.modules()} == before


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_accelerate_model_copies_give_the_same(
    stirred: dict[tuple[str, str], Checkpoint], family: str, copied: Callable[[Any], Any]
) -> None:
    plain = stirred[family, "resnet"]
    model = copy.deepcopy(plain.model)
    accelerate_model(model)
    again = copied(model)
    assert {type(module) for module in again.modules()} == {type(module) for module in model.modules()}
    theirs, ours = (call(replace(plain, model=one), noise(1, 64, 96), PLAIN) for one in (plain.model, again))
    torch.testing.assert_close(ours.masks_queries_logits, theirs.masks_queries_logits, atol=1e-4, rtol=1e-4)


def test_load_checkpoint_accelerated_saves_as_before(tiny: Checkpoint, tmp_path: Path) -> None:
    folder = save_checkpoint(tiny, tmp_path / "first")
    saved = [
        save_checkpoint(load_checkpoint(folder, device="cpu", plan=plan), tmp_path / str(number))
        for number, plan in enumerate((PLAIN, FAST))
    ]
    for file in saved[0].iterdir():
        assert file.read_bytes() == (saved[1] / file.name).read_bytes()


def test_accelerate_model_other_family_is_left_alone() -> None:
    model = nn.Linear(2, 2)
    model.config = type("Config", (), {"model_type": "eomt"})()  # type: ignore[assignment]
    assert accelerate_model(model) == 0
    assert restore_model(model) == 0


@pytest.mark.parametrize("part", source_check.CHECKED)
def test_is_replaceable_installed_transformers_is_known(part: str) -> None:
    assert source_check.is_replaceable(part)


@pytest.fixture
def unknown_transformers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from maskloop.segmentation.fast import attention_modules as modules

    monkeypatch.setattr(source_check, "TESTED", dict.fromkeys(source_check.CHECKED, frozenset({"0" * 16})))
    caches = (source_check.is_replaceable, source_check.matches_tested, modules.fast_classes)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize(("device", "steps_aside"), [("cuda", True), ("cpu", False)])
def test_lean_output_kernel_is_refused_by_a_gpu_steps_aside_for_good(
    device: str,
    steps_aside: bool,
    served: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[Any] = []

    def refuse(*given: Any, **_: Any) -> None:
        asked.append(given)
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(forward_module, "_lean", lambda _compiled: refuse)
    monkeypatch.setattr(forward_module, "_REFUSED", set())
    pixels: Any = SimpleNamespace(device=torch.device(device))
    for _ in range(2):
        with nullcontext() if steps_aside else pytest.raises(RuntimeError, match="no kernel"):
            assert forward_module._lean_output(served.model, pixels, None, FAST) is None
    assert len(asked) == (1 if steps_aside else 2)
    assert caplog.text.count("no kernel image") == (1 if steps_aside else 0)


@pytest.mark.usefixtures("unknown_transformers")
def test_forward_pass_unknown_transformers_is_theirs_with_one_warning(
    served: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        outputs = [call(served, noise(1, 64, 64), FAST) for _ in range(2)]
        accelerate_model(copy.deepcopy(served.model))
    assert not any(isinstance(output, LeanOutput) for output in outputs)
    assert [record.facts["part"] for record in caplog.records] == [served.family, f"{served.family} sampling"]


def test_forward_pass_with_gradients_or_training_is_theirs(served: Checkpoint) -> None:
    words = None
    if served.task_text is not None:
        words = served.task_text.task_inputs(SegmentationTask.INSTANCE, 1, served.device)
    assert not isinstance(forward_pass(served.model, noise(1, 64, 64), None, words, plan=FAST), LeanOutput)


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("float32", "cuda", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
        ("bfloat16", "cuda", torch.bfloat16),
    ],
)
def test_inference_dtype_of_precision(
    precision: forward_module.Precision, device: str, expected: torch.dtype
) -> None:
    assert inference_dtype(precision, torch.device(device)) is expected


@pytest.mark.parametrize(("failures", "is_known"), [(0, True), (3, True), (source_check.TRIES, False)])
def test_matches_tested_reads_again_where_other_threads_parse(
    failures: int, is_known: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, left = source_check.fingerprint([source_check.fingerprint]), [failures]
    plain = source_check.fingerprint

    def interrupted(parts: Any) -> str:
        if left[0]:
            left[0] -= 1
            raise SystemError("AST constructor recursion depth mismatch (before=72, after=152)")
        return plain(parts)

    monkeypatch.setattr(source_check, "WAIT_S", 0.0)
    monkeypatch.setattr(source_check, "fingerprint", interrupted)
    source_check.matches_tested.cache_clear()
    assert source_check.matches_tested("sampling", (plain,), frozenset({known})) is is_known
    assert ("recursion depth mismatch" in caplog.text) is not is_known
    source_check.matches_tested.cache_clear()
