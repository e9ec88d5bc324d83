"""Click queries are trained beside a model: they read what its forward pass made, and give it no gradient.

The plain weights, and so predictions, are bit for bit those of a training without them: own optimiser, own
random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskloop.interactive.image_features import KEPT_LAYERS
from maskloop.interactive.query_choice import CLASS_POWER, LEAST_AT_CLICK, QUALITY_POWER
from maskloop.learning.training.click_simulation import Given, disc, next_given, start_of
from maskloop.learning.training.schedule import rate_factor
from maskloop.segmentation.click_queries import (
    MOST_PLACES,
    NEGATIVE,
    POSITIVE,
    ClickQueries,
    ClickStart,
    Level,
    decode_clicks,
)
from maskloop.segmentation.fast.model_forward import decoder_inputs, decoder_parts
from maskloop.segmentation.fast.pixel_decoder import sine_axes
from maskloop.segmentation.fast.query_decoder import QueryDecoder
from maskloop.types import BoolMask

__all__ = ["ClickTrainer"]

RATE, DECAY, WARMUP, CLIP = 2e-3, 0.01, 50, 1.0
OBJECTS = 3  # of an image in a step
ROUNDS = 2  # answers for each object; the second one corrects the first
LEAST_CELLS = 3  # of an object at the size of the masks
FORGOTTEN = 0.25  # share of objects whose best query is left out, as if none had found them
RECENT = 100  # steps that the gain is measured over


@dataclass(eq=False)
class _Seen:
    """What a forward pass of the model made."""

    features: Sequence[Tensor] = ()  # (B, C, h, w) of the levels, the smallest first
    pixels_bchw: Tensor | None = None
    states: dict[int, Tensor] = field(default_factory=dict)  # (Q, B, C) after each of the last layers


class ClickTrainer:
    """Trains click queries on the forward passes of a Mask2Former or OneFormer that it observes."""

    def __init__(self, model: Any, clicks: ClickQueries, *, steps: int, seed: int) -> None:
        """Args:
        model: of one of the two families; it is not changed.
        clicks: trained in place.
        steps: planned.
        seed: of what is simulated.
        """
        self.clicks = clicks
        self._model, self._steps, self._seed = model, steps, seed
        self._optimizer = torch.optim.AdamW(clicks.parameters(), lr=RATE, weight_decay=DECAY)
        self._seen = _Seen()
        self._gains: list[tuple[float, float]] = []  # mean IoU of the best queries, of the first answers

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Keep what each forward pass of the model makes, while the context lasts."""
        module = self._model.model.transformer_module

        def before(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
            features, pixels_bchw = decoder_inputs(args, kwargs)
            self._seen = _Seen(features=[one.detach() for one in features], pixels_bchw=pixels_bchw.detach())

        def keep(number: int) -> Any:
            def hook(_: Any, args: Any, output: Any) -> None:
                self._seen.states[number] = output[0].detach()

            return hook

        hooks = [module.register_forward_pre_hook(before, with_kwargs=True)]
        layers = list(module.decoder.layers)[-KEPT_LAYERS:]
        hooks += [layer.register_forward_hook(keep(number)) for number, layer in enumerate(layers)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._seen = _Seen()

    def step(self, index_bhw: Tensor, number: int) -> float | None:
        """Train on the objects of the last forward pass; None where it has none.

        Args:
            index_bhw: int, the object of each pixel, from 1.
            number: of the step; the same number simulates the same.
        """
        seen, self._seen = self._seen, _Seen()
        if seen.pixels_bchw is None:
            return None
        rng = np.random.default_rng([self._seed, 3, number])
        for group in self._optimizer.param_groups:
            group["lr"] = RATE * rate_factor(number, warmup=min(WARMUP, self._steps // 4), steps=self._steps)
        with _frozen(self._model), torch.autocast(index_bhw.device.type, enabled=False):
            decoder, classify = decoder_parts(self._model)
            losses = []
            for image, index_hw in enumerate(index_bhw):
                scene = _scene(self._model, seen, image, decoder, classify)
                losses += self._image_losses(scene, decoder, index_hw, rng)
            if not losses:
                return None
            loss = torch.stack(losses).mean()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.clicks.parameters(), CLIP)
        if bool(torch.isfinite(norm)):
            self._optimizer.step()
        return float(loss.detach())

    @property
    def gain(self) -> float | None:
        """How much better first answers were than the best query, in IoU over the last steps."""
        recent = self._gains[-RECENT:]
        return None if not recent else float(np.mean([after - before for before, after in recent]))

    def state_dict(self) -> dict[str, Any]:
        """Return what a killed training continues from."""
        return {
            "clicks": self.clicks.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "gains": self._gains[-RECENT:],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.clicks.load_state_dict(state["clicks"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._gains = [(float(before), float(after)) for before, after in state["gains"]]

    def _image_losses(
        self, scene: _Scene, decoder: QueryDecoder, index_hw: Tensor, rng: np.random.Generator
    ) -> list[Tensor]:
        soft_khw = _objects(index_hw, scene.size_hw, rng)
        if not len(soft_khw):
            return []
        truths = list((soft_khw > 0.5).cpu().numpy())
        givens = [start_of(truth_hw, rng) for truth_hw in truths]
        best = [None if rng.random() < FORGOTTEN else scene.best_query(given) for given in givens]
        firsts = [
            given.mask_hw if given.mask_hw is not None else scene.first_mask(given, query)
            for given, query in zip(givens, best, strict=True)
        ]
        losses = []
        for number in range(ROUNDS):
            start = scene.start(givens, firsts, best)
            embeddings = decode_clicks(self.clicks, decoder, scene.levels, start)
            losses += [_mask_loss(scene, one_kc, soft_khw) for one_kc in embeddings]
            with torch.no_grad():
                answers = list((scene.masks(embeddings[-1]) > 0).cpu().numpy())
            if number == 0:
                self._note(scene, truths, best, givens, answers)
            givens = [
                next_given(given, truth_hw, answer_hw, rng)
                for given, truth_hw, answer_hw in zip(givens, truths, answers, strict=True)
            ]
            firsts = [
                given.mask_hw if given.mask_hw is not None else first_hw
                for given, first_hw in zip(givens, firsts, strict=True)
            ]
        return losses

    def _note(
        self,
        scene: _Scene,
        truths: Sequence[BoolMask],
        best: Sequence[int | None],
        givens: Sequence[Given],
        answers: Sequence[BoolMask],
    ) -> None:
        pairs = []
        for truth_hw, query, given, answer_hw in zip(truths, best, givens, answers, strict=True):
            if query is not None and len(given.clicks) == 1:
                before_hw = (scene.query_mask(query) > 0).cpu().numpy()
                pairs.append((_iou(before_hw, truth_hw), _iou(answer_hw, truth_hw)))
        if pairs:
            before, after = np.mean(pairs, axis=0)
            self._gains = [*self._gains[1 - RECENT :], (float(before), float(after))]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scene:
    """One image of a step."""

    levels: Sequence[Level]
    pixels_chw: Tensor
    states_nc: Tensor
    embeddings_nc: Tensor
    scores_n: Tensor  # what a query is worth, without where it is

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.pixels_chw.shape[1], self.pixels_chw.shape[2]

    def masks(self, embeddings_kc: Tensor) -> Tensor:
        return torch.einsum("kc,chw->khw", embeddings_kc, self.pixels_chw)

    def query_mask(self, query: int) -> Tensor:
        return self.masks(self.embeddings_nc[query : query + 1])[0]

    def best_query(self, given: Given) -> int | None:
        """Return the query that a first click chooses, as where clicks are answered."""
        if not given.clicks:
            return None
        row, column = given.clicks[0].cell(self.size_hw)
        at_n = (self.embeddings_nc @ self.pixels_chw[:, row, column]).sigmoid()
        scores_n = self.scores_n * at_n * (at_n > LEAST_AT_CLICK)
        best = int(scores_n.argmax())
        return best if float(scores_n[best]) > 0 else None

    def first_mask(self, given: Given, query: int | None) -> BoolMask:
        if query is not None:
            return np.asarray((self.query_mask(query) > 0).cpu().numpy())
        return disc(given.clicks[0], self.size_hw)

    def start(
        self, givens: Sequence[Given], firsts: Sequence[BoolMask], best: Sequence[int | None]
    ) -> ClickStart:
        device = self.pixels_chw.device
        most = max(1, *(min(MOST_PLACES, len(given.clicks)) for given in givens))
        places_kp2 = torch.zeros(len(givens), most, 2)
        signs_kp = torch.zeros(len(givens), most, dtype=torch.long)
        pixels_kpc = self.pixels_chw.new_zeros(len(givens), most, len(self.pixels_chw))
        states_kc = self.states_nc.new_zeros(len(givens), self.states_nc.shape[1])
        for number, (given, query) in enumerate(zip(givens, best, strict=True)):
            for position, click in enumerate(given.clicks[:MOST_PLACES]):
                places_kp2[number, position] = torch.tensor([click.x, click.y])
                signs_kp[number, position] = POSITIVE if click.is_positive else NEGATIVE
                row, column = click.cell(self.size_hw)
                pixels_kpc[number, position] = self.pixels_chw[:, row, column]
            if query is not None:
                states_kc[number] = self.states_nc[query]
        planes_k1hw = torch.from_numpy(np.stack(firsts))[:, None].float().to(device)
        size_hw = self.levels[-1].size_hw
        mostly_ks = functional.interpolate(planes_k1hw, size_hw, mode="area").flatten(1) >= 0.5
        touched_ks = functional.adaptive_max_pool2d(planes_k1hw, size_hw).flatten(1) > 0
        return ClickStart(
            masks_ks=torch.where(mostly_ks.any(1, keepdim=True), mostly_ks, touched_ks),
            places_kp2=places_kp2.to(device),
            signs_kp=signs_kp.to(device),
            pixels_kpc=pixels_kpc,
            states_kc=states_kc,
        )


@torch.no_grad()
def _scene(model: Any, seen: _Seen, image: int, decoder: QueryDecoder, classify: Any) -> _Scene:
    assert seen.pixels_bchw is not None
    module = model.model.transformer_module
    pixels_chw = seen.pixels_bchw[image].float()
    levels = []
    for index, features_bchw in enumerate(seen.features):
        projected_1chw = module.input_projections[index](features_bchw[image : image + 1].float())
        size_hw = (projected_1chw.shape[2], projected_1chw.shape[3])
        resized_1chw = functional.interpolate(pixels_chw[None], size_hw, mode="bilinear")
        rows_hd, columns_wd = sine_axes(module.position_embedder, size_hw, pixels_chw.device)
        levels.append(
            Level(
                tokens_sc=projected_1chw[0].flatten(1).T + module.level_embed.weight[index],
                rows_hd=rows_hd,
                columns_wd=columns_wd,
                pixels_sc=resized_1chw[0].flatten(1).T,
                size_hw=size_hw,
            )
        )
    states_nc = torch.cat([state_qbc[:, image].float() for state_qbc in reversed(seen.states.values())])
    normed_nc = decoder.norm(states_nc)
    embeddings_nc = decoder.to_masks(normed_nc[None])[0]
    probs_ns = (embeddings_nc @ levels[-1].pixels_sc.T).sigmoid()
    inside_ns = probs_ns > 0.5
    quality_n = (probs_ns * inside_ns).sum(1) / inside_ns.sum(1).clamp(min=1)
    class_n = classify(normed_nc).float().softmax(-1)[:, :-1].amax(1)
    return _Scene(
        levels=levels,
        pixels_chw=pixels_chw,
        states_nc=states_nc,
        embeddings_nc=embeddings_nc,
        scores_n=quality_n**QUALITY_POWER * class_n**CLASS_POWER,
    )


def _objects(index_hw: Tensor, size_hw: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Return float32 (K, h, w): the shares of cells that some objects cover."""
    ids = torch.unique(index_hw[index_hw > 0])
    planes_n1hw = (index_hw[None] == ids[:, None, None])[:, None].float()
    if not len(ids):
        return torch.zeros(0, *size_hw, device=index_hw.device)
    soft_nhw = functional.interpolate(planes_n1hw, size_hw, mode="area")[:, 0]
    large = torch.nonzero((soft_nhw > 0.5).sum((1, 2)) >= LEAST_CELLS).flatten().cpu().numpy()
    chosen = rng.permutation(large)[:OBJECTS]
    picked_k = torch.from_numpy(np.sort(chosen)).to(soft_nhw.device)
    return soft_nhw.index_select(0, picked_k)


def _mask_loss(scene: _Scene, embeddings_kc: Tensor, soft_khw: Tensor) -> Tensor:
    logits_ks, truth_ks = scene.masks(embeddings_kc).flatten(1), soft_khw.flatten(1)
    border_ks = 1.0 + 3.0 * ((truth_ks > 0) & (truth_ks < 1))
    entropy_ks = functional.binary_cross_entropy_with_logits(logits_ks, truth_ks, reduction="none")
    area_k = truth_ks.mean(1).clamp(min=0.01)
    probs_ks = logits_ks.sigmoid()
    shared_k = (probs_ks * truth_ks).sum(1)
    dice_k = 1 - (2 * shared_k + 1) / (probs_ks.sum(1) + truth_ks.sum(1) + 1)
    loss: Tensor = ((entropy_ks * border_ks).mean(1) / area_k.sqrt() + dice_k).mean()
    return loss


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Give the model's weights no gradient, and leave out its dropout, while the context lasts."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    random = [module for module in model.model.transformer_module.modules() if module.training]
    for parameter in trained:
        parameter.requires_grad_(False)
    for module in random:
        module.training = False
    try:
        yield
    finally:
        for module in random:
            module.training = True
        for parameter in trained:
            parameter.requires_grad_(True)


def _iou(first_hw: BoolMask, second_hw: BoolMask) -> float:
    return float((first_hw & second_hw).sum() / max(1, (first_hw | second_hw).sum()))
