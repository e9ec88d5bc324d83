"""Denoising queries: they are told an object's class and a noised mask, and learn to return the object.

A Mask2Former learns slowly which query is whose: the matching turns over from step to step. Each denoising
query knows its object, so nothing is matched. It starts as the embedding of the object's class, sometimes of
another one, and looks where the object's mask is, which is noised, in each layer of the decoder; it is judged
by the object's class and mask. The queries of an image form groups that hold each object once. A query sees
its own group only, neither other groups nor the ordinary queries.

So the two kinds of queries share nothing but the decoder's weights, and the denoising ones go through it by
themselves, after the ordinary ones: these give bit for bit what they give without any. The class embeddings
are weights of the loss: they are trained and saved with the states of a training, and are gone at its end.

Source: Zhang et al., "MP-Former: Mask-Piloted Transformer for Image Segmentation", CVPR 2023; groups: Li et
al., "DN-DETR: Accelerate DETR Training by Introducing Query DeNoising", CVPR 2022. Not as there: queries do
not see the ordinary ones (which DN-DETR found to make no difference), and embeddings begin as the rows of the
class head, since a fine-tuning is too short to learn them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from maskloop.learning.losses.hungarian import Matching
from maskloop.learning.losses.ignore_regions import ignored_cells
from maskloop.learning.losses.mask_noise import draw_noise, noised_masks
from maskloop.learning.losses.point_loss import PointwiseLoss, matched_planes
from maskloop.learning.losses.soft_labels import votes_loss
from maskloop.log import log_action
from maskloop.segmentation.fast.model_forward import decoder_inputs, decoder_parts, query_levels
from maskloop.segmentation.fast.query_decoder import decode_queries

__all__ = ["DenoisingLoss", "denoising", "flipped_classes", "group_count", "own_objects", "seen_in_group"]

logger = logging.getLogger(__name__)
OTHER_CLASS = 0.2  # share of queries that are told a random class
QUERIES = 20  # of an image, in all its groups, where one group does not need more
MOST_GROUPS = 2


class _Decoder:
    """A model's transformer decoder, and what the model's forward pass gave it last."""

    def __init__(self, model: Any) -> None:
        self.module = model.model.transformer_module
        self.parts, head = decoder_parts(model)
        self.classify: Any = head
        self.inputs: tuple[Sequence[Tensor], Tensor] | None = None

    def keep_inputs(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.inputs = decoder_inputs(args, kwargs)


class DenoisingLoss(nn.Module):
    """Mixed in before `PointwiseLoss`: adds the losses of denoising queries in training mode."""

    denoised_classes: nn.Embedding
    _decoder: _Decoder

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the losses under the family's names, and three of the denoising queries."""
        plain: Any = super()
        losses: dict[str, Tensor] = plain.forward(*args, **kwargs)
        inputs, self._decoder.inputs = self._decoder.inputs, None
        if self.training and inputs is not None:
            losses |= self._denoise(*inputs, kwargs["mask_labels"], kwargs["class_labels"])
        return losses

    def _denoise(
        self,
        features: Sequence[Tensor],
        pixels_bchw: Tensor,
        index_bhw: Tensor,
        class_ids: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        base: Any = self
        objects = base.get_num_masks(class_ids, index_bhw.device)  # of all processes: none may leave before
        counts = [len(ids) for ids in class_ids]
        if not any(counts):
            return {}
        groups = group_count(max(counts))
        layers = len(self._decoder.parts.layers)
        pairs = own_objects(counts, groups, layers, index_bhw.device)
        ids_r = pad_sequence(list(class_ids), batch_first=True)[pairs.images_n, pairs.objects_ln[0]]
        told_r = flipped_classes(ids_r, self.denoised_classes.num_embeddings)
        after_lbqc = self._decode(features, pixels_bchw, index_bhw, pairs, told_r)
        with torch.autocast(index_bhw.device.type, enabled=False):
            pixels_bchw = pixels_bchw.float()
            normed_lbqc = self._decoder.parts.norm(after_lbqc.float())
            places = (pairs.images_n, pairs.queries_ln[0])
            classes_lrk = self._decoder.classify(normed_lbqc[:, *places])
            class_lr = functional.cross_entropy(
                classes_lrk.transpose(1, 2), ids_r.expand(layers, -1), reduction="none"
            )
            if base.soft is not None:
                votes_rk = base.soft.votes_bnk[pairs.images_n, pairs.objects_ln[0]]
                class_lr = votes_loss(classes_lrk, votes_rk, classes_lrk.new_ones(classes_lrk.shape[-1]))
            class_l = class_lr.mean(1)
            ignored_b1hw = None
            if base.ignored_bhw is not None:
                ignored_b1hw = ignored_cells(base.ignored_bhw, pixels_bchw.shape[-2:])
            masks_lbqc = self._decoder.parts.to_masks(normed_lbqc)
            planes_lnhw = matched_planes(masks_lbqc, pixels_bchw, pairs, ignored_b1hw)
            mask_l, dice_l = base.mask_losses(planes_lnhw, index_bhw, pairs)
        return {
            "loss_mask_denoised": mask_l.sum() / (objects * groups),
            "loss_dice_denoised": dice_l.sum() / (objects * groups),
            "loss_cross_entropy_denoised": class_l.sum(),
        }

    def _decode(
        self,
        features: Sequence[Tensor],
        pixels_bchw: Tensor,
        index_bhw: Tensor,
        pairs: Matching,
        told_r: Tensor,
    ) -> Tensor:
        """Return the queries after each layer, (L, B, Q, C)."""
        sizes_l = [(int(one.shape[2]), int(one.shape[3])) for one in features]
        tokens = [one.flatten(2).transpose(1, 2) for one in features]
        levels = query_levels(self._decoder.module, tokens, sizes_l)
        places = (pairs.images_n, pairs.queries_ln[0])
        images, queries = len(index_bhw), int(pairs.queries_ln.max()) + 1
        noise = draw_noise(len(told_r), index_bhw.device)
        given = []
        for masks_rs in noised_masks(index_bhw, pairs.images_n, pairs.objects_ln[0], sizes_l, noise):
            given_bqs = masks_rs.new_zeros(images, queries, masks_rs.shape[1])
            given_bqs[places] = masks_rs
            given.append(given_bqs)
        told_rc = self.denoised_classes(told_r)
        queries_bqc = told_rc.new_zeros(images, queries, told_rc.shape[1]).index_put(places, told_rc)
        after = decode_queries(
            self._decoder.parts,
            queries_bqc,
            torch.zeros_like(queries_bqc[:1]),
            levels,
            pixels_bchw.detach(),
            given_lbqs=[given[layer % len(given)] for layer in range(len(self._decoder.parts.layers))],
            beside_bqq=seen_in_group(pairs, queries, images),
        )
        return torch.stack(after)


def group_count(most: int) -> int:
    """Return how many groups there are where the fullest image has `most` objects."""
    return max(1, min(MOST_GROUPS, QUERIES // most))


def own_objects(counts: Sequence[int], groups: int, layers: int, device: torch.device) -> Matching:
    """Return the pairs of denoising queries and their objects, the same in each layer.

    Query `g * most + i` of an image is that of object `i` in group `g`, with `most` objects in the fullest
    image; queries without an object are in no pair.

    Args:
        counts: number of objects of each image.
        groups: of which each holds every object once.
        layers: of the decoder.
        device: of the pairs.
    """
    most = max(counts)
    firsts = [most * group for group in range(groups)]
    images = [image for image, count in enumerate(counts) for _ in range(groups * count)]
    queries = [first + one for count in counts for first in firsts for one in range(count)]
    objects = [one for count in counts for _ in firsts for one in range(count)]
    return Matching(
        images_n=torch.tensor(images, device=device),
        queries_ln=torch.tensor(queries, device=device).expand(layers, -1),
        objects_ln=torch.tensor(objects, device=device).expand(layers, -1),
        counts=tuple(groups * count for count in counts),
    )


def seen_in_group(pairs: Matching, queries: int, images: int) -> Tensor:
    """Return bool (B, Q, Q): for each query those of its group; itself where it has no object.

    Args:
        pairs: of `own_objects`.
        queries: of an image, Q.
        images: B.
    """
    # the first query of a group has object 0, and its number counts the group's places
    group_r = pairs.queries_ln[0] - pairs.objects_ln[0]
    group_bq = group_r.new_full((images, queries), -1)
    group_bq[pairs.images_n, pairs.queries_ln[0]] = group_r
    same_bqq = (group_bq[:, :, None] == group_bq[:, None]) & (group_bq >= 0)[:, :, None]
    return same_bqq | torch.eye(queries, dtype=torch.bool, device=group_r.device)


def flipped_classes(ids_r: Tensor, classes: int) -> Tensor:
    """Return class ids of which some are random ones.

    Args:
        ids_r: int64.
        classes: number of classes.
    """
    others_r = torch.randint_like(ids_r, classes)
    return torch.where(torch.rand(ids_r.shape, device=ids_r.device) < OTHER_CLASS, others_r, ids_r)


@contextmanager
def denoising(model: Any) -> Iterator[None]:
    """Let a Mask2Former or OneFormer train denoising queries while the context lasts.

    To be entered inside `accelerated`, whose loss it extends; a model that has another loss, or norms before
    its blocks, is left alone, with a warning.

    Args:
        model: its class embeddings are `criterion.denoised_classes` while the context lasts.
    """
    criterion: Any = model.criterion
    known = issubclass(type(criterion), PointwiseLoss)
    if not known or getattr(model.config, "pre_norm", False):
        log_action(
            logger,
            "denoising_unavailable",
            level=logging.WARNING,
            family=model.config.model_type,
            remedy="start from a Mask2Former or OneFormer, with a version of transformers that is known",
        )
        yield
        return
    decoder = _Decoder(model)
    rows_kc = decoder.classify.weight.detach()[:-1]
    plain = type(criterion)
    criterion.__class__ = type(f"Denoising{plain.__name__}", (DenoisingLoss, plain), {})
    criterion._decoder = decoder
    criterion.denoised_classes = nn.Embedding(
        rows_kc.shape[0], rows_kc.shape[1], _weight=_like_queries(rows_kc)
    )
    hook = decoder.module.register_forward_pre_hook(decoder.keep_inputs, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        del criterion.denoised_classes, criterion._decoder
        criterion.__class__ = plain


def _like_queries(rows_kc: Tensor) -> Tensor:
    """Return rows with the scale of queries at the start of a decoder, whose mean square is 1."""
    return rows_kc / rows_kc.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
