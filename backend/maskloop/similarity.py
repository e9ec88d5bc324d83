"""Which images are nearly the same: a perceptual hash of the pixels, its distances, and groups by them.

A copy that was resized, compressed again, brightened or slightly cropped has a near hash; another photo of
the same thing has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from maskloop.types import RgbImage

__all__ = [
    "HASH_BITS",
    "HASH_BYTES",
    "ImageHash",
    "group_near",
    "hash_distances",
    "near_pairs",
    "perceptual_hash",
]

ImageHash: TypeAlias = NDArray[np.uint8]  # (HASH_BYTES,): packed bits

EDGE = 64  # pixels a side of the reduced image
FREQUENCIES = 16  # lowest frequencies a side that the hash describes
HASH_BITS = FREQUENCIES * FREQUENCIES
HASH_BYTES = HASH_BITS // 8
PAIRS_AT_ONCE = 1 << 22  # distances in memory at once


def perceptual_hash(image_hwc: RgbImage) -> ImageHash:
    """Return the perceptual hash of an image: for each low frequency, whether it is above the median.

    An image of one colour has the hash of zeros.

    Args:
        image_hwc: uint8 (H, W, 3), upright.

    Returns:
        uint8 (HASH_BYTES,); the bit of the mean brightness is always 0.

    Source:
        Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section
        3.2.1, with 16 x 16 frequencies of 64 x 64 pixels instead of 8 x 8 of 32 x 32.
    """
    height, width = image_hwc.shape[:2]
    shrinks = min(height, width) >= EDGE
    reduced_hwc = cv2.resize(
        image_hwc, (EDGE, EDGE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    grey_hw = cv2.cvtColor(reduced_hwc, cv2.COLOR_RGB2GRAY).astype(np.float64)
    spectrum_hw = np.asarray(cv2.dct(grey_hw), np.float64)
    lowest = np.round(spectrum_hw[:FREQUENCIES, :FREQUENCIES].ravel()[1:], 6)
    packed: ImageHash = np.packbits(np.concatenate([[False], lowest > np.median(lowest)]))
    return packed


def hash_distances(one: ImageHash, hashes_nb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the share of bits, 0..1, in which a hash differs from each of N others (N, HASH_BYTES)."""
    others = np.ascontiguousarray(hashes_nb, np.uint8).reshape(-1, HASH_BYTES).view(np.uint64)
    differing = np.bitwise_count(others ^ np.ascontiguousarray(one, np.uint8).view(np.uint64))
    distances: NDArray[np.float64] = differing.sum(axis=1, dtype=np.int64) / HASH_BITS
    return distances


def near_pairs(hashes_nb: NDArray[np.uint8], *, distance: float) -> Iterator[tuple[int, int, float]]:
    """Yield (first, second, distance) of all pairs of N hashes at most `distance` apart, first < second.

    Every pair is compared, in bounded memory: about two seconds for 10,000 hashes, minutes for 100,000.

    Args:
        hashes_nb: uint8 (N, HASH_BYTES).
        distance: share of the bits that may differ, 0..1.
    """
    words_nw = np.ascontiguousarray(hashes_nb, np.uint8).reshape(-1, HASH_BYTES).view(np.uint64)
    most = int(distance * HASH_BITS + 1e-9)
    count = len(words_nw)
    rows = max(1, PAIRS_AT_ONCE // max(1, count))
    for start in range(0, count, rows):
        some = words_nw[start : start + rows]
        bits = np.zeros((len(some), count - start), np.uint16)
        for word in range(words_nw.shape[1]):
            bits += np.bitwise_count(some[:, word, None] ^ words_nw[None, start:, word])
        for row, column in np.argwhere(bits <= most):
            if column > row:
                yield start + int(row), start + int(column), float(bits[row, column]) / HASH_BITS


def group_near(hashes_nb: NDArray[np.uint8], *, distance: float) -> NDArray[np.int64]:
    """Return the group of each of N hashes, (N,): those at most `distance` apart are in one, chains too.

    Groups are numbered 0, 1, 2 ... in the order of their first members.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(hashes_nb)
    pairs = np.array([pair[:2] for pair in near_pairs(hashes_nb, distance=distance)], np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, found = connected_components(links, directed=False)
    _, first, group = np.unique(found, return_index=True, return_inverse=True)
    numbers: NDArray[np.int64] = np.argsort(np.argsort(first))[group].astype(np.int64)
    return numbers
