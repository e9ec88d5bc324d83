"""An image as one short vector, from the features of the model's own forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["EMBEDDING_SIZE", "image_embedding"]

EMBEDDING_SIZE = 256  # at most
QUERY_SHARE = 0.5  # weight of the queries' features against the pixels'; see docs/selection.md


def image_embedding(
    output: Any, index: int, valid_share_hw: tuple[float, float], grid_hw: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Return the embedding of an image: features of its pixels and of the objects found in it.

    Of the pixel decoder's last map the mean and the standard deviation over the image, and the mean of the
    queries weighted by how likely each is an object. Neither depends much on where things lie.

    Args:
        output: of the model's forward pass with `output_hidden_states`.
        index: of the image in the batch.
        valid_share_hw: the share of the padded input that is the image.
        grid_hw: rows and columns of patches, where features are tokens and these the last of them (EoMT).

    Returns:
        float32 (D,) of unit length, D at most EMBEDDING_SIZE; independent of the other images of
        its batch.

    Source:
        Mean and deviation of feature maps as the style of an image: Huang, Belongie, "Arbitrary Style
        Transfer in Real-Time with Adaptive Instance Normalization", ICCV 2017. Random projection:
        Achlioptas, "Database-friendly Random Projections", PODS 2001.
    """
    class_probs_qk = output.class_queries_logits[index].float().softmax(dim=-1)
    parts = [class_probs_qk.mean(dim=0)]  # where there are no features
    found = _features(output, index, grid_hw, queries=len(class_probs_qk))
    if found is not None:
        features_chw, queries_qc = found
        valid_chw = _crop(features_chw, valid_share_hw)
        objectness_q = 1.0 - class_probs_qk[:, -1]
        weight_q = objectness_q / objectness_q.sum().clamp(min=1e-6)
        parts = [
            _levelled(valid_chw.mean(dim=(1, 2))),
            _levelled(valid_chw.std(dim=(1, 2), correction=0)),
            QUERY_SHARE * _levelled(weight_q @ queries_qc),
        ]
    vector = _projected(torch.cat(parts).cpu().numpy().astype(np.float64))
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


def _features(
    output: Any, index: int, grid_hw: tuple[int, int] | None, queries: int
) -> tuple[Tensor, Tensor] | None:
    """Return float (C, h, w) of the pixels and (Q, C) of the queries, under the families' names for them."""
    if grid_hw is not None:
        tokens_tc = output.last_hidden_state[index].float()
        patches_pc = tokens_tc[-grid_hw[0] * grid_hw[1] :]
        return patches_pc.T.reshape(-1, *grid_hw), tokens_tc[:queries]
    pixels = getattr(output, "pixel_decoder_last_hidden_state", None)
    objects = getattr(output, "transformer_decoder_last_hidden_state", None)
    if pixels is None and getattr(output, "pixel_decoder_hidden_states", None):  # OneFormer's
        pixels = output.pixel_decoder_hidden_states[0]
        objects = output.transformer_decoder_object_queries
    return None if pixels is None or objects is None else (pixels[index].float(), objects[index].float())


def _crop(features_chw: Tensor, share_hw: tuple[float, float]) -> Tensor:
    height, width = (
        max(1, round(side * share)) for side, share in zip(features_chw.shape[1:], share_hw, strict=True)
    )
    return features_chw[:, :height, :width]


def _levelled(values_c: Tensor) -> Tensor:
    # the channels' common mean carries no information; unit length, so that no part outweighs the others
    centred_c: Tensor = values_c - values_c.mean()
    return functional.normalize(centred_c, dim=0)


def _projected(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    if vector.size <= EMBEDDING_SIZE:
        return vector
    # the same directions for every image, version and machine: distances stay, within a few percent
    directions = np.random.default_rng(vector.size).standard_normal((vector.size, EMBEDDING_SIZE))
    return np.asarray(vector @ directions)
