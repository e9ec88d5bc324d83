"""Masks whose values stay below the threshold, such as 0 and 1 in place of 0 and 255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskloop.errors import CodecError
from maskloop.types import BoolMask

__all__ = ["FOREGROUND_LEVEL", "FaintMask", "UnclearMaskError", "read_levels"]

FOREGROUND_LEVEL = 128  # of 0..255; anti-aliased borders lie on both sides


@dataclass(frozen=True, kw_only=True, eq=False)
class FaintMask:
    """A mask, and what its reader should know about it."""

    mask_hw: BoolMask
    note: str | None = None  # in a few words; None where the mask was read as it stands


class UnclearMaskError(CodecError):
    """A mask whose pixels are not clear from its values; only the area that may belong to it is."""

    area_hw: BoolMask  # every pixel that is not 0


def read_levels(levels: NDArray[np.uint8], *, place: str) -> FaintMask:
    """Return the mask that levels of 0..255 stand for: those of at least 128.

    Where no level reaches 128 but some are above 0, Label Studio shows a faint mask. With one such level (a
    mask of 0 and 1, or one of even opacity) its pixels are the mask.

    Args:
        levels: uint8 of any shape: alpha, or red.
        place: what an error names.

    Raises:
        UnclearMaskError: several levels, all below 128.
    """
    mask: BoolMask = levels >= FOREGROUND_LEVEL
    if mask.any():
        return FaintMask(mask_hw=mask)
    area: BoolMask = levels > 0
    found = np.unique(levels[area])
    if found.size == 0:
        return FaintMask(mask_hw=mask)
    if found.size == 1:
        return FaintMask(
            mask_hw=area,
            note=f"the mask has the values 0 and {found[0]} in place of 0 and 255; read as a mask",
        )
    error = UnclearMaskError(
        place,
        expected="a mask of 0 and 255",
        got=f"{found.size} values from {found[0]} to {found[-1]}, which are all below {FOREGROUND_LEVEL}",
        remedy="write 255 in each of the four channels of the mask's pixels and import it again",
    )
    error.area_hw = area
    raise error
