import numpy as np
import pytest

from maskloop.store.database import Store
from maskloop.store.reviews import StoredSuspicion, Verdict
from maskloop.types import Segment


@pytest.fixture
def shown() -> StoredSuspicion:
    return StoredSuspicion(
        task_id=3,
        annotation_id=4,
        version_id=5,
        view="img",
        image_index=0,
        image_key="0" * 64,
        kind="border",
        score=0.75,
        segment=Segment(mask_hw=np.eye(3, dtype=np.bool_), offset_yx=(2, 1), label="disc"),
        missing=False,
        features={"match_iou": 0.5},
    )


def test_reviews_stored_comes_back_whole(store: Store, shown: StoredSuspicion):
    (number,) = store.reviews.replace_open(7, [shown])
    (found,) = store.reviews.of(7, Verdict.OPEN)
    assert (found.number, found.kind, found.score, found.features) == (number, "border", 0.75, shown.features)
    assert np.array_equal(found.segment.mask_hw, shown.segment.mask_hw)
    assert store.reviews.of(8, Verdict.OPEN) == ()


def test_reviews_replaced_keeps_what_was_decided(store: Store, shown: StoredSuspicion):
    first, second = store.reviews.replace_open(7, [shown, shown])
    assert store.reviews.decide(7, [first, 999], Verdict.RIGHT) == (first,)
    (third,) = store.reviews.replace_open(7, [shown])
    assert [one.number for one in store.reviews.of(7, Verdict.RIGHT)] == [first]
    assert [one.number for one in store.reviews.of(7, Verdict.OPEN)] == [third]
    assert third > second


def test_reviews_of_another_project_are_not_decided(store: Store, shown: StoredSuspicion):
    (number,) = store.reviews.replace_open(7, [shown])
    assert store.reviews.decide(8, [number], Verdict.WRONG) == ()
