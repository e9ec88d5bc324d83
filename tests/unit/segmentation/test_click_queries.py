"""Queries made of clicks: kept beside the plain weights, and run by the model's own decoder."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from maskloop.errors import ModelLoadError
from maskloop.interactive.click_features import attend_few
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint
from maskloop.segmentation.click_queries import (
    FILE,
    PART,
    ClickStart,
    Level,
    attend_masked,
    decode_clicks,
    fitting_click_queries,
)
from maskloop.segmentation.fast.model_forward import decoder_parts
from maskloop.segmentation.fast.pixel_decoder import sine_axes, sine_positions
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER

SIZES_HW = ((2, 3), (4, 6), (8, 12))


@pytest.fixture(params=[BASE_MODEL, BASE_ONEFORMER], ids=["mask2former", "oneformer"], scope="module")
def checkpoint(request):
    return load_checkpoint(request.param, device="cpu")


def _levels(channels, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def tokens(size_hw):
        return torch.randn(size_hw[0] * size_hw[1], channels, generator=draw)

    return [
        Level(
            tokens_sc=tokens(one),
            rows_hd=torch.randn(one[0], channels // 2, generator=draw),
            columns_wd=torch.randn(one[1], channels // 2, generator=draw),
            pixels_sc=tokens(one),
            size_hw=one,
        )
        for one in SIZES_HW
    ]


def _start(channels, objects=3, places=2):
    draw = torch.Generator().manual_seed(1)
    masks_ks = torch.rand(objects, 96, generator=draw) > 0.7
    return ClickStart(
        masks_ks=masks_ks,
        places_kp2=torch.rand(objects, places, 2, generator=draw),
        signs_kp=torch.tensor([[1, 2], [1, 0], [0, 0]]),
        pixels_kpc=torch.randn(objects, places, channels, generator=draw),
        states_kc=torch.randn(objects, channels, generator=draw) * torch.tensor([[1.0], [0.0], [1.0]]),
    )


def _new_weights(checkpoint):
    clicks = fitting_click_queries(checkpoint.model, seed=0)
    with torch.no_grad():  # the last layers start at 0, which would hide them
        for parameter in clicks.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    return clicks.eval()


@torch.no_grad()
def test_decode_clicks_without_keys_and_values_is_the_same(checkpoint):
    decoder, _ = decoder_parts(checkpoint.model)
    clicks, levels, start = _new_weights(checkpoint), _levels(64), _start(64)
    usual = decode_clicks(clicks, decoder, levels, start, attend_masked)
    few = decode_clicks(clicks, decoder, levels, start, attend_few)
    for one, other in zip(usual, few, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 1.0])
def test_attend_few_large_level_in_half_precision_is_masked_attention(checkpoint, share):
    decoder, _ = decoder_parts(checkpoint.model)
    attention, size_hw = decoder.layers[0].cross, (50, 90)
    draw = torch.Generator().manual_seed(3)
    level = Level(
        tokens_sc=torch.randn(size_hw[0] * size_hw[1], 64, generator=draw).half(),
        rows_hd=torch.randn(size_hw[0], 32, generator=draw),
        columns_wd=torch.randn(size_hw[1], 32, generator=draw),
        pixels_sc=torch.randn(size_hw[0] * size_hw[1], 64, generator=draw).half(),
        size_hw=size_hw,
    )
    assert len(level.tokens_sc) > 2 * PART  # the last part is a smaller one
    seen_ks = torch.rand(2, len(level.tokens_sc), generator=draw) < share
    queries_kqc = torch.randn(2, 3, 64, generator=draw)
    usual = attend_masked(attention, queries_kqc, replace(level, tokens_sc=level.tokens_sc.float()), seen_ks)
    torch.testing.assert_close(
        attend_few(attention, queries_kqc, level, seen_ks), usual, rtol=1e-4, atol=1e-5
    )
    usual_ks = queries_kqc[0] @ level.pixels_sc.float().T
    torch.testing.assert_close(level.logits(queries_kqc[0]), usual_ks, rtol=1e-4, atol=1e-4)


def test_level_positions_are_those_of_the_family(checkpoint):
    embedder, size_hw = checkpoint.model.model.transformer_module.position_embedder, (5, 7)
    rows_hd, columns_wd = sine_axes(embedder, size_hw, torch.device("cpu"))
    level = Level(
        tokens_sc=torch.zeros(35, 64),
        rows_hd=rows_hd,
        columns_wd=columns_wd,
        pixels_sc=torch.zeros(35, 64),
        size_hw=size_hw,
    )
    torch.testing.assert_close(level.positions_sc, sine_positions(embedder, size_hw, torch.device("cpu"))[0])


@torch.no_grad()
def test_decode_clicks_an_object_does_not_depend_on_the_others(checkpoint):
    decoder, _ = decoder_parts(checkpoint.model)
    clicks, levels, start = _new_weights(checkpoint), _levels(64), _start(64)
    together = decode_clicks(clicks, decoder, levels, start)[-1]
    alone = ClickStart(**{name: value[1:2] for name, value in vars(start).items()})
    torch.testing.assert_close(decode_clicks(clicks, decoder, levels, alone)[-1], together[1:2])


def test_checkpoint_keeps_click_queries_beside_plain_weights(checkpoint, tmp_path):
    taught = replace(checkpoint, click_queries=_new_weights(checkpoint))
    folder = save_checkpoint(taught, tmp_path / "taught")
    plain = save_checkpoint(replace(checkpoint, click_queries=None), tmp_path / "plain")
    assert (folder / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    with safe_open(folder / FILE, "pt") as file:
        assert set(file.keys()) == set(taught.click_queries.state_dict())
    loaded = load_checkpoint(folder, device="cpu").click_queries
    for name, value in taught.click_queries.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)
    assert load_checkpoint(plain, device="cpu").click_queries is None
    _model, report = type(checkpoint.model).from_pretrained(folder, output_loading_info=True)
    assert not report["unexpected_keys"]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(b"no tensors"), id="damaged"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-100]), id="cut short"),
        pytest.param(
            lambda path: shutil.copy(path.with_name("model.safetensors"), path), id="of something else"
        ),
    ],
)
def test_checkpoint_click_queries_that_do_not_fit_are_named(checkpoint, tmp_path, spoil):
    folder = save_checkpoint(replace(checkpoint, click_queries=_new_weights(checkpoint)), tmp_path / "c")
    spoil(folder / FILE)
    with pytest.raises(ModelLoadError, match="delete this file"):
        load_checkpoint(folder, device="cpu")
