import numpy as np
import pytest
from tests.unit.curation.review.conftest import LABELS, SIZE_HW, rectangle, scene

from maskloop.curation.review.injection import inject
from maskloop.curation.review.suspicion import SuspicionKind
from maskloop.masks import segment_iou

K = SuspicionKind
COUNTS = {K.OVERLOOKED: 3, K.SPURIOUS: 5, K.WRONG_CLASS: 4, K.BORDER: 4, K.SPLIT: 5, K.DUPLICATE: 5}


@pytest.mark.parametrize("kind", COUNTS)
def test_inject_one_error_leaves_the_others_as_they_are(kind: SuspicionKind):
    drawn = scene(1)
    found = inject(drawn, SIZE_HW, {1: kind}, labels=LABELS, rng=np.random.default_rng(0))
    (error,) = found.errors
    assert (error.kind, len(found.regions)) == (kind, COUNTS[kind])
    untouched = {id(one) for index, one in enumerate(found.regions) if index not in error.regions}
    assert {id(drawn[0]), id(drawn[2]), id(drawn[3])} <= untouched


def test_inject_merged_takes_the_neighbour_in():
    drawn = [rectangle(10, 4, 12, 12), rectangle(10, 18, 12, 12)]
    found = inject(drawn, SIZE_HW, {0: K.MERGED}, labels=LABELS, rng=np.random.default_rng(0))
    assert len(found.regions) == 1
    assert segment_iou(found.regions[0], rectangle(10, 4, 12, 26)) > 0.9


def test_inject_border_keeps_half_of_the_object():
    drawn = scene(2)
    found = inject(drawn, SIZE_HW, {0: K.BORDER}, labels=LABELS, rng=np.random.default_rng(0))
    assert 0.5 <= segment_iou(found.regions[0], drawn[0]) <= 0.85


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        pytest.param(K.WRONG_CLASS, ("disc",), id="one class"),
        pytest.param(K.MERGED, LABELS, id="no neighbour"),
    ],
)
def test_inject_impossible_error_is_left_out(kind: SuspicionKind, labels: tuple[str, ...]):
    found = inject([rectangle(4, 4, 8, 8)], SIZE_HW, {0: kind}, labels=labels, rng=np.random.default_rng(0))
    assert (found.errors, len(found.regions)) == ((), 1)
