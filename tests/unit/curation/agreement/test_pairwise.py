import dataclasses

import numpy as np
import pytest

from maskloop.curation.agreement.pairwise import DrawnImage, alpha_of_counts, measure_agreement
from maskloop.masks import mask_to_segment
from maskloop.types import Segment

SIZE_HW = (20, 30)


def rectangle(left: int, width: int, label: str = "cat") -> Segment:
    mask_hw = np.zeros(SIZE_HW, np.bool_)
    mask_hw[2:12, left : left + width] = True
    segment = mask_to_segment(mask_hw, label=label)
    assert segment is not None
    return segment


def drawn(**regions: list[Segment]) -> DrawnImage:
    of_user = {int(name[1:]): tuple(some) for name, some in regions.items()}
    return DrawnImage(size_hw=SIZE_HW, regions=of_user)


def test_measure_agreement_of_equal_annotations_is_one():
    same = [rectangle(2, 8), rectangle(15, 8, "dog")]
    found = measure_agreement([drawn(u1=same, u2=same, u5=same)])
    assert (found.whole.pq, found.alpha) == (1.0, 1.0)
    assert list(found.pairs) == [(1, 2), (1, 5), (2, 5)]
    assert found.classes["dog"].matched == 3


@pytest.mark.parametrize(
    ("second", "pq", "relabelled"),
    [
        pytest.param([rectangle(2, 6)], 0.75, {}, id="narrower"),
        pytest.param([], 0.0, {}, id="overlooked"),
        pytest.param([rectangle(2, 8, "dog")], 0.0, {("cat", "dog"): 1}, id="another class"),
        pytest.param([rectangle(2, 8), rectangle(15, 8)], 1 / 1.5, {}, id="one more"),
    ],
)
def test_measure_agreement_of_a_pair(
    second: list[Segment], pq: float, relabelled: dict[tuple[str, str], int]
):
    found = measure_agreement([drawn(u1=[rectangle(2, 8)], u2=second)])
    assert found.whole.pq == pytest.approx(pq)
    assert dict(found.whole.relabelled) == relabelled


def test_measure_agreement_does_not_depend_on_the_order():
    images = [drawn(u1=[rectangle(2, 8)], u2=[rectangle(3, 8, "dog")]), drawn(u2=[], u1=[rectangle(9, 9)])]
    swapped = [dataclasses.replace(one, regions=dict(reversed(one.regions.items()))) for one in images[::-1]]
    assert measure_agreement(images).alpha == measure_agreement(swapped).alpha


def test_alpha_of_counts_equals_krippendorffs_example():
    # Krippendorff 2011, section A: two observers, ten binary values
    assert alpha_of_counts(np.array([[10.0, 4.0], [4.0, 2.0]])) == pytest.approx(0.095, abs=5e-4)


def test_measure_agreement_of_nothing_is_none():
    found = measure_agreement([])
    assert (found.images, found.whole.pq, found.alpha) == (0, None, None)
