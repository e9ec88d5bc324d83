"""OneFormer's text encoder without repetition: most texts of an image are the same filler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["unique_texts"]


@contextmanager
def unique_texts(model: Any) -> Iterator[None]:
    """Let a OneFormer encode equal texts once while the context lasts; texts do not depend on each other.

    The gradient of a text that occurs several times is the sum over its occurrences, as without this.
    """
    encoder = getattr(getattr(model.model, "text_mapper", None), "text_encoder", None)
    if encoder is None:
        yield
        return
    plain = encoder.forward

    def forward(text: Tensor) -> Tensor:
        unique, positions = torch.unique(text, dim=0, return_inverse=True)
        encoded: Tensor = plain(unique)
        return encoded.index_select(0, positions)

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward
