"""Masks of objects as a worse model would see them: points flipped, moved, or of another size.

Source: Zhang et al., "MP-Former: Mask-Piloted Transformer for Image Segmentation", CVPR 2023, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from maskloop.learning.losses.point_sampling import row_labels

__all__ = ["FLIPPED", "GROWN", "MOVED", "Noise", "cell_centres", "draw_noise", "noised_masks", "object_sides"]

FLIPPED = 0.2  # cells that change sides, in shares of the object's own
MOVED = 0.4  # at most, in shares of half the object's width and height
GROWN = 0.4  # at most, or shrunk by, in shares of its size


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """What is done to each of R masks; each has one kind of noise, the other two do nothing."""

    moves_r2: Tensor  # float32, x and y, in shares of half the object's width and height
    scales_r: Tensor  # float32, factor on its size
    flips_r: Tensor  # float32, cells that change sides, in shares of the object's own


def draw_noise(rows: int, device: torch.device) -> Noise:
    """Return random noise of R masks, of torch's own generator."""
    kinds_r = torch.randint(3, (rows,), device=device)
    amounts_r3 = 2 * torch.rand(rows, 3, device=device) - 1
    return Noise(
        moves_r2=MOVED * amounts_r3[:, :2] * (kinds_r == 0)[:, None],
        scales_r=1 + GROWN * amounts_r3[:, 2] * (kinds_r == 1),
        flips_r=FLIPPED * (kinds_r == 2).float(),
    )


def noised_masks(
    index_bhw: Tensor,
    images_r: Tensor,
    objects_r: Tensor,
    sizes_l: Sequence[tuple[int, int]],
    noise: Noise,
) -> list[Tensor]:
    """Return bool (R, h * w) for each size: the cells that masks touch, with noise.

    Args:
        index_bhw: int, the object of each pixel, from 1.
        images_r: image of each row.
        objects_r: object of each row, from 0.
        sizes_l: heights and widths; the object is looked at with twice the rows and columns of the last.
        noise: of each row; cells are flipped at each size anew.
    """
    finest_hw = (2 * sizes_l[-1][0], 2 * sizes_l[-1][1])
    sides_r4 = object_sides(index_bhw, images_r, objects_r)
    centres_r2, halves_r2 = (sides_r4[:, :2] + sides_r4[:, 2:]) / 2, (sides_r4[:, 2:] - sides_r4[:, :2]) / 2
    centres_p2 = cell_centres(finest_hw, index_bhw.device)
    moved_rp2 = centres_p2 - (centres_r2 + noise.moves_r2 * halves_r2)[:, None]
    # what is at a place comes from where the place was before the object moved and grew
    points_rp2 = centres_r2[:, None] + moved_rp2 / noise.scales_r[:, None, None]
    touched_rp = row_labels(index_bhw, images_r, objects_r, points_rp2) > 0
    planes_r1hw = touched_rp.view(-1, 1, *finest_hw).float()
    masks = []
    for size_hw in sizes_l:
        mask_rs = functional.adaptive_max_pool2d(planes_r1hw, size_hw).flatten(1) > 0
        flipped_r1 = noise.flips_r[:, None] * mask_rs.float().mean(1, keepdim=True)
        masks.append(mask_rs ^ (torch.rand(mask_rs.shape, device=mask_rs.device) < flipped_r1))
    return masks


def object_sides(index_bhw: Tensor, images_r: Tensor, objects_r: Tensor) -> Tensor:
    """Return float32 (R, 4): left, top, right, bottom of objects, in shares of the width and height.

    An object without a pixel has no sides: what is returned for it is finite and means nothing.

    Args:
        index_bhw: int, the object of each pixel, from 1.
        images_r: image of each row.
        objects_r: object of each row, from 0.
    """
    images, height, width = index_bhw.shape
    device = index_bhw.device
    values = int(objects_r.max()) + 2 if len(objects_r) else 1  # of an image; all that is no object is 0
    starts_b = values * torch.arange(images, device=device)
    places = (index_bhw.clamp(min=0).long() + starts_b[:, None, None]).flatten()
    rows_r = starts_b[images_r] + objects_r + 1
    columns_w = torch.arange(width, device=device, dtype=torch.float32)
    lines_h = torch.arange(height, device=device, dtype=torch.float32)
    first, last = [], []
    for cells_hw, length in (
        (columns_w.expand(height, -1), width),
        (lines_h[:, None].expand(-1, width), height),
    ):
        cells = cells_hw.expand(images, -1, -1).flatten()
        of_all = cells.new_zeros(images * values)
        least = of_all.scatter_reduce(0, places, cells, "amin", include_self=False)
        first.append(least[rows_r] / length)
        last.append((of_all.scatter_reduce(0, places, cells, "amax")[rows_r] + 1) / length)
    return torch.stack([*first, *last], dim=1)


def cell_centres(size_hw: tuple[int, int], device: torch.device) -> Tensor:
    """Return float32 (h * w, 2): x and y of the middles of cells, in 0..1, row after row."""
    y_h, x_w = ((torch.arange(side, device=device) + 0.5) / side for side in size_hw)
    return torch.stack([x_w.expand(size_hw), y_h[:, None].expand(size_hw)], dim=2).flatten(0, 1)
