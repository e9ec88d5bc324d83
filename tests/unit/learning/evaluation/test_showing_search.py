"""From which score on segments are worth drawing: a table of images whose best floor is known."""

import numpy as np
import pytest

from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.showing import (
    HIDDEN,
    Showing,
    read_showing,
    shown_segments,
    write_showing,
)
from maskloop.learning.evaluation.showing_search import ShowingRule, find_showing, least_worthy_score
from maskloop.types import Prediction, Segment, SegmentOutcome

RULE = ShowingRule(kept_share=0.5, saving=0.1)
EDGE = 10


def square(place, score=1.0, label="disc", edge=EDGE):
    mask_hw = np.ones((edge, edge), np.bool_)
    return Segment(mask_hw=mask_hw, offset_yx=(0, 20 * place), label=label, score=score)


def image(good, bad, label="disc"):
    """One image: a segment on its object for each score of `good`, one on nothing for each of `bad`."""
    on_objects = [square(place, score, label) for place, score in enumerate(good)]
    on_nothing = [square(len(good) + place, score, label) for place, score in enumerate(bad)]
    truth = GroundTruth(segments=tuple(square(place, label=label) for place in range(len(good))))
    found = sorted([*on_objects, *on_nothing], key=lambda one: -one.score)
    return Prediction(segments=tuple(found), size_hw=(20, 1000), confidence=0.5), truth


def find(*pairs, labels=("disc",), rule=RULE):
    predictions, truths = zip(*pairs, strict=True) if pairs else ((), ())
    return find_showing(predictions, truths, labels=labels, rule=rule)


TEN = np.linspace(0.9, 0.99, 10)
CASES = [
    pytest.param((TEN, ()), 0.0, 10, id="all are kept"),
    pytest.param((TEN, np.full(10, 0.6)), 0.6001, 10, id="half are kept: the others are left out"),
    pytest.param((TEN, np.full(30, 0.6)), 0.6001, 10, id="the sure quarter is kept"),
    pytest.param((np.full(10, 0.6), np.full(30, 0.9)), 0.0, 40, id="the sure ones are wrong, but save work"),
    pytest.param((np.full(10, 0.6), np.full(60, 0.9)), HIDDEN, 0, id="one in seven is kept"),
    pytest.param(((), TEN), HIDDEN, 0, id="all are wrong"),
    pytest.param(((0.9, 0.9, 0.9, 0.9), ()), HIDDEN, 0, id="four segments say nothing"),
    pytest.param(((), ()), HIDDEN, 0, id="no segment"),
]


@pytest.mark.parametrize(("scores", "floor", "drawn"), CASES)
def test_find_showing_draws_from_the_lowest_worthy_score(scores, floor, drawn):
    found = find(image(*scores))
    kept = shown_segments(image(*scores)[0], found.floors).segments
    assert len(kept) == found.drawn == drawn
    if floor in (0.0, HIDDEN):
        assert found.floors == {"disc": floor}
    assert found.draws_nothing is (floor == HIDDEN)


def test_find_showing_without_images_draws_nothing_and_says_why():
    assert find().draws_nothing
    assert "no annotated image" in find().in_words()


def test_find_showing_cheap_to_delete_but_mostly_junk_is_hidden():
    pair = image(np.full(10, 0.9), np.full(60, 0.9))
    found = find(pair)
    assert found.work_saved_by_all > 0  # ten objects fewer to draw, for sixty deletions
    assert found.draws_nothing
    assert not find(pair, rule=ShowingRule(saving=0.05)).draws_nothing
    assert not find(pair, rule=ShowingRule(kept_share=0.1)).draws_nothing


def test_find_showing_rare_class_takes_the_floor_of_all():
    common, truth = image(TEN, np.full(30, 0.6))
    rare = square(45, 0.7, "star")
    pair = (Prediction(segments=(*common.segments, rare), size_hw=(20, 1000), confidence=0.5), truth)
    found = find(pair, labels=("disc", "star"))
    assert 0.6 < found.floors["star"] <= 0.9
    assert found.hidden == ()


def test_find_showing_segment_in_an_ignored_area_does_not_count():
    prediction, truth = image(TEN, np.full(30, 0.6))
    ignored_hw = np.zeros((20, 1000), np.bool_)
    ignored_hw[:, 200:] = True  # behind the ten objects
    found = find((prediction, GroundTruth(segments=truth.segments, ignored_hw=ignored_hw)))
    assert (found.found, found.floors) == (10, {"disc": 0.0})


def outcomes(*pairs):
    return [SegmentOutcome(label="disc", score=score, outcome=outcome) for score, outcome in pairs]


@pytest.mark.parametrize(
    ("seen", "drawn"),
    [
        pytest.param([(0.9, "removed")] * 4, 4, id="four say nothing"),
        pytest.param([(0.9, "removed")] * 5, 0, id="five removed"),
        pytest.param([(0.9, "kept")] * 3 + [(0.6, "removed")] * 3, 6, id="half kept"),
        pytest.param([(0.9, "nudged")] * 5 + [(0.6, "redrawn")] * 6, 11, id="redrawn ones save work too"),
        pytest.param([(0.9, "nudged")] * 5 + [(0.6, "merged")] * 40, 5, id="most merged"),
        pytest.param([(0.9, "kept")] * 5 + [(0.9, "removed")] * 90, 0, id="equal scores stay together"),
        pytest.param([(0.9, "kept")] * 5 + [(1.0, "added")] * 50, 5, id="added"),
    ],
)
def test_least_worthy_score_by_what_annotators_kept(seen, drawn):
    floor = least_worthy_score(outcomes(*seen), RULE)
    assert sum(score >= floor for score, outcome in seen if outcome != "added") == drawn
    assert (floor == 0.0) is (drawn == len([one for one in seen if one[1] != "added"]))


def test_showing_survives_its_file(tmp_path):
    found = find(image(np.linspace(0.6, 0.99, 30), ()))
    write_showing(tmp_path, found)
    assert read_showing(tmp_path) == found
    assert found.displayed(0.9) == found.calibration.apply(0.9) > 0.9


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"floors": 3}', '{"floors": {}, "calibration": {"slope": -1}}']
)
def test_read_showing_missing_or_damaged_is_none(tmp_path, text, caplog):
    if text is not None:
        (tmp_path / "showing.json").write_text(text)
    assert read_showing(tmp_path) is None
    assert ("showing_unreadable" in caplog.text) is (text is not None)


def test_showing_in_words_names_what_is_hidden():
    one = Showing(floors={"a": 0.5, "b": HIDDEN}, images=2, objects=5, found=9, drawn=4, work_saved=0.25)
    assert one.in_words().startswith("draws 4 of 9 segments")
    assert "saves 25%" in one.in_words()
    assert one.in_words().endswith("never b")
