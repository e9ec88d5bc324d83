"""Which parts of a mask stay: the clicked ones and the large ones."""

import cv2
import numpy as np
import pytest

from maskloop.interactive.allowed_part import LEAST_PART, allowed_part
from maskloop.interactive.prompt import Click, Prompt


def _plain(mask_hw, places, clicked_only):
    """Return what stays, part by part; a click that is on no part takes none."""
    count, parts_hw = cv2.connectedComponents(mask_hw.astype(np.uint8), connectivity=4)
    kept_hw = np.zeros_like(mask_hw)
    for part in range(1, count):
        here_hw = parts_hw == part
        is_large = here_hw.sum() >= LEAST_PART * mask_hw.sum()
        if any(here_hw[place] for place in places) or (is_large and not clicked_only):
            kept_hw |= here_hw
    return kept_hw


@pytest.mark.parametrize("clicked_only", [False, True])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.75])  # many parts, some large ones, one and specks
def test_allowed_part_is_what_is_clicked_and_what_is_large(share, clicked_only):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        blocks_hw = np.kron(rng.random((12, 15)) < share, np.ones((4, 4), dtype=np.bool_))
        mask_hw = blocks_hw & (rng.random((48, 60)) < 0.97)
        inside = np.argwhere(mask_hw)
        places = [tuple(inside[index]) for index in rng.integers(len(inside), size=2)]
        clicks = tuple(Click(x=(column + 0.5) / 60, y=(row + 0.5) / 48) for row, column in places)
        kept_hw = allowed_part(mask_hw, Prompt(clicks=clicks), clicked_only=clicked_only)
        np.testing.assert_array_equal(kept_hw, _plain(mask_hw, places, clicked_only))
