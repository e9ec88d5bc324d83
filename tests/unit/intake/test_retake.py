"""Annotations that are read again: set aside ones, and those that an older reader has read."""

from dataclasses import replace

import pytest
from tests.unit.intake.conftest import CONFIG, brush, choice, unreadable

from maskloop.store.corrections import DerivedMasks
from maskloop.types import EditCounts, SegmentOutcome
from maskloop_studio.intake import retake
from maskloop_studio.intake.retake import read_old_again, retry_set_aside
from maskloop_studio.intake.set_aside_report import set_aside_lines


def _empty_of_before(parts, **known):
    """Store what an older reader made of an annotation that it did not understand: an empty image."""
    (one,) = parts.store.annotations.history(70)
    masks = DerivedMasks(
        image_key="0" * 64,
        image_uri="a.png",
        size_hw=(20, 40),
        segments=(),
        **{"edits": EditCounts(), "model_version": None, **known},
    )
    parts.store.corrections.save(one.version_id, masks, reader_version=0)


def _read_again(parts):
    return read_old_again(1, store=parts.store, settings=parts.settings)


@pytest.mark.parametrize(
    ("result", "segments", "set_aside"),
    [
        pytest.param([brush()], [1], 0, id="readable now"),
        pytest.param([unreadable()], [], 1, id="still unreadable"),
        pytest.param([choice()], [], 1, id="a choice only"),
        pytest.param([], [0], 0, id="truly empty"),
    ],
)
def test_read_old_again_empty_corrections_of_before(studio, parts, take, result, segments, set_aside):
    studio.annotate(result)
    take(70)
    _empty_of_before(parts)
    studio.requests = 0
    assert _read_again(parts) == ()
    assert [len(one.segments) for one in parts.store.corrections.of(1)] == segments
    assert parts.store.annotations.count_set_aside(1) == set_aside
    assert studio.requests == 0  # from stored values only


def test_read_old_again_keeps_deleted_regions(studio, parts, take, make_segment):
    studio.annotate([brush()])
    take(70)
    _empty_of_before(parts, edits=EditCounts(removed=1), model_version="v1", deleted=(make_segment(),))
    _read_again(parts)
    (correction,) = parts.store.corrections.of(1)
    assert (len(correction.segments), len(correction.deleted)) == (1, 1)


def test_read_old_again_is_done_once_for_each_reader(studio, parts, take, monkeypatch):
    studio.annotate([brush()])
    take(70)
    _empty_of_before(parts)
    _read_again(parts)
    monkeypatch.setattr(retake, "read_again", lambda *_, **__: pytest.fail("read a second time"))
    assert _read_again(parts) == ()


def test_read_old_again_task_of_several_images_is_taken_in_again(studio, parts, take):
    studio.config = CONFIG.replace("</View>", '<Image name="ir" value="$ir"/></View>').replace(
        'toName="image"><Label', 'toName="image,ir"><Label'
    )
    studio.data = {"image": "a.png", "ir": "ir.png"}
    parts.store.projects.save(1, studio.config)
    studio.annotate([brush(to_name="ir")])
    take(70)
    _empty_of_before(parts)
    assert len(_read_again(parts)) == 1
    assert _read_again(parts) == ()  # one event is enough
    take(70)
    assert [one.image_uri for one in parts.store.corrections.of(1)] == ["ir.png"]


def test_retry_set_aside_same_config_and_reader_is_not_tried_again(studio, parts, take):
    studio.annotate([unreadable()])
    take(70)
    assert retry_set_aside(1, CONFIG, store=parts.store) == ()
    assert len(retry_set_aside(1, CONFIG, store=parts.store, every=True)) == 1
    assert retry_set_aside(1, CONFIG, store=parts.store, every=True) == ()  # once a day


def test_retry_set_aside_newer_reader_is_tried_once(studio, parts, take, monkeypatch):
    studio.annotate([brush(type="hologram", value={})])
    take(70)
    monkeypatch.setattr(retake, "READER_VERSION", retake.READER_VERSION + 1)
    assert len(retry_set_aside(1, CONFIG, store=parts.store)) == 1
    assert retry_set_aside(1, CONFIG, store=parts.store) == ()


def test_follow_project_config_that_makes_it_readable_takes_it_in(studio, parts, take):
    studio.config = CONFIG.replace("$image", "$picture")
    parts.store.projects.save(1, studio.config)
    studio.annotate([brush()])
    take(70)
    assert "picture" in parts.store.annotations.set_aside(1)[0].reason
    studio.config = CONFIG
    take(1, action="PROJECT_UPDATED")
    assert [job.job_id.partition("-")[0] for job in parts.queue.drain()] == ["event"]
    take(70)
    assert parts.store.annotations.count_set_aside(1) == 0
    assert len(parts.store.corrections.of(1)) == 1


def test_take_changed_annotation_that_is_readable_now_is_a_correction(studio, parts, take):
    studio.annotate([unreadable()])
    take(70)
    studio.annotate([brush()], later_s=1)
    take(70)
    assert parts.store.annotations.count_set_aside(1) == 0
    assert len(parts.store.corrections.of(1)) == 1


def test_set_aside_lines_name_annotation_task_and_reason(studio, parts, take):
    assert list(set_aside_lines(1, parts.store.annotations)) == []
    for number in range(1, 31):
        studio.annotate([unreadable()], number=number, task=number)
    take(*range(1, 31))
    first, second, *_, last = set_aside_lines(1, parts.store.annotations)
    assert first == "project 1: 30 annotations cannot be read; nothing is learnt from them"
    assert second.startswith("  annotation 1 of task 1: task 1, annotation 1, region r1: expected")
    assert last == "  and 10 more"


def test_read_old_again_says_which_segment_is_a_box_and_keeps_outcomes(studio, parts, take):
    studio.config = CONFIG.replace(
        "<Choices",
        '<RectangleLabels name="box" toName="image"><Label value="disc"/></RectangleLabels><Choices',
    )
    parts.store.projects.save(1, studio.config)
    value = {"x": 50, "y": 10, "width": 20, "height": 40, "rotation": 0, "rectanglelabels": ["disc"]}
    box = {**brush(), "id": "r2", "type": "rectanglelabels", "from_name": "box", "value": value}
    studio.annotate([brush(), box])
    take(70)
    (read,) = parts.store.corrections.of(1)
    assert [one.is_box for one in read.segments] == [False, True]
    (old,) = parts.store.corrections.old_readings(1, reader_version=retake.READER_VERSION + 1, limit=9)
    outcomes = (SegmentOutcome(label="disc", score=0.5, outcome="kept"),)
    forgotten = tuple(replace(one, is_box=True) for one in old.masks.segments)
    masks = replace(old.masks, segments=forgotten, outcomes=outcomes, model_version="m-v1")
    parts.store.corrections.save(old.version_id, masks, reader_version=0)
    assert _read_again(parts) == ()
    (read,) = parts.store.corrections.of(1)
    assert [one.is_box for one in read.segments] == [False, True]
    assert parts.store.corrections.outcomes(1, "m-v1", newest=9) == outcomes
