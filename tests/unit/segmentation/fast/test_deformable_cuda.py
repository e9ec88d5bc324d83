"""The fused kernel of deformable attention: interpreted against grid_sample, and built for a card."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from maskloop.segmentation.fast import deformable
from maskloop.segmentation.fast import deformable_cuda as fused
from maskloop.segmentation.fast.deformable_cuda import can_use_triton, is_off, triton_attention
from maskloop.segmentation.fast.grid_sample import Shapes, grid_sampled

KERNEL = "maskloop.segmentation.fast.triton_kernel"
needs_triton = pytest.mark.skipif(not fused.HAS_TRITON, reason="Triton is not built for this system")


@pytest.fixture(scope="module")
def kernel() -> Iterator[ModuleType]:
    """The module with its kernel interpreted, as `triton_attention` imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.delitem(sys.modules, KERNEL, raising=False)
        yield importlib.import_module(KERNEL)
        sys.modules.pop(KERNEL, None)


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why the kernel is off, in this test alone."""
    lines: list[str] = []
    monkeypatch.setattr(fused, "_FAILED", lines)
    return lines


def draw(
    shapes: Shapes, *, batch: int = 2, queries: int = 11, heads: int = 3, points: int = 4, width: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values, locations from outside over the edges to the middle, and weights."""
    generator = torch.Generator().manual_seed(1)
    split = (batch, queries, heads, len(shapes), points)
    pixels = sum(height * width for height, width in shapes)
    value = torch.randn(batch, pixels, heads, width, generator=generator)
    locations = torch.rand(*split, 2, generator=generator) * 2 - 0.5
    return value, locations, torch.rand(split, generator=generator)


LEVELS = [(5, 7), (3, 4), (1, 2)]
CASES = [
    pytest.param(LEVELS, {}, id="three levels"),
    pytest.param([(9, 2), (4, 1)], {"batch": 3}, id="two levels"),
    pytest.param([(1, 1)], {"batch": 1}, id="one pixel"),
    pytest.param(LEVELS, {"heads": 8, "width": 32, "queries": 9}, id="as published"),
    pytest.param([(4, 6)], {"width": 5}, id="odd head width"),
    pytest.param([(4, 6)], {"width": 1, "heads": 1, "points": 1}, id="one number"),
    pytest.param([(2, 3)], {"width": 1500, "queries": 2}, id="wide head"),
    pytest.param(LEVELS, {"queries": 0}, id="no queries"),
    pytest.param(LEVELS, {"batch": 0}, id="no images"),
]


@needs_triton
@pytest.mark.parametrize(("shapes", "sizes"), CASES)
def test_fused_attention_equals_grid_sample(
    kernel: ModuleType, failed: list[str], shapes: Shapes, sizes: dict[str, int]
) -> None:
    value, locations, weights = draw(shapes, **sizes)
    ours = triton_attention(value, shapes, locations, weights)
    assert not failed
    if not ours.numel():
        assert ours.shape == (len(value), locations.shape[1], value.shape[2] * value.shape[3])
        return
    torch.testing.assert_close(ours, grid_sampled(value, shapes, locations, weights), atol=1e-5, rtol=1e-5)
    by_rows = deformable.deformable_attention(value, shapes, locations, weights)
    torch.testing.assert_close(ours, by_rows, atol=1e-5, rtol=1e-5)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("weights_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fused_attention_half_values_sum_in_float32(
    kernel: ModuleType, failed: list[str], dtype: torch.dtype, weights_dtype: torch.dtype
) -> None:
    value, locations, weights = draw(LEVELS)
    value, weights = value.to(dtype), weights.to(weights_dtype)
    exact = grid_sampled(value.double(), LEVELS, locations.double(), weights.double())
    ours = triton_attention(value, LEVELS, locations, weights)
    assert not failed
    assert ours.dtype is dtype
    torch.testing.assert_close(ours, exact.to(dtype), atol=1e-4, rtol=torch.finfo(dtype).eps)


@needs_triton
@pytest.mark.parametrize("place", [-1e30, -3.0, 4.0, 1e30, float("inf"), -float("inf")])
def test_fused_attention_far_outside_is_zero(kernel: ModuleType, failed: list[str], place: float) -> None:
    value, locations, weights = draw(LEVELS)
    locations[..., 0] = place
    ours = triton_attention(value, LEVELS, locations, weights)
    assert not failed
    assert not ours.any()


@needs_triton
def test_fused_attention_level_without_pixels_adds_nothing(kernel: ModuleType, failed: list[str]) -> None:
    value, locations, weights = draw([(5, 7), (3, 4)])
    expected = triton_attention(value, [(5, 7), (3, 4)], locations, weights)
    more = torch.cat((locations, locations[:, :, :, :1]), 3), torch.cat((weights, weights[:, :, :, :1]), 3)
    assert torch.equal(triton_attention(value, [(5, 7), (3, 4), (0, 6)], *more), expected)
    assert not failed


@needs_triton
def test_fused_attention_strided_inputs_equal_dense(kernel: ModuleType, failed: list[str]) -> None:
    value, locations, weights = draw(LEVELS)
    expected = triton_attention(value, LEVELS, locations, weights)
    turned = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in (value, locations, weights)]
    assert torch.equal(triton_attention(turned[0], LEVELS, turned[1], turned[2]), expected)
    assert not failed


@needs_triton
def test_fused_attention_more_numbers_than_32_bits_count(
    kernel: ModuleType, failed: list[str], tmp_path: Path
) -> None:
    heads, width, shape_hw = 8, 128, (1500, 1400)  # the pixels' last numbers lie past 2 ** 31
    pixels = shape_hw[0] * shape_hw[1]
    sparse = tmp_path / "values"
    flat = torch.from_file(str(sparse), shared=True, size=pixels * heads * width, dtype=torch.float16)
    assert flat.numel() > 2**31
    value = flat.view(1, pixels, heads, width)
    value[0, -1] = torch.arange(heads)[:, None] + 1.0
    locations = torch.tensor([1399.5 / 1400, 1499.5 / 1500]).expand(1, 1, heads, 1, 1, 2)
    ours = triton_attention(value, [shape_hw], locations, torch.ones(1, 1, heads, 1, 1))
    assert not failed
    torch.testing.assert_close(
        ours.view(heads, width).float(),
        (torch.arange(heads)[:, None] + 1.0).expand(-1, width),
        atol=1e-2,
        rtol=1e-3,
    )


@needs_triton
def test_fused_attention_compiled_is_one_operator_of_a_whole_graph(
    kernel: ModuleType, failed: list[str]
) -> None:
    value, locations, weights = draw(LEVELS)

    def doubled(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return 2 * triton_attention(value, LEVELS, locations, weights)

    with torch.inference_mode():
        compiled = torch.compile(doubled, backend="aot_eager", fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(value, locations, weights), doubled(value, locations, weights))
    assert not failed


@needs_triton
def test_fused_attention_operator_is_described_as_it_behaves(kernel: ModuleType, failed: list[str]) -> None:
    value, locations, weights = draw(LEVELS)
    sizes = [size for shape_hw in LEVELS for size in shape_hw]
    torch.library.opcheck(
        torch.ops.maskloop.deformable_attention.default,
        (value, sizes, locations, weights),
        test_utils=("test_schema", "test_faketensor"),
    )
    assert not failed


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to find C compiler"), ImportError("no triton")], ids=["build", "import"]
)
def test_fused_attention_kernel_fails_samples_the_grid_and_warns_once(
    monkeypatch: pytest.MonkeyPatch, failed: list[str], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(*_: Any) -> Tensor:
        raise error

    stand_in = ModuleType(KERNEL)
    stand_in.launch_attend = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, KERNEL, stand_in)
    value, locations, weights = draw(LEVELS)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ours = triton_attention(value, LEVELS, locations, weights)
    assert torch.equal(ours, grid_sampled(value, LEVELS, locations, weights))
    assert is_off()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(error) in caplog.text


def test_fused_attention_out_of_memory_is_not_the_kernels_fault(
    monkeypatch: pytest.MonkeyPatch, failed: list[str]
) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    stand_in = ModuleType(KERNEL)
    stand_in.launch_attend = full  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, KERNEL, stand_in)
    with pytest.raises(torch.OutOfMemoryError):
        triton_attention(*draw(LEVELS)[:1], LEVELS, *draw(LEVELS)[1:])
    assert not failed


class _Card:
    """Stands for a tensor on a device that this machine lacks."""

    def __init__(self, kind: str, dtype: torch.dtype, gradient: bool) -> None:
        self.device, self.dtype, self.requires_grad = torch.device(kind), dtype, gradient


@pytest.mark.parametrize(
    ("kind", "dtype", "gradient", "triton", "expected"),
    [
        pytest.param("cuda", torch.bfloat16, False, True, True, id="predicting"),
        pytest.param("cuda", torch.float32, True, True, False, id="training"),
        pytest.param("cuda", torch.float64, False, True, False, id="double"),
        pytest.param("cuda", torch.float32, False, False, False, id="no Triton"),
        pytest.param("cpu", torch.float32, False, True, False, id="CPU"),
        pytest.param("mps", torch.float32, False, True, False, id="other device"),
    ],
)
def test_can_use_triton_by_device_dtype_and_gradient(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    dtype: torch.dtype,
    gradient: bool,
    triton: bool,
    expected: bool,
) -> None:
    monkeypatch.setattr(fused, "HAS_TRITON", triton)
    tensors: Any = [_Card(kind, dtype, gradient)] * 3
    assert can_use_triton(*tensors) is expected
    with torch.no_grad():
        assert can_use_triton(*tensors) is (expected or (gradient and triton))


@pytest.mark.parametrize("triton", [True, False], ids=["set", "not set"])
def test_deformable_attention_kernel_only_where_it_is_set(
    triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(deformable, "can_use_triton", lambda *_: True)
    monkeypatch.setattr(deformable, "triton_attention", lambda *inputs: calls.append(inputs))
    value, locations, weights = draw(LEVELS)
    deformable.deformable_attention(value, LEVELS, locations, weights, triton=triton)
    assert calls == ([(value, LEVELS, locations, weights)] if triton else [])


def test_grid_sampled_half_values_keep_exact_places() -> None:
    value, locations, weights = draw([(3, 128)])
    expected = grid_sampled(value, [(3, 128)], locations, weights)
    half = grid_sampled(value.bfloat16(), [(3, 128)], locations, weights)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.02)


BUILD = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from maskloop.segmentation.fast.triton_kernel import attend_kernel
fixed = dict(HEADS=8, LEVELS=3, POINTS=4, WIDTH=32, ROWS=32, COLUMNS=32)
signature = dict(
    value_bshd="*bf16", locations_bqhlp2="*fp32", weights_bqhlp="*fp32", output_bqhd="*bf16",
    heights_l=("fp32",) * 3, widths_l=("fp32",) * 3, pixels="i32", queries="i32", pairs="i32",
) | dict.fromkeys(fixed, "constexpr")
places = {(attend_kernel.arg_names.index(name),): value for name, value in fixed.items()}
aligned = {(place,): [["tt.divisibility", 16]] for place in range(4)}
source = ASTSource(fn=attend_kernel, signature=signature, constexprs=places, attrs=aligned)
built = triton.compile(source, target=GPUTarget("cuda", 90, 32))
assert built.asm["ptx"].count("ld.global.v4") == 3 * 4 * 4, "a neighbour is not one load of 16 bytes"
assert built.asm["cubin"]
"""


@needs_triton
def test_attend_kernel_builds_for_a_card_and_reads_16_bytes_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    built = subprocess.run(
        [sys.executable, "-c", BUILD], env=environment, capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stderr
