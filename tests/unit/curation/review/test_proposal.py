import numpy as np
import pytest
from tests.unit.curation.review.conftest import SIZE_HW, evidence_of, rectangle

from maskloop.curation.review.gallery import Card, gallery_html
from maskloop.curation.review.proposal import corrected_regions
from maskloop.curation.review.suspicion import ReviewImage, Suspicion, SuspicionKind
from maskloop.types import Segment

K = SuspicionKind
FIRST, SECOND = rectangle(4, 4, 10, 10), rectangle(30, 30, 10, 10)
PARTS = (rectangle(4, 4, 10, 4), rectangle(4, 9, 10, 5))
SEEN = rectangle(4, 4, 12, 12, "square", 0.9)
IMAGE = ReviewImage(key="a", size_hw=SIZE_HW, regions=(FIRST, SECOND), evidence=(evidence_of(PARTS),))


@pytest.mark.parametrize(
    ("kind", "areas", "labels"),
    [
        pytest.param(K.SPURIOUS, [100], ["disc"], id="spurious is taken away"),
        pytest.param(K.DUPLICATE, [100], ["disc"], id="duplicate is taken away"),
        pytest.param(K.WRONG_CLASS, [100, 100], ["square", "disc"], id="class is changed, outline stays"),
        pytest.param(K.BORDER, [144, 100], ["disc", "disc"], id="outline is changed, class stays"),
        pytest.param(K.MERGED, [40, 50, 100], ["disc"] * 3, id="merged becomes its parts"),
        pytest.param(K.SPLIT, [144], ["disc"], id="parts become one"),
    ],
)
def test_corrected_regions_of_a_kind(kind: SuspicionKind, areas: list[int], labels: list[str]):
    others = (1,) if kind is K.SPLIT else ()
    one = Suspicion(image="a", kind=kind, score=0.9, region=0, others=others, proposal=SEEN)
    found = corrected_regions(IMAGE, [one])
    assert ([part.area for part in found], [part.label for part in found]) == (areas, labels)


def test_corrected_regions_overlooked_is_added():
    one = Suspicion(image="a", kind=K.OVERLOOKED, score=0.9, region=None, proposal=SEEN)
    assert [part.area for part in corrected_regions(IMAGE, [one])] == [100, 100, 144]


@pytest.mark.parametrize("region", [FIRST, None], ids=["region", "missing"])
def test_gallery_is_one_page_without_foreign_addresses(region: Segment | None):
    card = Card(
        number=7,
        suspicion=Suspicion(image="a", kind=K.BORDER, score=0.5, region=0, proposal=SEEN),
        read_image=lambda: np.zeros((*SIZE_HW, 3), np.uint8),
        region=region,
        where="<task> 3",
    )
    page = "".join(gallery_html("Review & more", [card]))
    assert "Review &amp; more" in page
    assert "&lt;task&gt; 3" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "http" not in page
