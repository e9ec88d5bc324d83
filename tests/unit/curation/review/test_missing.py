import dataclasses

import numpy as np
import pytest
from tests.unit.curation.review.conftest import evidence_of, rectangle

from maskloop.curation.review.missing import MISSING_FEATURES, Candidate, find_missing, missing_rows
from maskloop.curation.review.overlap import overlaps
from maskloop.curation.review.suspicion import Evidence
from maskloop.masks import segment_iou
from maskloop.types import Segment


def found_in(
    regions: list[Segment], evidence: Evidence, ignored: tuple[Segment, ...] = ()
) -> list[Candidate]:
    found = overlaps(regions, evidence.segments)
    return find_missing(regions, evidence, found, ignored=ignored, colours=None)


def test_an_object_without_region_is_missing_once():
    evidence = evidence_of([rectangle(5, 5, 12, 12), rectangle(6, 5, 12, 12, score=0.6)])
    (candidate,) = found_in([rectangle(40, 40, 10, 10)], evidence)
    assert (candidate.source, candidate.kept) == (0, 1.0)


def test_of_an_object_over_two_the_one_without_region_is_missing():
    evidence = evidence_of([rectangle(10, 4, 14, 30, score=0.8)])
    (candidate,) = found_in([rectangle(10, 4, 14, 15)], evidence)
    assert segment_iou(candidate.segment, rectangle(10, 19, 14, 15)) > 0.8
    assert candidate.kept == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("rim", [1, 2])
def test_the_rim_of_a_region_drawn_too_small_is_not_missing(rim: int):
    evidence = evidence_of([rectangle(10, 10, 26, 26)])
    assert found_in([rectangle(10 + rim, 10 + rim, 26 - 2 * rim, 26 - 2 * rim)], evidence) == []


def test_pixels_of_objects_that_no_query_is_sure_of_are_missing():
    evidence = evidence_of([])
    map_khw = np.zeros_like(evidence.pixel_probs_khw)
    map_khw[1, 20:32, 30:44] = 0.7
    (candidate,) = found_in([], dataclasses.replace(evidence, pixel_probs_khw=map_khw))
    assert (candidate.source, candidate.segment.label) == (-1, "square")
    assert segment_iou(candidate.segment, rectangle(20, 30, 12, 14)) > 0.8


def test_nothing_is_missing_in_ignored_areas():
    evidence = evidence_of([rectangle(5, 5, 12, 12)])
    assert found_in([], evidence, ignored=(rectangle(0, 0, 30, 30),)) == []


def test_rows_say_what_a_candidate_is():
    regions = [rectangle(10, 4, 14, 15)]
    evidence = evidence_of([rectangle(10, 4, 14, 30, score=0.8)])
    missing = found_in(regions, evidence)
    (row,) = missing_rows(missing, regions, evidence, colours=None, local=None)
    numbers = dict(zip(MISSING_FEATURES, row, strict=True))
    assert numbers["covered"] == pytest.approx(0.5)
    assert numbers["foreground"] == pytest.approx(0.8, abs=0.01)
    assert numbers["best_iou"] == pytest.approx(segment_iou(missing[0].segment, regions[0]))


def test_no_candidate_gives_an_empty_table():
    table = missing_rows([], [], evidence_of([]), colours=None, local=None)
    assert table.shape == (0, len(MISSING_FEATURES))
