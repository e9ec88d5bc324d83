import itertools

import pytest
import torch

from maskloop.learning.losses.mask_noise import FLIPPED, Noise, draw_noise, noised_masks, object_sides

HEIGHT, WIDTH = 24, 32
SIZES = ((3, 4), (6, 8))


def make_index():
    """Return two images with three objects, each somewhere else."""
    index_bhw = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.int16)
    index_bhw[0, 4:12, 8:20] = 1
    index_bhw[0, 15:16, 3:5] = 2
    index_bhw[1, 10:24, 2:9] = 1
    index_bhw[1, 0:5, 25:32] = -1
    return index_bhw


IMAGES, OBJECTS = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 0, 0])


def no_noise(rows):
    return Noise(moves_r2=torch.zeros(rows, 2), scales_r=torch.ones(rows), flips_r=torch.zeros(rows))


def plain_mask(plane_hw, size_hw, move_2=(0.0, 0.0), scale=1.0):
    """Return which cells an object touches when it is moved and grown, one place after the other."""
    rows, columns = torch.nonzero(plane_hw, as_tuple=True)
    first = torch.tensor([columns.min() / WIDTH, rows.min() / HEIGHT])
    last = torch.tensor([(columns.max() + 1) / WIDTH, (rows.max() + 1) / HEIGHT])
    centre, half = (first + last) / 2, (last - first) / 2
    looks_hw = (2 * SIZES[-1][0], 2 * SIZES[-1][1])
    touched = torch.zeros(size_hw, dtype=torch.bool)
    for row, column in itertools.product(*map(range, looks_hw)):
        place = torch.tensor([(column + 0.5) / looks_hw[1], (row + 0.5) / looks_hw[0]])
        x, y = centre + (place - centre - torch.tensor(move_2) * half) / scale
        left, top = int(torch.floor(x * WIDTH - 0.5)), int(torch.floor(y * HEIGHT - 0.5))
        around = itertools.product((top, top + 1), (left, left + 1))
        inside = [(i, j) for i, j in around if 0 <= i < HEIGHT and 0 <= j < WIDTH]
        if any(bool(plane_hw[i, j]) for i, j in inside):
            touched[row * size_hw[0] // looks_hw[0], column * size_hw[1] // looks_hw[1]] = True
    return touched.flatten()


def test_object_sides_are_those_of_plain_loops():
    index_bhw = make_index()
    for (image, number), sides in zip(
        zip(IMAGES.tolist(), OBJECTS.tolist(), strict=True),
        object_sides(index_bhw, IMAGES, OBJECTS).tolist(),
        strict=True,
    ):
        rows, columns = torch.nonzero(index_bhw[image] == number + 1, as_tuple=True)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        expected = [left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT]
        assert sides == pytest.approx([float(one) for one in expected])


@pytest.mark.parametrize(
    ("move_2", "scale"),
    [
        pytest.param((0.0, 0.0), 1.0, id="as it is"),
        pytest.param((0.37, -0.31), 1.0, id="moved"),
        pytest.param((0.0, 0.0), 1.37, id="grown"),
        pytest.param((0.0, 0.0), 0.63, id="shrunk"),
        pytest.param((0.33, 0.29), 0.71, id="both"),
    ],
)
def test_noised_masks_are_those_of_plain_loops(move_2, scale):
    index_bhw, rows = make_index(), len(IMAGES)
    noise = Noise(
        moves_r2=torch.tensor([move_2] * rows), scales_r=torch.full((rows,), scale), flips_r=torch.zeros(rows)
    )
    for size_hw, masks_rs in zip(SIZES, noised_masks(index_bhw, IMAGES, OBJECTS, SIZES, noise), strict=True):
        for image, number, mask_s in zip(IMAGES.tolist(), OBJECTS.tolist(), masks_rs, strict=True):
            expected_s = plain_mask(index_bhw[image] == number + 1, size_hw, move_2, scale)
            assert torch.equal(mask_s, expected_s)


def test_noised_masks_flips_are_a_share_of_the_object():
    index_bhw = torch.zeros(1, 200, 200, dtype=torch.int16)
    index_bhw[0, :, :100] = 1
    rows = 50
    images_r = objects_r = torch.zeros(rows, dtype=torch.long)
    flips = Noise(
        moves_r2=torch.zeros(rows, 2), scales_r=torch.ones(rows), flips_r=torch.full((rows,), FLIPPED)
    )
    torch.manual_seed(0)
    clean_rs, noised_rs = (
        noised_masks(index_bhw, images_r, objects_r, [(50, 50)], noise)[0]
        for noise in (no_noise(rows), flips)
    )
    changed = (clean_rs ^ noised_rs).sum(1).float().mean() / clean_rs.sum(1).float().mean()
    assert float(changed) == pytest.approx(FLIPPED, rel=0.05)


def test_draw_noise_each_mask_has_one_kind():
    torch.manual_seed(0)
    noise = draw_noise(300, torch.device("cpu"))
    kinds = torch.stack([noise.moves_r2.any(1), noise.scales_r != 1, noise.flips_r > 0]).sum(1)
    assert kinds.sum() == 300
    assert (kinds > 60).all(), "all kinds occur"
    assert noise.moves_r2.abs().max() <= 0.4
    assert 0.6 <= noise.scales_r.min() <= noise.scales_r.max() <= 1.4
