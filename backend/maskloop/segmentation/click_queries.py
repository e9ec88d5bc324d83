"""Click queries: a few queries made of the features at clicks, run through a model's own transformer decoder.

Their weights lie beside the plain ones in a checkpoint's folder. They only read the model: predictions are
the same with and without them. `interactive.click_tier` answers prompts by them, `learning.training` trains
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from maskloop.errors import ModelLoadError, first_line
from maskloop.segmentation.fast.query_decoder import QueryDecoder, attend, self_attend

__all__ = [
    "MOST_PLACES",
    "NEGATIVE",
    "PART",
    "POSITIVE",
    "ClickQueries",
    "ClickStart",
    "Level",
    "attend_masked",
    "decode_clicks",
    "fitting_click_queries",
    "load_click_queries",
    "save_click_queries",
]

MOST_PLACES = 8  # clicks that get queries of their own; the first and the last ones
PART = 2048  # tokens that become float32 at once
BOTTLENECK = 4  # adapters have so many times fewer values than queries
OBJECT, POSITIVE, NEGATIVE = range(3)
FILE = "click_queries.safetensors"  # in a checkpoint's folder
FAMILIES = ("mask2former", "oneformer")


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """One level that queries attend to, with S = h x w tokens; any floating dtype."""

    tokens_sc: Tensor  # with the level's embedding
    rows_hd: Tensor  # float32: the first half of a token's position is its row's,
    columns_wd: Tensor  # the second its column's
    pixels_sc: Tensor  # (S, mask_dim): pixel embeddings at the level's size
    size_hw: tuple[int, int]

    @cached_property
    def positions_sc(self) -> Tensor:
        """The positions of all tokens, float32 (S, C)."""
        return self.positions_at(torch.arange(len(self.tokens_sc), device=self.rows_hd.device))

    def positions_at(self, cells: Tensor) -> Tensor:
        """Return the positions of some tokens, float32 (..., C), by their numbers (...)."""
        width = self.size_hw[1]
        rows = torch.div(cells, width, rounding_mode="floor")
        return torch.cat([self.rows_hd[rows], self.columns_wd[cells % width]], dim=-1)

    def logits(self, embeddings_kc: Tensor) -> Tensor:
        """Return the mask logits of a few mask embeddings, float32 (K, S)."""
        # a part at a time stays in the processor's cache while it is float32
        parts = torch.split(self.pixels_sc, PART)
        return torch.cat([embeddings_kc @ part_tc.float().T for part_tc in parts], dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClickStart:
    """What is known of K objects of one image before the decoder runs."""

    masks_ks: Tensor  # bool, cells of the finest level: where each object is first looked for
    places_kp2: Tensor  # float32, x and y in 0..1
    signs_kp: Tensor  # int64, POSITIVE or NEGATIVE, 0 where there is no click
    pixels_kpc: Tensor  # float32, pixel embeddings at the places
    states_kc: Tensor  # the state of the query that found it best so far; 0 for none


class ClickQueries(nn.Module):
    """Makes queries of clicks, and small changes of what the decoder makes of them."""

    def __init__(self, hidden: int, mask_dim: int, layers: int) -> None:
        """Args:
        hidden: channels of queries and tokens.
        mask_dim: channels of pixel embeddings.
        layers: of the decoder.
        """
        super().__init__()
        self.sizes = (hidden, mask_dim, layers)
        seen = hidden + mask_dim
        self.describe = nn.Sequential(
            nn.LayerNorm(seen), nn.Linear(seen, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.roles = nn.Embedding(3, hidden)
        self.carry = nn.Linear(hidden, hidden)
        self.place = nn.Linear(hidden, hidden)
        self.adapters = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, hidden // BOTTLENECK),
                nn.ReLU(),
                nn.Linear(hidden // BOTTLENECK, hidden),
            )
            for _ in range(layers)
        )
        self.refine = nn.Sequential(
            nn.Linear(hidden + 2 * mask_dim, hidden), nn.ReLU(), nn.Linear(hidden, mask_dim)
        )
        nn.init.eye_(self.carry.weight)
        nn.init.normal_(self.roles.weight, std=0.02)
        for last in (*(adapter[-1] for adapter in self.adapters), self.refine[-1]):  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.zeros_(self.carry.bias)

    def queries(self, levels: Sequence[Level], start: ClickStart) -> tuple[Tensor, Tensor]:
        """Return the queries (K, 1 + P, C), the object's first, and their positions."""
        finest = levels[-1]
        pooled, placed = [], []
        for inside_s in start.masks_ks:
            cells_s = torch.nonzero(inside_s).flatten()
            seen = (one.index_select(0, cells_s).float() for one in (finest.tokens_sc, finest.pixels_sc))
            pooled.append(torch.cat([one_sc.mean(0) for one_sc in seen]))
            placed.append(finest.positions_at(cells_s).mean(0))
        cells_kp = _cells(start.places_kp2, finest.size_hw)
        clicked_kpc = torch.cat([finest.tokens_sc[cells_kp].float(), start.pixels_kpc], dim=2)
        content_kqc = self.describe(torch.cat([torch.stack(pooled)[:, None], clicked_kpc], dim=1))
        content_kqc = content_kqc + self.roles(functional.pad(start.signs_kp, (1, 0), value=OBJECT))
        carried_kc = self.carry(start.states_kc) * (start.states_kc != 0).any(1, keepdim=True)
        content_kqc = torch.cat([content_kqc[:, :1] + carried_kc[:, None], content_kqc[:, 1:]], dim=1)
        placed_kqc = torch.cat([torch.stack(placed)[:, None], finest.positions_at(cells_kp)], dim=1)
        return content_kqc, self.place(placed_kqc)

    def change(self, clicked_kc: Tensor, states_kc: Tensor) -> Tensor:
        """Return what is added to mask embeddings, (K, mask_dim), by what `_clicked_pixels` returns."""
        change_kc: Tensor = self.refine(torch.cat([states_kc, clicked_kc], dim=1))
        return change_kc


def _clicked_pixels(start: ClickStart) -> Tensor:
    """Return the mean pixel embeddings at clicks on and beside the objects, (K, 2 * mask_dim)."""
    means = []
    for sign in (POSITIVE, NEGATIVE):
        weights_kp1 = (start.signs_kp == sign).float()[..., None]
        means.append((start.pixels_kpc * weights_kp1).sum(1) / weights_kp1.sum(1).clamp(min=1))
    return torch.cat(means, dim=1)


Cross: TypeAlias = Callable[[Any, Tensor, Level, Tensor], Tensor]


def decode_clicks(
    clicks: ClickQueries,
    decoder: QueryDecoder,
    levels: Sequence[Level],
    start: ClickStart,
    cross: Cross | None = None,
) -> list[Tensor]:
    """Return the mask embeddings of K objects after each layer, (K, mask_dim).

    Args:
        clicks: the trained part.
        decoder: the model's, which is only read.
        levels: of the image, the smallest first.
        start: the objects; each has a cell where it is looked for.
        cross: attention to the tokens of a level, `attend_masked` by default.

    Source:
        Rana et al., "DynaMITe: Dynamic Query Bootstrapping for Multi-object Interactive Segmentation
        Transformer", ICCV 2023; masks as a first attention mask: Zhang et al., "MP-Former: Mask-Piloted
        Transformer for Image Segmentation", CVPR 2023.
    """
    queries_kqc, placed_kqc = clicks.queries(levels, start)
    clicked_kc = _clicked_pixels(start)
    lacking_kq1 = functional.pad(start.signs_kp == 0, (1, 0), value=False)[..., None]
    cross = attend_masked if cross is None else cross
    embeddings_kc: Tensor | None = None
    after = []
    for index, layer in enumerate(decoder.layers):
        level = levels[index % len(levels)]
        if embeddings_kc is None:
            seen_ks = _coarser(start.masks_ks, levels[-1].size_hw, level.size_hw)
        else:
            seen_ks = level.logits(embeddings_kc.detach()) > 0
        attended_kqc = cross(layer.cross, queries_kqc + placed_kqc, level, seen_ks)
        queries_kqc = layer.cross_norm(queries_kqc + attended_kqc)
        # a place without a click repeats the object's query, so that others see it no less for it
        queries_kqc = torch.where(lacking_kq1, queries_kqc[:, :1], queries_kqc)
        queries_kqc = layer.own_norm(queries_kqc + self_attend(layer.own, queries_kqc, placed_kqc))
        queries_kqc = layer.feed(queries_kqc)
        queries_kqc = queries_kqc + clicks.adapters[index](queries_kqc)
        normed_kc = decoder.norm(queries_kqc[:, 0])
        embeddings_kc = decoder.to_masks(normed_kc[None])[0] + clicks.change(clicked_kc, normed_kc)
        after.append(embeddings_kc)
    return after


def fitting_click_queries(model: Any, *, seed: int) -> ClickQueries | None:
    """Return click queries for a model with random weights; None for families that have no such decoder."""
    sizes = _sizes(model)
    if sizes is None:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClickQueries(*sizes)


def save_click_queries(clicks: ClickQueries, folder: Path, dtype: torch.dtype) -> None:
    """Write the weights beside a checkpoint's."""
    state = {
        name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in clicks.state_dict().items()
    }
    save_file(state, folder / FILE)


def load_click_queries(folder: Path, model: Any) -> ClickQueries | None:
    """Return what a checkpoint's folder holds for clicks, in float32 and eval mode; None for nothing.

    Args:
        folder: the checkpoint's.
        model: the checkpoint's.

    Raises:
        ModelLoadError: a damaged file, or one of another model.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    clicks = fitting_click_queries(model, seed=0)
    try:
        if clicks is None:
            raise ValueError(f"a model of {' or '.join(FAMILIES)}, got {model.config.model_type}")
        clicks.load_state_dict(load_file(path))
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise ModelLoadError(
            str(path),
            expected="weights that fit this model's decoder",
            got=first_line(exc),
            remedy="delete this file: clicks are then answered without it",
        ) from exc
    return clicks.float().eval()


def _sizes(model: Any) -> tuple[int, int, int] | None:
    """Return the channels of queries and of pixel embeddings, and the number of layers."""
    config = model.config
    if config.model_type not in FAMILIES or getattr(config, "pre_norm", False):
        return None
    mask_dim = config.mask_dim if config.model_type == "oneformer" else config.mask_feature_size
    return config.hidden_dim, mask_dim, len(model.model.transformer_module.decoder.layers)


def attend_masked(attention: Any, queries_kqc: Tensor, level: Level, seen_ks: Tensor) -> Tensor:
    """Return attention of each object's queries to the tokens that it sees, (K, Q, C); to all for none."""
    objects, queries, channels = queries_kqc.shape
    seen_ks = seen_ks | ~seen_ks.any(1, keepdim=True)
    seen_1qs = seen_ks[:, None].expand(-1, queries, -1).flatten(0, 1)[None]
    flat_1qc = queries_kqc.reshape(1, objects * queries, channels)
    keys_sc = level.tokens_sc + level.positions_sc
    out_1qc = attend(attention, flat_1qc, keys_sc[None], level.tokens_sc[None], seen_1qs)
    return out_1qc.view(objects, queries, channels)


def _coarser(masks_ks: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Return bool (K, S): cells of another level that masks touch."""
    planes_k1hw = masks_ks.view(len(masks_ks), 1, *from_hw).float()
    return functional.adaptive_max_pool2d(planes_k1hw, to_hw).flatten(1) > 0


def _cells(places_kp2: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Return the numbers of the cells in which places lie."""
    height, width = size_hw
    columns_kp = (places_kp2[..., 0] * width).long().clamp(0, width - 1)
    rows_kp = (places_kp2[..., 1] * height).long().clamp(0, height - 1)
    return rows_kp * width + columns_kp
