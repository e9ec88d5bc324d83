import dataclasses
from datetime import UTC, datetime

import pytest
from tests.unit.curation.review.conftest import SIZE_HW, rectangle

from maskloop.curation.review.decisions import is_confirmed, lessons_of, settle
from maskloop.curation.review.error_classifier import CLEAN
from maskloop.store.reviews import StoredSuspicion, Verdict
from maskloop.types import Correction, Segment

REGION = rectangle(4, 4, 10, 10)
SHOWN = StoredSuspicion(
    number=1,
    task_id=3,
    annotation_id=4,
    version_id=5,
    view="",
    image_index=0,
    image_key="k",
    kind="spurious",
    score=0.9,
    segment=REGION,
    missing=False,
    features={"twin": 1.0},
)


def _saved(*segments: Segment, version_id: int = 6) -> dict[tuple[int, str, int], Correction]:
    correction = Correction(
        project_id=1,
        task_id=3,
        annotation_id=4,
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
        image_key="k",
        size_hw=SIZE_HW,
        segments=segments,
        version_id=version_id,
    )
    return {(3, "", 0): correction}


@pytest.mark.parametrize(
    ("missing", "segments", "verdict"),
    [
        pytest.param(False, (REGION,), Verdict.RIGHT, id="left as it was"),
        pytest.param(False, (), Verdict.WRONG, id="deleted"),
        pytest.param(False, (rectangle(4, 4, 10, 12),), Verdict.WRONG, id="outline changed"),
        pytest.param(False, (dataclasses.replace(REGION, label="square"),), Verdict.WRONG, id="relabelled"),
        pytest.param(True, (rectangle(4, 4, 10, 12, "square"),), Verdict.WRONG, id="missing, drawn now"),
        pytest.param(True, (), Verdict.RIGHT, id="missing, not drawn"),
    ],
)
def test_settle_saved_again_tells_the_verdict(missing: bool, segments: tuple[Segment, ...], verdict: Verdict):
    shown = dataclasses.replace(SHOWN, missing=missing)
    assert settle([shown], _saved(*segments)) == {1: verdict}


def test_settle_not_saved_since_stays_open():
    assert settle([SHOWN], _saved(version_id=5)) == {}
    assert settle([SHOWN], {}) == {}


@pytest.mark.parametrize(
    ("segment", "key", "expected"),
    [
        pytest.param(REGION, "k", True, id="the same"),
        pytest.param(REGION, "other", False, id="another image"),
        pytest.param(rectangle(4, 4, 10, 12), "k", False, id="drawn anew"),
    ],
)
def test_is_confirmed_only_for_the_same_region(segment: Segment, key: str, expected: bool):
    assert is_confirmed(segment, False, key, [SHOWN]) is expected


def test_lessons_of_right_is_clean():
    kinds = [dataclasses.replace(SHOWN, verdict=one) for one in (Verdict.RIGHT, Verdict.WRONG)]
    assert [one.kind for one in lessons_of(kinds)] == [CLEAN, "spurious"]
