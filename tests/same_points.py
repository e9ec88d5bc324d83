"""Random points that both the families' own losses and ours take, each in its own order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

__all__ = ["same_points"]


@contextmanager
def same_points(model: Any, counts: Sequence[int], *, seed: int, pointwise: bool) -> Iterator[None]:
    """Let one call of a model with labels look at points that depend on the seed alone.

    Args:
        model: a Mask2Former or OneFormer.
        counts: objects of each image.
        seed: of the points.
        pointwise: our loss is called, which draws for all layers at once.
    """
    config, generator = model.config, torch.Generator().manual_seed(seed)
    layers = len(model.model.transformer_module.decoder.layers) + 1
    pairs = sum(min(count, config.num_queries) for count in counts)
    points = config.train_num_points
    certain = points - int(config.importance_sample_ratio * points)
    matched = torch.rand(len(counts), points, 2, generator=generator)
    tried = torch.rand(layers, pairs, int(points * config.oversample_ratio), 2, generator=generator)
    others = torch.rand(layers, pairs, certain, 2, generator=generator)
    if pointwise:
        queue = [matched, *((tried.flatten(0, 1), others.flatten(0, 1)) if pairs else ())]
    else:
        images = [matched[image : image + 1] for image in range(len(counts))]
        queue = [one for layer in range(layers) for one in (*images, tried[layer], others[layer])]

    def drawn(*shape: int, device: Any = None) -> Tensor:
        taken = queue.pop(0)
        assert tuple(taken.shape) == shape
        return taken.to(device) if device is not None else taken

    with mock.patch.object(torch, "rand", drawn):
        yield
    assert not queue
