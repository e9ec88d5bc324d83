"""What became of predicted segments: a table of boxes whose IoU is known, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskloop.errors import ResourceError
from maskloop.learning.evaluation import overlaps, region_edits
from maskloop.learning.evaluation.region_edits import compare_segments, trace_segments, trace_with_removed
from maskloop.types import EditCounts, Segment


def box(top, left, height, width, label="disc"):
    return Segment(mask_hw=np.ones((height, width), np.bool_), offset_yx=(top, left), label=label)


def total(predicted, annotated):
    return sum(compare_segments(predicted, annotated).values(), EditCounts())


def test_trace_with_removed_are_those_without_a_partner():
    """A second region on an object is deleted too; one that was moved, renamed, cut up or joined is not."""
    kept, twice, gone = box(0, 0, 10, 10), box(1, 1, 8, 9), box(0, 50, 10, 10)
    renamed, cut = box(20, 0, 10, 10), box(40, 0, 10, 40)
    annotated = [kept, box(20, 0, 10, 10, "square"), box(40, 0, 10, 19), box(40, 21, 10, 19)]
    predicted = [gone, cut, kept, renamed, twice]
    outcomes, found = trace_with_removed(predicted, annotated)
    assert sorted(map(id, found)) == sorted(map(id, (gone, twice)))
    assert outcomes == trace_segments(predicted, annotated)
    assert trace_with_removed([], annotated)[1] == ()


WHOLE = box(0, 0, 10, 100)
CASES = [
    pytest.param([], [], {}, id="nothing"),
    pytest.param([WHOLE], [WHOLE], {"kept": 1}, id="the same"),
    pytest.param([WHOLE], [box(0, 0, 10, 95)], {"kept": 1}, id="IoU .95"),
    pytest.param([WHOLE], [box(0, 0, 10, 94)], {"nudged": 1}, id="IoU .94"),
    pytest.param([WHOLE], [box(0, 0, 10, 80)], {"nudged": 1}, id="IoU .8"),
    pytest.param([WHOLE], [box(0, 0, 10, 79)], {"redrawn": 1}, id="IoU .79"),
    pytest.param([WHOLE], [box(0, 0, 10, 30)], {"redrawn": 1}, id="IoU .3"),
    pytest.param([WHOLE], [box(0, 0, 10, 29)], {"removed": 1, "added": 1}, id="IoU .29"),
    pytest.param([WHOLE], [box(0, 0, 10, 100, "square")], {"relabelled": 1}, id="another label"),
    pytest.param([WHOLE], [box(0, 0, 10, 50, "square")], {"redrawn": 1}, id="another label and outline"),
    pytest.param([WHOLE], [], {"removed": 1}, id="deleted"),
    pytest.param([], [WHOLE], {"added": 1}, id="drawn"),
    pytest.param([WHOLE], [box(50, 0, 10, 100)], {"removed": 1, "added": 1}, id="elsewhere"),
    pytest.param(
        [WHOLE], [box(0, 0, 10, 48), box(0, 52, 10, 48)], {"split": 1, "added": 2}, id="split in two"
    ),
    pytest.param(
        [box(0, 0, 10, 48), box(0, 52, 10, 48)], [WHOLE], {"merged": 2, "added": 1}, id="two merged"
    ),
    pytest.param(
        [box(0, 0, 10, 85), box(0, 88, 10, 12)], [WHOLE], {"nudged": 1, "removed": 1}, id="a speck removed"
    ),
    pytest.param(
        [box(0, 0, 10, 10), box(0, 80, 10, 10)],
        [WHOLE],
        {"removed": 2, "added": 1},
        id="specks are no pieces",
    ),
    pytest.param(
        [box(0, 0, 10, 48), box(0, 52, 10, 48, "square")],
        [WHOLE],
        {"redrawn": 1, "removed": 1},
        id="pieces of two labels",
    ),
    pytest.param([WHOLE, WHOLE], [WHOLE], {"kept": 1, "removed": 1}, id="drawn twice"),
    pytest.param(
        [WHOLE, box(0, 0, 10, 98, "square")],
        [WHOLE],
        {"kept": 1, "removed": 1},
        id="label decides the partner",
    ),
    pytest.param([box(0, 0, 1, 1)], [box(0, 0, 1, 1)], {"kept": 1}, id="one pixel"),
]


@pytest.mark.parametrize(("predicted", "annotated", "expected"), CASES)
def test_compare_segments_gives_each_its_outcome(predicted, annotated, expected):
    changed = sum(expected.get(kind, 0) for kind in EditCounts.KINDS_OF_CHANGE)
    found = total(predicted, annotated)
    assert found == EditCounts(changed=changed, **expected)
    assert (found.predicted, found.submitted) == (len(predicted), len(annotated))


def test_compare_segments_counts_by_label():
    found = compare_segments([WHOLE, box(20, 0, 10, 10, "square")], [WHOLE, box(40, 0, 5, 5, "star")])
    assert found == {
        "disc": EditCounts(kept=1),
        "square": EditCounts(removed=1),
        "star": EditCounts(added=1),
    }


SIDES = st.integers(0, 12)
BOXES = st.lists(
    st.builds(box, SIDES, SIDES, st.integers(1, 8), st.integers(1, 8), st.sampled_from(["disc", "square"])),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(predicted=BOXES, annotated=BOXES, seed=st.randoms(use_true_random=False))
def test_compare_segments_any_has_one_outcome_each_in_any_order(predicted, annotated, seed):
    found = compare_segments(predicted, annotated)
    counts = sum(found.values(), EditCounts())
    assert (counts.predicted, counts.submitted) == (len(predicted), len(annotated))
    assert counts.changed_unknown == 0
    seed.shuffle(predicted)
    seed.shuffle(annotated)
    assert compare_segments(predicted, annotated) == found


@settings(max_examples=50, deadline=None)
@given(segments=BOXES)
def test_compare_segments_identical_are_all_kept(segments):
    assert total(segments, segments) == EditCounts(kept=len(segments))
    assert total([], segments) == EditCounts(added=len(segments))
    assert total(segments, []) == EditCounts(removed=len(segments))


@pytest.mark.parametrize(
    ("module", "limit"),
    [
        pytest.param(overlaps, "MAX_PAIRS", id="pairs"),
        pytest.param(overlaps, "MAX_PIXELS", id="pixels"),
        pytest.param(region_edits, "MAX_CELLS", id="one matching"),
    ],
)
def test_compare_segments_too_many_overlaps_are_refused(monkeypatch, module, limit):
    monkeypatch.setattr(module, limit, 8)
    with pytest.raises(ResourceError, match="draw fewer overlapping regions"):
        compare_segments([WHOLE] * 3, [WHOLE] * 3)
