"""An image whose pixel embeddings say which object each pixel belongs to."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from maskloop.interactive.image_features import ImageFeatures, _extent, embedding_statistics
from maskloop.types import BoolMask

SIZE_HW = (48, 64)
GRID_HW = (12, 16)
# left disc, right block, and a block that no query has found; rows and columns of the grid
PLACES = {
    "disc": (slice(2, 6), slice(1, 5)),
    "block": (slice(2, 8), slice(8, 11)),
    "lost": (slice(9, 12), slice(12, 16)),
}


def object_mask(name: str) -> BoolMask:
    """Return an object's mask in the image's pixels."""
    grid_hw = np.zeros(GRID_HW, dtype=np.bool_)
    grid_hw[PLACES[name]] = True
    return np.kron(grid_hw, np.ones((4, 4), dtype=np.bool_)).astype(np.bool_)


@pytest.fixture
def make_features() -> Callable[..., ImageFeatures]:
    def make(*, classes: tuple[float, float] = (0.8, 0.8), merged: bool = False) -> ImageFeatures:
        """Queries of the disc and the block, and one of both where `merged`."""
        pixels_chw = torch.zeros(4, *GRID_HW)
        pixels_chw[3] = 1.0
        for channel, rows_columns in enumerate(PLACES.values()):
            pixels_chw[channel][rows_columns] = 1.0
        rows = [[12.0, 0.0, 0.0, -6.0], [0.0, 12.0, 0.0, -6.0]]
        rows += [[14.0, 14.0, 0.0, -6.0]] * merged
        embeddings_nc = torch.tensor(rows)
        probs_nhw = torch.einsum("nc,chw->nhw", embeddings_nc, pixels_chw).sigmoid()[:, ::2, ::2]
        inside_nhw = (probs_nhw > 0.5).float()
        sides = [_extent(inside_nhw.sum(dim), inside_nhw.sum((1, 2))) for dim in (1, 2)]
        disc, block = classes
        probs = [[disc, 1 - disc - 0.05, 0.05], [1 - block - 0.05, block, 0.05]] + [
            [0.9, 0.05, 0.05]
        ] * merged
        mean_c, precision_cc = embedding_statistics(pixels_chw)
        return ImageFeatures(
            size_hw=SIZE_HW,
            labels=("disc", "block"),
            class_probs_nk=torch.tensor(probs),
            coarse_nhw=(probs_nhw * 255).to(torch.uint8),
            quality_n=torch.tensor([0.99] * len(rows)),
            boxes_n4=torch.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], dim=1),
            pixels_chw=pixels_chw.half(),
            embeddings_nc=embeddings_nc,
            mean_c=mean_c,
            precision_cc=precision_cc,
        )

    return make
