"""Deleted regions in index maps: background, never where an object or an unlabelled area is, in all views."""

import numpy as np
import pytest
import torch
from tests.unit.learning.data.test_index_map import filled

from maskloop.learning.data.augmentation import Augmentation, View
from maskloop.learning.data.collate import DELETED_KEY, IGNORED_KEY, Collator
from maskloop.learning.data.copy_paste import paste_objects
from maskloop.learning.data.dataset import ExampleDataset, TrainingExample
from maskloop.learning.data.index_map import (
    FIRST_BOX,
    FIRST_DELETED,
    IGNORED,
    TrainingItem,
    draw_index_map,
    visible_deleted,
    visible_objects,
)
from maskloop.learning.data.task_targets import TaskSampling
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.types import SegmentationTask


def item(index_hw, deleted, class_ids=()):
    image_hwc = np.zeros((*index_hw.shape, 3), np.uint8)
    return TrainingItem(
        image_hwc=image_hwc, index_hw=index_hw.astype(np.int16), class_ids=class_ids, deleted=deleted
    )


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        pytest.param({}, 100, id="alone"),
        pytest.param({"segments": [filled(0, 0, 4, 10)]}, 60, id="an object on a part"),
        pytest.param({"segments": [filled(0, 0, 6, 10)]}, 0, id="an object on most of it"),
        pytest.param({"segments": [filled(0, 0, 30, 30)]}, 0, id="inside a larger object"),
        pytest.param({"ignored": [filled(0, 0, 4, 10)]}, 60, id="an unlabelled area on a part"),
        pytest.param({"ignored": [filled(0, 0, 30, 30)]}, 0, id="in an unlabelled area"),
        pytest.param({"boxes": [(filled(0, 0, 30, 30), FIRST_BOX)]}, 0, id="in a box"),
        pytest.param({"boxes": [(filled(0, 0, 30, 30), IGNORED)]}, 0, id="in a box that is ignored"),
    ],
)
def test_draw_index_map_deleted_regions_lie_below_all_else(layers, left):
    values = {"segments": (), "size_hw": (32, 32), "max_objects": 9} | layers
    plain_hw, _ = draw_index_map(**values)
    index_hw, _ = draw_index_map(**values, deleted=[filled(0, 0, 10, 10)])
    assert (index_hw == FIRST_DELETED).sum() == left
    assert (np.where(index_hw == FIRST_DELETED, 0, index_hw) == plain_hw).all()


def test_draw_index_map_objects_without_a_query_are_no_place_for_deleted_regions():
    segments = [filled(0, 0, 4, 4), filled(10, 10, 9, 9)]
    index_hw, _ = draw_index_map(segments, (32, 32), max_objects=1, deleted=[filled(0, 0, 4, 5)])
    assert not (index_hw <= FIRST_DELETED).any()
    assert (index_hw[:4, :4] == IGNORED).all()


def test_draw_index_map_smaller_deleted_region_lies_over_a_larger_one():
    index_hw, _ = draw_index_map(
        [], (32, 32), max_objects=9, deleted=[filled(2, 2, 3, 3), filled(0, 0, 9, 9)]
    )
    assert (index_hw == FIRST_DELETED).sum() == 9
    assert (index_hw == FIRST_DELETED - 1).sum() == 72


def test_visible_objects_deleted_regions_are_background():
    index_hw = np.zeros((16, 16))
    index_hw[:8, :8] = 1
    index_hw[8:, 8:] = FIRST_DELETED - 1
    index_hw[:3, 8:] = IGNORED
    maps, ids = visible_objects(item(index_hw, 2, class_ids=(4,)))
    assert ids.tolist() == [4]
    assert (maps.numpy() == np.maximum(index_hw, IGNORED) * (index_hw > FIRST_DELETED)).all()


def test_visible_deleted_small_parts_are_left_out_and_others_numbered():
    first, second = np.zeros((16, 16)), np.zeros((16, 16))
    first[0, :9] = FIRST_DELETED  # nine pixels
    first[4:8, :5] = FIRST_DELETED - 1
    first[10:14, :5] = FIRST_DELETED - 2
    found = visible_deleted([item(first, 3), item(second, 0)], (24, 32))
    assert found.counts == (2, 0)
    expected = np.zeros((2, 24, 32))
    expected[0, 4:8, :5], expected[0, 10:14, :5] = 1, 2
    assert (found.index_bhw.numpy() == expected).all()


def test_example_dataset_views_show_deleted_regions_where_they_would_show_objects():
    """The same views with the regions as objects, pixel by pixel: turned, mirrored, cut, scaled."""
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    regions = (filled(20, 10, 30, 40), filled(0, 80, 14, 16))
    one_object = filled(40, 70, 10, 12)

    def dataset(**layers):
        return ExampleDataset(
            [TrainingExample(image=image, key="1", **layers)],
            length=40,
            labels=("a",),
            resize=lambda size_hw: (48, 72),
            augmentation=Augmentation(scale=(0.4, 2.0)),
            seed=3,
            max_objects=9,
        )

    counts = []
    given = dataset(segments=(one_object,), deleted=regions)
    for shown, drawn in zip(given, dataset(segments=(*regions, one_object)), strict=True):
        areas = [(drawn.index_hw == number).sum() for number in (1, 2)]  # larger first, as they are drawn
        found = visible_deleted([shown], shown.index_hw.shape)
        numbers_hw = np.zeros(shown.index_hw.shape)
        for place in (0, 1):
            if areas[place] >= 10:
                numbers_hw[drawn.index_hw == place + 1] = numbers_hw.max() + 1
        assert (found.index_bhw[0].numpy() == numbers_hw).all()
        assert ((shown.index_hw == 1) == (drawn.index_hw == 3)).all()
        counts.append(found.counts[0])
    assert {1, 2} <= set(counts)


def test_paste_objects_cut_deleted_regions_and_bring_none():
    target, source = np.zeros((8, 8), np.int16), np.zeros((8, 8), np.int16)
    target[:, :4] = FIRST_DELETED
    source[:4, :] = 1
    source[4:, 2:] = FIRST_DELETED
    blank = np.zeros((8, 8, 3), np.uint8)
    view, _ = paste_objects(View(blank, target, False), (), View(blank, source, False), (0,), chosen=(0,))
    expected = target.copy()
    expected[:4] = 1
    assert (view.index_hw == expected).all()


@pytest.mark.parametrize("task", list(SegmentationTask))
def test_with_task_deleted_regions_are_background_in_each_task(task):
    index_hw = np.zeros((16, 16))
    index_hw[:8, :8], index_hw[8:, 8:] = 1, FIRST_DELETED
    sampling = TaskSampling.of_project(SegmentationTask.PANOPTIC, labels=("a",), stuff_labels=())
    made = sampling.with_task(item(index_hw, 1, class_ids=(0,)), task)
    maps, _ = visible_objects(made)
    assert (maps.numpy() == (index_hw == 1)).all()
    semantic = task is SegmentationTask.SEMANTIC  # where it says nothing of a class's area
    assert visible_deleted([made], (16, 16)).counts == (0 if semantic else 1,)


def test_collator_deleted_regions_are_there_only_where_an_image_has_any():
    index_hw = np.zeros((32, 64), np.int16)
    index_hw[8:24, 16:48] = FIRST_DELETED
    preprocessing = Preprocessing(shortest_edge=64, size_divisor=64)
    collate = Collator(preprocessing=preprocessing, labels=("a",), task=SegmentationTask.INSTANCE)
    plain = item(np.zeros_like(index_hw), 0)
    assert DELETED_KEY not in collate([plain])
    batch = collate([plain, item(index_hw, 1)])
    assert batch[DELETED_KEY].counts == (0, 1)
    assert tuple(batch[DELETED_KEY].index_bhw.shape) == tuple(batch["mask_labels"].shape) == (2, 64, 64)
    assert (batch[DELETED_KEY].index_bhw[1] == 1).sum() == 16 * 32
    assert not batch[IGNORED_KEY]
    assert torch.equal(batch["mask_labels"], torch.zeros_like(batch["mask_labels"]))
