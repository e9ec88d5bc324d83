"""Batches: mask targets lie where the pixels of the padded images lie."""

from dataclasses import replace

import numpy as np
import pytest

from maskloop.learning.data.collate import BOXES_KEY, IGNORED_KEY, Collator
from maskloop.learning.data.index_map import FIRST_BOX, IGNORED, TrainingItem
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.types import SegmentationTask

PLAIN = Preprocessing(shortest_edge=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SQUARE = replace(PLAIN, shortest_edge=None, box_hw=(64, 64), pad_hw=(64, 64), size_divisor=16)


@pytest.mark.parametrize(
    ("preprocessing", "canvas_hw", "padded_hw"),
    [
        (PLAIN, (32, 64), (32, 64)),
        (SQUARE, (32, 64), (64, 64)),
        (SQUARE, (64, 32), (64, 64)),
        (SQUARE, (64, 64), (64, 64)),
        (replace(PLAIN, size_divisor=96), (32, 64), (96, 96)),
    ],
    ids=["no padding", "landscape in a square", "portrait in a square", "square", "large divisor"],
)
def test_collator_pads_targets_like_images(preprocessing, canvas_hw, padded_hw):
    index_hw = np.zeros(canvas_hw, np.int16)
    index_hw[4:20, 8:24] = 1
    image_hwc = (
        np.repeat((index_hw == 1)[..., None], 3, axis=2).astype(np.uint8) * 255
    )  # white where the object is
    collate = Collator(preprocessing=preprocessing, labels=("a",), task=SegmentationTask.INSTANCE)
    batch = collate([TrainingItem(image_hwc=image_hwc, index_hw=index_hw, class_ids=(0,))] * 2)
    assert tuple(batch["pixel_values"].shape) == (2, 3, *padded_hw)
    assert tuple(batch["mask_labels"].shape) == (2, *padded_hw)
    assert ((batch["pixel_values"][:, 0] > 0.5) == (batch["mask_labels"] == 1)).all()


def test_collator_boxes_are_there_only_where_an_image_has_any():
    index_hw = np.zeros((32, 64), np.int16)
    index_hw[8:24, 16:48] = FIRST_BOX
    plain = TrainingItem(
        image_hwc=np.zeros((32, 64, 3), np.uint8), index_hw=np.zeros_like(index_hw), class_ids=()
    )
    collate = Collator(preprocessing=SQUARE, labels=("a", "b"), task=SegmentationTask.INSTANCE)
    assert BOXES_KEY not in collate([plain])
    batch = collate([plain, replace(plain, index_hw=index_hw, box_ids=(1,))])
    none, one = batch[BOXES_KEY]
    assert (len(none), one.ids_m.tolist()) == (0, [1])
    assert one.sides_m4.tolist() == [[0.25, 0.125, 0.75, 0.375]]  # of the padded 64 x 64
    assert (batch["mask_labels"][1] == IGNORED).sum() == 16 * 32
    assert batch[IGNORED_KEY]
