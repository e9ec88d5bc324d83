"""Photos of one thing: what is cut out against what was painted, and photos where nothing stands out."""

import cv2
import numpy as np
import pytest

from maskloop.errors import ImageError
from maskloop.lab.photos.cutouts import cut_out, read_photos


def _photo(radius, *, at=(90, 120), size=(180, 240), thing=(200, 60, 40), ground=(90, 110, 120), seed=0):
    """Return a noisy photo of a disc on a plain ground, and the disc's mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    mask_hw = (y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2
    image_hwc = np.where(mask_hw[..., None], thing, ground) + rng.normal(0, 8, (*size, 3))
    return np.clip(image_hwc, 0, 255).astype(np.uint8), mask_hw


@pytest.mark.parametrize("radius", [30, 50, 70])
def test_cut_out_finds_the_thing_that_was_painted(radius):
    image_hwc, mask_hw = _photo(radius)
    found_hw = cut_out(image_hwc)
    assert (found_hw & mask_hw).sum() / (found_hw | mask_hw).sum() > 0.95


def test_cut_out_fills_holes_and_leaves_other_parts():
    image_hwc, _ = _photo(50)
    image_hwc[80:100, 110:130] = image_hwc[:20, :20]  # a hole of the ground's colour
    image_hwc[20:40, 20:40] = (200, 60, 40)  # a second, smaller thing
    found_hw = cut_out(image_hwc)
    assert found_hw[85:95, 115:125].all()
    assert not found_hw[20:40, 20:40].any()


NOTHING = {
    "one colour": {"thing": (90, 110, 120)},
    "nearly the ground's colour": {"thing": (98, 116, 126)},
    "tiny": {"radius": 12},
    "cut off by the border": {"radius": 120, "at": (0, 0)},
}


@pytest.mark.parametrize("case", NOTHING)
def test_cut_out_nothing_stands_out_is_none(case):
    image_hwc, _ = _photo(**{"radius": 50} | NOTHING[case])
    assert cut_out(image_hwc) is None


def test_read_photos_reduces_them_in_the_order_of_their_names(tmp_path):
    for name, radius in (("b.png", 50), ("a.jpg", 12)):
        large = cv2.resize(_photo(radius)[0], (480, 360), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / name), large[..., ::-1])
    (tmp_path / "notes.txt").write_text("no photo")
    first, second = read_photos(tmp_path)
    assert (first.image_hwc.shape, first.mask_hw) == ((192, 256, 3), None)
    assert second.mask_hw.mean() == pytest.approx(np.pi * 50**2 / (180 * 240), rel=0.05)
    assert second.image_hwc[96, 128, 0] > second.image_hwc[96, 128, 2], "RGB"


def test_read_photos_nothing_or_damaged_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"expected photos of single things"):
        list(read_photos(tmp_path))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png: expected an image"):
        list(read_photos(tmp_path))
