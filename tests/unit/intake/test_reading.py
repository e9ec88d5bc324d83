"""A version of an annotation: its masks on each image, or why it is set aside."""

import dataclasses

import numpy as np
import pytest
from tests.unit.intake.conftest import CONFIG, box_mask, brush, choice, unreadable

from maskloop.types import UNLABELLED
from maskloop_studio.projects.correction_labels import match_correction_labels

TWO_IMAGES = (
    '<View><Image name="rgb" value="$rgb"/><Image name="ir" value="$ir"/>'
    '<BrushLabels name="brush" toName="rgb,ir"><Label value="disc"/></BrushLabels></View>'
)
PAGES = (
    '<View><Image name="image" valueList="$pages"/>'
    '<BrushLabels name="brush" toName="image"><Label value="disc"/></BrushLabels></View>'
)


def _mask_of(correction):
    full = np.zeros(correction.size_hw, dtype=np.bool_)
    for segment in correction.segments:
        (top, left), (height, width) = segment.offset_yx, segment.mask_hw.shape
        full[top : top + height, left : left + width] |= segment.mask_hw
    return full


def _count(parts):
    return sum(parts.store.corrections.count(1, split=split) for split in ("train", "holdout"))


def test_take_readable_annotation_is_a_correction_with_its_mask(studio, parts, take):
    studio.annotate([brush()])
    take(70)
    (correction,) = parts.store.corrections.of(1)
    np.testing.assert_array_equal(_mask_of(correction), box_mask())
    assert (correction.view, correction.image_index, correction.image_uri) == ("", 0, "a.png")
    assert parts.store.annotations.count_set_aside(1) == 0


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        pytest.param([unreadable()], "region r1", id="one unreadable region"),
        pytest.param([brush(), unreadable() | {"id": "r2"}], "region r2", id="beside a readable one"),
        pytest.param([{"type": "hologram", "id": "h", "value": {}}], "known type", id="unknown type"),
        pytest.param([choice()], "MASKLOOP_EMPTY_WITH_OTHER_ANSWERS", id="a choice only"),
        pytest.param({"not": "a list"}, "a list of regions", id="no list"),
    ],
)
def test_take_unreadable_annotation_is_set_aside_and_teaches_nothing(studio, parts, take, result, reason):
    studio.annotate(result)
    take(70)
    (one,) = parts.store.annotations.set_aside(1)
    assert (one.annotation_id, one.task_id) == (70, 7)
    assert reason in one.reason
    assert parts.store.corrections.of(1) == ()
    assert (
        parts.store.corrections.count(1, split="train") + parts.store.corrections.count(1, split="holdout")
        == 0
    )
    assert parts.store.corrections.underived(1) == ()


def test_take_empty_annotation_teaches_that_nothing_is_there(studio, parts, take):
    studio.annotate([])
    take(70)
    (correction,) = parts.store.corrections.of(1)
    assert correction.segments == ()


def test_take_other_answers_teach_an_empty_image_where_the_setting_says_so(studio, parts, take):
    settings = parts.settings.model_copy(update={"empty_with_other_answers": True})
    studio.annotate([choice()])
    take(70, parts=dataclasses.replace(parts, settings=settings))
    (correction,) = parts.store.corrections.of(1)
    assert correction.segments == ()


def test_take_unknown_label_is_stored_and_matched_by_trainings(studio, parts, take, caplog):
    studio.annotate([brush("square")])
    take(70)
    (correction,) = parts.store.corrections.of(1)
    assert [segment.label for segment in correction.segments] == ["square"]
    renamed = parts.settings.model_copy(update={"label_renames": {"square": "disc"}})
    for settings, label in ((parts.settings, UNLABELLED), (renamed, "disc")):
        ((matched,),) = match_correction_labels((correction,), label_config=CONFIG, settings=settings)
        assert [segment.label for segment in matched.segments] == [label]
    assert "labels_unknown" in caplog.text
    assert "MASKLOOP_LABEL_RENAMES" in caplog.text


@pytest.mark.parametrize(
    ("label", "renames"),
    [
        pytest.param("disc", {}, id="exact"),
        pytest.param("Disc", {}, id="another case"),
        pytest.param("circle", {"circle": "disc"}, id="renamed"),
    ],
)
def test_take_label_is_matched(studio, parts, take, label, renames):
    settings = parts.settings.model_copy(update={"label_renames": renames})
    studio.annotate([brush(label)])
    take(70, parts=dataclasses.replace(parts, settings=settings))
    (correction,) = parts.store.corrections.of(1)
    assert [segment.label for segment in correction.segments] == ["disc"]


def test_take_renamed_config_reads_an_unchanged_annotation_with_its_own_config(studio, parts, take):
    studio.annotate([brush("disc")])
    take(70)
    studio.config = CONFIG.replace("disc", "circle_new")
    parts.store.corrections.set_aside(1, "as if it had not been readable", label_config=CONFIG)
    take(70)
    (correction,) = parts.store.corrections.of(1)
    assert [segment.label for segment in correction.segments] == ["disc"]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param([brush(to_name="ir")], {("ir", 0): "ir.png"}, id="second image"),
        pytest.param(
            [brush(to_name="ir"), brush(to_name="rgb") | {"id": "r2"}],
            {("ir", 0): "ir.png", ("rgb", 0): "rgb.png"},
            id="both",
        ),
        pytest.param([], {("ir", 0): "ir.png", ("rgb", 0): "rgb.png"}, id="empty"),
    ],
)
def test_take_two_images_keeps_the_masks_of_each(studio, parts, take, result, expected):
    studio.config, studio.data = TWO_IMAGES, {"rgb": "rgb.png", "ir": "ir.png"}
    studio.annotate(result)
    take(70)
    found = {(one.view, one.image_index): one.image_uri for one in parts.store.corrections.of(1)}
    assert found == expected
    splits = [len(parts.store.corrections.of(1, split=split)) for split in ("train", "holdout")]
    assert sorted(splits) == [0, len(expected)]  # all images of a task are in one split


def test_take_pages_keeps_the_masks_of_each_page(studio, parts, take):
    studio.config, studio.data = PAGES, {"pages": ["p0.png", "p1.png", "p2.png"]}
    second = box_mask(left=20)
    studio.annotate([brush(item_index=0), brush(mask=second, item_index=2) | {"id": "r2"}])
    take(70)
    found = {one.image_index: one for one in parts.store.corrections.of(1)}
    assert {index: one.image_uri for index, one in found.items()} == {0: "p0.png", 2: "p2.png"}
    np.testing.assert_array_equal(_mask_of(found[2]), second)
    assert (
        parts.store.corrections.count(1, split="train") + parts.store.corrections.count(1, split="holdout")
        == 1
    )


def test_take_newer_version_replaces_the_images_of_the_older(studio, parts, take):
    studio.config, studio.data = TWO_IMAGES, {"rgb": "rgb.png", "ir": "ir.png"}
    studio.annotate([brush(to_name="ir")])
    take(70)
    studio.annotate([brush(to_name="rgb")], later_s=1)
    take(70)
    assert [one.view for one in parts.store.corrections.of(1)] == ["rgb"]


def test_take_forty_images_half_unreadable_sets_twenty_aside(studio, parts, take):
    for number in range(40):
        studio.annotate([unreadable() if number % 2 else brush()], number=number + 1, task=number + 1)
    take(*range(1, 41))
    corrections = parts.store.corrections.of(1)
    assert parts.store.annotations.count_set_aside(1) == 20
    assert len(corrections) == 20
    assert all(correction.segments for correction in corrections)


@pytest.mark.parametrize("skipped", [False, True], ids=["submitted", "skipped"])
@pytest.mark.parametrize("was_read", [False, True], ids=["new", "read before"])
def test_take_annotation_whose_task_is_gone_counts_as_deleted(studio, parts, take, skipped, was_read):
    studio.annotate([] if skipped else [brush()])
    studio.annotations[70]["was_cancelled"] = skipped
    if was_read:
        take(70)
        assert parts.store.annotations.known(1).keys() == {70}
    studio.deleted_tasks.add(7)
    take(7, action="TASKS_DELETED")
    take(70)  # saved at the same moment: Label Studio goes on answering with it
    assert parts.store.annotations.known(1) == {}
    assert _count(parts) == 0
    assert parts.store.projects.orphans(1) == ((0, 1) if skipped else (1, 0))
