"""Boxes in index maps: where they lie, which teach, and what a view shows of them."""

import numpy as np
import pytest

from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.dataset import ExampleDataset, TrainingExample
from maskloop.learning.data.index_map import (
    FIRST_BOX,
    IGNORED,
    TrainingItem,
    box_values,
    draw_index_map,
    visible_boxes,
    visible_objects,
)
from maskloop.types import Segment


def filled(top, left, height, width, label="a"):
    return Segment(mask_hw=np.ones((height, width), dtype=bool), offset_yx=(top, left), label=label)


def disc(label="a"):
    y, x = np.mgrid[:9, :9] - 4
    return Segment(mask_hw=x**2 + y**2 <= 16, offset_yx=(0, 0), label=label)


def test_draw_index_map_boxes_lie_over_larger_and_under_smaller_objects():
    box = filled(2, 2, 4, 4)
    index_hw, labels = draw_index_map(
        [filled(0, 0, 8, 8), filled(3, 3, 1, 2)], (10, 10), max_objects=9, boxes=[(box, FIRST_BOX)]
    )
    expected = np.zeros((10, 10), int)
    expected[:8, :8] = 1
    expected[2:6, 2:6] = FIRST_BOX
    expected[3, 3:5] = 2
    assert labels == ("a", "a")
    assert (index_hw == expected).all()


@pytest.mark.parametrize(
    ("boxes", "most", "expected"),
    [
        pytest.param([filled(0, 0, 2, 2), filled(0, 5, 3, 3)], 9, (-2, -3), id="upright"),
        pytest.param([disc(), filled(0, 5, 3, 3)], 9, (IGNORED, -2), id="ellipse"),
        pytest.param([filled(0, 0, 2, 2, "sky"), filled(0, 5, 3, 3)], 9, (IGNORED, -2), id="stuff"),
        pytest.param([filled(0, 0, 2, 2), filled(0, 5, 3, 3)], 1, (IGNORED, -2), id="too many"),
        pytest.param([filled(0, 0, 2, 2)], 0, (IGNORED,), id="no query left"),
        pytest.param([], 3, (), id="none"),
    ],
)
def test_box_values_upright_things_teach(boxes, most, expected):
    assert box_values(boxes, stuff_labels={"sky"}, most=most) == expected


def test_box_values_more_than_queries_is_logged(caplog):
    box_values([filled(0, 0, 2, 2), filled(0, 5, 3, 3)], stuff_labels=(), most=1, key="img")
    assert "boxes_only_ignored" in caplog.text
    assert "img" in caplog.text


def item(index_hw, *box_ids, class_ids=(0,)):
    image_hwc = np.zeros((*index_hw.shape, 3), np.uint8)
    return TrainingItem(
        image_hwc=image_hwc, index_hw=index_hw.astype(np.int16), class_ids=class_ids, box_ids=box_ids
    )


@pytest.mark.parametrize(
    ("rows", "columns", "whole"),
    [
        pytest.param((3, 9), (4, 12), [True, True], id="whole"),
        pytest.param((3, 9), (0, 12), [True, False], id="cut at the left: its height is not known"),
        pytest.param((3, 9), (4, 24), [True, False], id="cut at the right"),
        pytest.param((3, 16), (4, 12), [False, True], id="cut below: its width is not known"),
        pytest.param((0, 16), (0, 12), [False, False], id="cut in a corner"),
    ],
)
def test_visible_boxes_sides_are_shares_of_the_batch(rows, columns, whole):
    index_hw = np.zeros((16, 24))
    index_hw[slice(*rows), slice(*columns)] = FIRST_BOX
    boxes = visible_boxes(item(index_hw, 3), (32, 48))
    expected = [columns[0] / 48, rows[0] / 32, columns[1] / 48, rows[1] / 32]
    assert boxes.sides_m4.tolist() == [pytest.approx(expected)]
    assert boxes.whole_m2.tolist() == [whole]
    assert boxes.ids_m.tolist() == [3]


def test_visible_boxes_few_pixels_are_ignored_only():
    index_hw = np.zeros((16, 24))
    index_hw[2:5, 2:5] = FIRST_BOX
    index_hw[8:12, 8:12] = FIRST_BOX - 1
    shown = item(index_hw, 3, 4)
    assert visible_boxes(shown, (16, 24)).ids_m.tolist() == [4]
    maps, ids = visible_objects(shown)
    assert ids.tolist() == []
    assert int((maps == IGNORED).sum()) == 9 + 16


def test_example_dataset_views_show_boxes_as_they_would_masks():
    """The same views with the box as a mask: its extent there, pixel by pixel, is what the box says."""
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    box, mask = filled(20, 10, 30, 40, "left"), filled(5, 60, 20, 30, "right")
    common = {"image": image, "key": "1"}
    labels = ("left", "right")

    def dataset(example):
        return ExampleDataset(
            [example],
            length=40,
            labels=labels,
            resize=lambda size_hw: size_hw,
            augmentation=Augmentation(pairs=(labels,)),
            seed=3,
            max_objects=9,
        )

    given = dataset(TrainingExample(segments=(mask,), boxes=(box,), **common))
    as_masks = dataset(TrainingExample(segments=(box, mask), **common))
    seen = 0
    for shown, drawn in zip(given, as_masks, strict=True):
        inside_hw = drawn.index_hw == 1  # the larger of the two
        assert (shown.index_hw == np.where(inside_hw, FIRST_BOX, np.minimum(drawn.index_hw, 2) // 2)).all()
        assert shown.box_ids + shown.class_ids == drawn.class_ids
        boxes = visible_boxes(shown, shown.index_hw.shape)
        if inside_hw.sum() < 10:
            assert len(boxes) == 0
            continue
        seen += 1
        y, x = np.nonzero(inside_hw)
        height, width = inside_hw.shape
        expected = [x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height]
        assert boxes.sides_m4[0].tolist() == pytest.approx(expected)
    assert seen > 20
