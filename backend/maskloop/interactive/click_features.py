"""What click queries read of an image: the tokens that the decoder attends to, kept in half precision."""

from __future__ import annotations

import copy
import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.interactive.few_rows import for_few_rows
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.click_queries import PART, ClickQueries, ClickStart, Level, decode_clicks
from maskloop.segmentation.fast.model_forward import LeanOutput, query_decoder
from maskloop.segmentation.fast.pixel_decoder import sine_axes
from maskloop.segmentation.fast.query_decoder import QueryDecoder
from maskloop.segmentation.predict import RawOutput

__all__ = ["ClickFeatures", "click_features"]

GATHERED = 0.5  # of the tokens: fewer than that are copied
_RUNNERS: weakref.WeakKeyDictionary[Any, _Runner] = weakref.WeakKeyDictionary()  # by the model


@dataclass(frozen=True, kw_only=True, eq=False)
class _Runner:
    """A model's decoder with its click queries, on the CPU."""

    clicks: ClickQueries
    decoder: QueryDecoder
    embedder: Any  # of positions


@dataclass(frozen=True, kw_only=True, eq=False)
class ClickFeatures:
    """One image's tokens, cut to the image's part of the input."""

    tokens_lhwc: tuple[Tensor, ...]  # float16, the smallest level first
    pixels_lsc: tuple[Tensor, ...]  # float16, pixel embeddings at the size of each level
    padded_l: tuple[tuple[int, int], ...]  # the levels' sizes with padding, which positions count in
    states_nc: Tensor  # float32 (N, C), of the queries
    runner: _Runner

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, without the model."""
        kept = (self.states_nc, *self.tokens_lhwc, *self.pixels_lsc)
        return sum(tensor.nbytes for tensor in kept)

    @property
    def finest_hw(self) -> tuple[int, int]:
        """The size of the finest level."""
        return self.tokens_lhwc[-1].shape[0], self.tokens_lhwc[-1].shape[1]

    def decode(self, start: ClickStart) -> Tensor:
        """Return the mask embeddings of objects, float32 (K, C)."""
        runner = self.runner
        levels = [
            _level(tokens_hwc, pixels_sc, padded_hw, runner.embedder)
            for tokens_hwc, pixels_sc, padded_hw in zip(
                self.tokens_lhwc, self.pixels_lsc, self.padded_l, strict=True
            )
        ]
        return decode_clicks(runner.clicks, runner.decoder, levels, start, attend_few)[-1]


def click_features(
    checkpoint: Checkpoint, raw: RawOutput, states_nc: Tensor, pixels_chw: Tensor
) -> ClickFeatures | None:
    """Return what click queries read of an image; None where the model has not been trained for clicks.

    Args:
        checkpoint: the model.
        raw: of the image, whose output is a LeanOutput.
        states_nc: of the queries.
        pixels_chw: float32, its pixel embeddings.
    """
    if checkpoint.click_queries is None:
        return None
    output: LeanOutput = raw.output
    tokens, pixels = [], []
    for tokens_bsc, (height, width) in zip(output.level_tokens, output.level_sizes, strict=True):
        tokens_hwc = tokens_bsc[raw.index].unflatten(0, (height, width))  # type: ignore[no-untyped-call]
        rows, columns = (
            max(1, math.ceil(side * valid / padded - 1e-6))
            for side, valid, padded in zip((height, width), raw.valid_hw, raw.padded_hw, strict=True)
        )
        tokens.append(tokens_hwc[:rows, :columns].half().cpu().clone())
        resized_1chw = functional.interpolate(pixels_chw[None], (rows, columns), mode="bilinear")
        pixels.append(resized_1chw[0].flatten(1).T.half().contiguous())
    return ClickFeatures(
        tokens_lhwc=tuple(tokens),
        pixels_lsc=tuple(pixels),
        padded_l=output.level_sizes,
        states_nc=states_nc.cpu(),
        runner=_runner(checkpoint),
    )


def attend_few(attention: Any, queries_kqc: Tensor, level: Level, seen_ks: Tensor) -> Tensor:
    """Return what `attend_masked` does: keys and values of the tokens that are seen are never made.

    A few queries are projected to the tokens instead, as the product with a key is the product of the
    projected query and the token, and of its position: its row's and its column's part.
    """
    seen_ks = seen_ks | ~seen_ks.any(1, keepdim=True)
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    heads = attention.num_heads
    channels = level.tokens_sc.shape[1]
    out = []
    for queries_qc, seen_s in zip(queries_kqc, seen_ks, strict=True):
        asked_qhd = functional.linear(queries_qc, weights[0], biases[0]).unflatten(1, (heads, -1))  # type: ignore[no-untyped-call]
        key_hdc = weights[1].view(heads, -1, channels)
        # the keys' bias adds the same to all tokens, which the softmax takes out
        asked_hqc = torch.einsum("qhd,hdc->hqc", asked_qhd, key_hdc) / math.sqrt(asked_qhd.shape[2])
        read_hqc = _read(asked_hqc.flatten(0, 1), level, seen_s).view(heads, -1, channels)
        value_hdc = weights[2].view(heads, -1, channels)
        read_qhd = torch.einsum("hqc,hdc->qhd", read_hqc, value_hdc)
        out.append(attention.out_proj(read_qhd.flatten(1) + biases[2]))
    return torch.stack(out)


def _read(asked_ac: Tensor, level: Level, seen_s: Tensor) -> Tensor:
    """Return the mean (A, C) of the tokens that are seen, by how well each answers what is asked."""
    of_rows_ad, of_columns_ad = asked_ac.split((level.rows_hd.shape[1], level.columns_wd.shape[1]), dim=1)  # type: ignore[no-untyped-call]
    of_rows_ah1 = (of_rows_ad @ level.rows_hd.T)[:, :, None]
    scores_as = (of_rows_ah1 + (of_columns_ad @ level.columns_wd.T)[:, None]).flatten(1)
    chosen_t = torch.nonzero(seen_s).flatten()
    if len(chosen_t) < GATHERED * len(seen_s):
        seen_tc = level.tokens_sc.index_select(0, chosen_t).float()
        scores_at: Tensor = scores_as.index_select(1, chosen_t).addmm_(asked_ac, seen_tc.T)
        return scores_at.softmax(dim=-1) @ seen_tc
    # to look at all of them costs less than to copy most
    scores_as.masked_fill_(~seen_s, float("-inf"))
    parts = torch.split(level.tokens_sc, PART)
    float_tc = torch.empty(min(PART, len(seen_s)), asked_ac.shape[1])  # stays in the processor's cache
    for part_tc, scores_at in zip(parts, torch.split(scores_as, PART, dim=1), strict=True):
        scores_at.addmm_(asked_ac, float_tc[: len(part_tc)].copy_(part_tc).T)
    shares_as = scores_as.softmax(dim=-1)
    read_ac = torch.zeros_like(asked_ac)
    for part_tc, shares_at in zip(parts, torch.split(shares_as, PART, dim=1), strict=True):
        read_ac.addmm_(shares_at, float_tc[: len(part_tc)].copy_(part_tc))
    return read_ac


def _level(tokens_hwc: Tensor, pixels_sc: Tensor, padded_hw: tuple[int, int], embedder: Any) -> Level:
    height, width = tokens_hwc.shape[:2]
    rows_hd, columns_wd = sine_axes(embedder, padded_hw, torch.device("cpu"))
    return Level(
        tokens_sc=tokens_hwc.flatten(0, 1),
        rows_hd=rows_hd[:height],
        columns_wd=columns_wd[:width],
        pixels_sc=pixels_sc,
        size_hw=(height, width),
    )


def _runner(checkpoint: Checkpoint) -> _Runner:
    assert checkpoint.click_queries is not None
    model = checkpoint.model
    found = _RUNNERS.get(model)
    if found is None or found.clicks is not checkpoint.click_queries:
        module = model.model.transformer_module
        # features lie on the CPU: a few queries are not worth their way to another device
        decoder = module.decoder if checkpoint.device.type == "cpu" else copy.deepcopy(module.decoder).cpu()
        embedder = module.position_embedder
        found = _Runner(
            clicks=checkpoint.click_queries.eval(),
            decoder=query_decoder(for_few_rows(decoder)),
            embedder=embedder,
        )
        _RUNNERS[model] = found
    return found
