"""Copy-paste augmentation: objects of one training view are pasted onto another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskloop.learning.data.augmentation import View
from maskloop.learning.losses.soft_labels import CERTAIN

__all__ = ["paste_objects"]


def paste_objects(
    target: View,
    target_classes: Sequence[int],
    source: View,
    source_classes: Sequence[int],
    *,
    chosen: Sequence[int],
) -> tuple[View, tuple[int, ...]]:
    """Return the target with some objects of the source over it, and the classes of its objects.

    What a pasted object covers is cut from the objects below; an object that is covered whole has no pixel
    left, and keeps its place in the classes.

    Args:
        target: view that is pasted onto; its index map has 1 + the position in `target_classes`.
        target_classes: class id of each object of the target.
        source: view of the same size.
        source_classes: class id of each object of the source.
        chosen: positions in `source_classes` of the objects that are pasted; pixels stay where they are.

    Source:
        Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation",
        CVPR 2021; edges are not blended, which they found to make no difference.
    """
    renumbered: NDArray[np.int16] = np.zeros(len(source_classes) + 1, dtype=np.int16)
    first = len(target_classes) + 1
    for place, position in enumerate(chosen):
        renumbered[position + 1] = first + place
    pasted_hw = renumbered[np.maximum(source.index_hw, 0)]
    covered_hw = pasted_hw > 0
    view = View(
        np.where(covered_hw[..., None], source.image_hwc, target.image_hwc),
        np.where(covered_hw, pasted_hw, target.index_hw),
        target.mirrored,
        _paste_shares(target, source, covered_hw),
    )
    return view, (*target_classes, *(source_classes[position] for position in chosen))


def _paste_shares(target: View, source: View, covered_hw: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """Return the shares of annotators after pasting; None where both views are certain."""
    if target.shares_hw is None and source.shares_hw is None:
        return None
    below, above = (
        np.uint8(CERTAIN) if view.shares_hw is None else view.shares_hw for view in (target, source)
    )
    return np.asarray(np.where(covered_hw, above, below), dtype=np.uint8)
