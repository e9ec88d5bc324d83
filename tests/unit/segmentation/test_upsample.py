"""Windows against torch's own full-frame interpolation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from maskloop.segmentation.upsample import Window, reach_window, upsample_strips, upsample_window

SIZES = {
    "four times": ((16, 24), (64, 96)),
    "odd": ((17, 5), (101, 33)),
    "smaller": ((32, 32), (9, 20)),
    "one pixel": ((32, 32), (1, 1)),
    "from one value": ((1, 1), (7, 4)),
    "huge stretch": ((4, 64), (3, 900)),
}


@pytest.mark.parametrize(("low_hw", "full_hw"), SIZES.values(), ids=SIZES.keys())
def test_upsample_window_any_window_equals_full_frame(
    low_hw: tuple[int, int], full_hw: tuple[int, int]
) -> None:
    values = torch.randn(3, *low_hw, generator=torch.Generator().manual_seed(0)) * 5
    full = functional.interpolate(values[None], size=full_hw, mode="bilinear", align_corners=False)[0]
    height, width = full_hw
    for window in (
        Window(top=0, left=0, bottom=height, right=width),
        Window(top=height // 3, left=width // 2, bottom=height, right=width),
        Window(top=0, left=0, bottom=1, right=1),
    ):
        part = upsample_window(values, full_hw, window)
        expected = full[:, window.top : window.bottom, window.left : window.right]
        torch.testing.assert_close(part, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("most_values", [1, 100, 1 << 20], ids=["single rows", "some rows", "all rows"])
@pytest.mark.parametrize(("low_hw", "full_hw"), SIZES.values(), ids=SIZES.keys())
def test_upsample_strips_joined_equal_the_window(
    low_hw: tuple[int, int], full_hw: tuple[int, int], most_values: int
) -> None:
    values = torch.randn(low_hw, generator=torch.Generator().manual_seed(1))
    height, width = full_hw
    window = Window(top=height // 3, left=width // 4, bottom=height, right=width)
    strips = list(upsample_strips(values, full_hw, window, most_values=most_values))
    assert all(strip.numel() <= max(most_values, strip.shape[1]) for strip in strips)
    assert torch.equal(torch.cat(strips), upsample_window(values[None], full_hw, window)[0])


@pytest.mark.parametrize(("low_hw", "full_hw"), SIZES.values(), ids=SIZES.keys())
def test_reach_window_holds_every_pixel_above(low_hw: tuple[int, int], full_hw: tuple[int, int]) -> None:
    for seed in range(20):
        values = torch.randn(low_hw, generator=torch.Generator().manual_seed(seed)) - 2.5
        full = functional.interpolate(values[None, None], size=full_hw, mode="bilinear", align_corners=False)[
            0, 0
        ]
        above = full > 0
        window = reach_window(values, full_hw, 0.0)
        if window is not None:
            above[window.top : window.bottom, window.left : window.right] = False
        assert not above.any()


def test_reach_window_nothing_above_is_none() -> None:
    assert reach_window(torch.full((8, 8), -1.0), (80, 80), 0.0) is None
