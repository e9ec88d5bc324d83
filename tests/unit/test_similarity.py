import io

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.paths import SHARED

from maskloop.similarity import HASH_BITS, HASH_BYTES, group_near, hash_distances, near_pairs, perceptual_hash

CLOTHES = SHARED / "data" / "clothes" / "images"
NEAR = 0.2


def scene(seed: int, size_hw: tuple[int, int] = (240, 320)) -> np.ndarray:
    """Return a smooth random image with some sharp rectangles."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), np.uint8)
    image = np.ascontiguousarray(cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC))
    for _ in range(6):
        top, left = (int(rng.integers(0, side - 40)) for side in size_hw)
        image[top : top + 40, left : left + 30] = rng.integers(0, 256, 3)
    return image


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(hash_distances(perceptual_hash(one), perceptual_hash(other)[None])[0])


COPIES = {
    "same": lambda image: image.copy(),
    "half size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5),
    "other proportions": lambda image: cv2.resize(image, (200, 200)),
    "JPEG of quality 30": lambda image: as_jpeg(image, 30),
    "brighter": lambda image: np.clip(image.astype(float) * 1.2, 0, 255).astype(np.uint8),
    "less contrast": lambda image: (image * 0.6 + 40).astype(np.uint8),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 2),
    "grey": lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
    "cropped by 2 %": lambda image: image[5:, 6:],
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
def test_perceptual_hash_of_a_copy_is_near(copied):
    assert max(distance(scene(seed), copied(scene(seed))) for seed in range(5)) <= NEAR


def test_perceptual_hash_of_other_scenes_is_far():
    found = [distance(scene(one), scene(other)) for one in range(8) for other in range(one)]
    assert min(found) > 0.3


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (64, 64), (63, 65), (3, 2000)])
def test_perceptual_hash_of_any_size_and_of_one_colour_is_zero(size_hw):
    for value in (0, 93, 255):
        found = perceptual_hash(np.full((*size_hw, 3), value, np.uint8))
        assert (found.shape, found.dtype, found.any()) == ((HASH_BYTES,), np.uint8, False)


def test_perceptual_hash_equals_a_slow_transform():
    image = np.repeat(np.random.default_rng(3).integers(0, 256, (64, 64, 1), np.uint8), 3, axis=2)
    places = np.arange(64)
    base = np.cos(np.pi * (2 * places[None] + 1) * places[:16, None] / 128)
    scale = np.where(places[:16] == 0, np.sqrt(1 / 64), np.sqrt(2 / 64))
    slow = (base @ image[..., 0] @ base.T * scale[:, None] * scale[None]).ravel()
    bits = slow > np.median(slow[1:])
    bits[0] = False
    assert (np.unpackbits(perceptual_hash(image)) == bits).all()


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_near_pairs_equal_a_slow_comparison(count, monkeypatch):
    monkeypatch.setattr("maskloop.similarity.PAIRS_AT_ONCE", 64)
    rng = np.random.default_rng(count)
    bits = rng.random((count, HASH_BITS)) < rng.choice([0.03, 0.5], (count, 1))
    expected = {
        (one, other)
        for one in range(count)
        for other in range(one + 1, count)
        if (bits[one] != bits[other]).mean() <= NEAR
    }
    found = list(near_pairs(np.packbits(bits, axis=1).reshape(-1, HASH_BYTES), distance=NEAR))
    assert {pair[:2] for pair in found} == expected
    assert all(share == (bits[one] != bits[other]).mean() for one, other, share in found)


def test_group_near_chains_are_one_group():
    bits = np.zeros((5, HASH_BITS), np.bool_)
    bits[0, :200] = True
    for row, count in ((1, 0), (2, 40), (4, 80)):  # 1 and 4 are far apart, 2 is near both
        bits[row, :count] = True
    bits[3] = bits[0]
    assert group_near(np.packbits(bits, axis=1), distance=0.16).tolist() == [0, 1, 1, 0, 1]


@pytest.mark.skipif(not CLOTHES.is_dir(), reason="the photos are not here")
def test_perceptual_hash_of_real_photos_tells_copies_from_others():
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(CLOTHES.iterdir())[:60]]
    hashes = np.stack([perceptual_hash(photo) for photo in photos])
    assert max(distance(photo, as_jpeg(photo[4:, 4:], 40)) for photo in photos) <= NEAR
    assert not list(near_pairs(hashes, distance=NEAR))
