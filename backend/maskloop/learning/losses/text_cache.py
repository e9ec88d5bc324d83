"""OneFormer's texts, each encoded once: most of an image's are the same filler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["texts_once"]


@contextmanager
def texts_once(model: Any) -> Iterator[None]:
    """Let a OneFormer encode equal texts once while the context lasts; a text does not see the others.

    The gradient of a text that stands several times is the sum over its places, as before.
    """
    encoder = getattr(getattr(model.model, "text_mapper", None), "text_encoder", None)
    if encoder is None:
        yield
        return
    plain = encoder.forward

    def forward(text: Tensor) -> Tensor:
        unique, places = torch.unique(text, dim=0, return_inverse=True)
        encoded: Tensor = plain(unique)
        return encoded.index_select(0, places)

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward
