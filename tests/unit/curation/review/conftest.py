"""Made-up evidence: what a model sees is given, so that the right suspicion is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from maskloop.curation.review.suspicion import Evidence, ReviewImage
from maskloop.masks import paste_segment
from maskloop.types import Segment

SIZE_HW = (64, 64)
LABELS = ("disc", "square")


def rectangle(
    top: int, left: int, height: int, width: int, label: str = "disc", score: float = 1.0
) -> Segment:
    return Segment(
        mask_hw=np.ones((height, width), np.bool_), offset_yx=(top, left), label=label, score=score
    )


def evidence_of(objects: Sequence[Segment], labels: Sequence[str] = LABELS) -> Evidence:
    masks_nhw = np.array([paste_segment(one, SIZE_HW) for one in objects], np.float32).reshape(-1, *SIZE_HW)
    probs_nk = np.array([[one.score * (one.label == name) for name in labels] for one in objects], np.float32)
    probs_nk = probs_nk.reshape(-1, len(labels))
    return Evidence(
        labels=tuple(labels),
        segments=tuple(objects),
        class_probs_nk=probs_nk,
        mask_probs_nhw=masks_nhw.astype(np.float16),
        pixel_probs_khw=np.einsum("nk,nhw->khw", probs_nk, masks_nhw).astype(np.float16),
        size_hw=SIZE_HW,
    )


def scene(seed: int) -> list[Segment]:
    """Four objects apart from each other, each somewhere in its quarter."""
    rng = np.random.default_rng(seed)
    return [
        rectangle(
            32 * row + int(rng.integers(2, 12)),
            32 * column + int(rng.integers(2, 12)),
            int(rng.integers(10, 18)),
            int(rng.integers(10, 18)),
            LABELS[int(rng.integers(2))],
            float(rng.uniform(0.7, 0.99)),
        )
        for row in (0, 1)
        for column in (0, 1)
    ]


@pytest.fixture
def scenes() -> list[ReviewImage]:
    """Ten images that are annotated as the model sees them."""
    return [
        ReviewImage(
            key=str(seed), size_hw=SIZE_HW, regions=tuple(scene(seed)), evidence=(evidence_of(scene(seed)),)
        )
        for seed in range(10)
    ]
