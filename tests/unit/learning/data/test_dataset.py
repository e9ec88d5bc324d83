import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from maskloop.errors import ImageError
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.collate import IGNORED_KEY, Collator
from maskloop.learning.data.dataset import (
    ExampleDataset,
    TrainingExample,
    common_canvas,
    load_example_image,
)
from maskloop.learning.data.index_map import (
    IGNORED,
    TrainingItem,
    draw_index_map,
    object_planes,
    visible_objects,
)
from maskloop.segmentation.image import decode_image
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.types import Segment, SegmentationTask

PLAIN = Preprocessing(shortest_edge=64)


def box(top, left, height, width, label="a"):
    return Segment(mask_hw=np.ones((height, width), dtype=bool), offset_yx=(top, left), label=label)


def make_examples(count, size_hw=(64, 96)):
    made = [make_image(seed, size_hw=size_hw) for seed in range(count)]
    return [TrainingExample(image=m.image_hwc, segments=m.segments, key=str(i)) for i, m in enumerate(made)]


def make_dataset(examples, **changes):
    values = {
        "length": 8,
        "labels": SHAPE_CLASSES,
        "resize": lambda size_hw: size_hw,
        "augmentation": Augmentation(),
        "seed": 0,
        "max_objects": 20,
    }
    return ExampleDataset(examples, **(values | changes))


def test_draw_index_map_small_objects_lie_over_large():
    index_hw, labels = draw_index_map([box(2, 2, 2, 2, "b"), box(0, 0, 8, 8)], (8, 8), max_objects=9)
    assert labels == ("a", "b")
    assert (index_hw == 2).sum() == 4
    assert (index_hw == 1).sum() == 60


def test_draw_index_map_too_many_objects_keeps_largest_and_logs(caplog):
    segments = [box(row, 0, 1, row + 1) for row in range(5)]
    with caplog.at_level(logging.WARNING):
        index_hw, labels = draw_index_map(segments, (8, 8), max_objects=2, key="img")
    assert len(labels) == 2
    assert np.count_nonzero(index_hw > 0) == 5 + 4
    assert np.count_nonzero(index_hw == IGNORED) == 3 + 2 + 1  # something is there
    assert "objects_dropped" in caplog.text


def test_draw_index_map_stuff_parts_become_one():
    index_hw, labels = draw_index_map(
        [box(0, 0, 2, 2), box(5, 5, 2, 2)], (8, 8), max_objects=9, stuff_labels="a"
    )
    assert labels == ("a",)
    assert np.count_nonzero(index_hw == 1) == 8


def test_visible_objects_plain_view_gives_back_the_visible_masks():
    (example,) = make_examples(1)
    item = make_dataset([example], augmentation=None)[0]
    index_hw, class_ids = visible_objects(item)
    masks = object_planes(index_hw, len(class_ids))
    assert masks.dtype == torch.float32
    assert class_ids.dtype == torch.int64
    assert sorted(masks.sum(dim=(1, 2)).int().tolist()) == sorted(s.area for s in example.segments)
    assert sorted(SHAPE_CLASSES[i] for i in class_ids) == sorted(s.label for s in example.segments)


def test_example_dataset_each_epoch_holds_each_example_once():
    examples = [
        TrainingExample(image=np.full((32, 32, 3), 20 * value, np.uint8), segments=(), key=str(value))
        for value in range(4)
    ]
    dataset = make_dataset(examples, augmentation=Augmentation(colour=0.0, scale=(1.0, 1.0)))
    order = [int(dataset[index].image_hwc[0, 0, 0]) // 20 for index in range(8)]
    assert sorted(order[:4]) == sorted(order[4:]) == [0, 1, 2, 3]


def test_example_dataset_same_index_is_the_same_view():
    first, second = (make_dataset(make_examples(3)) for _ in range(2))
    first[0], first[5]  # earlier reads must not change the result
    assert np.array_equal(first[6].image_hwc, second[6].image_hwc)
    assert np.array_equal(first[6].index_hw, second[6].index_hw)


def test_example_dataset_beyond_length_raises():
    with pytest.raises(IndexError):
        make_dataset(make_examples(1))[8]


@pytest.mark.parametrize(
    ("sizes_hw", "expected"),
    [([(128, 160)], (128, 160)), ([(128, 161)] * 3, (128, 192)), ([(64, 64), (64, 64), (128, 64)], (64, 64))],
    ids=["same", "rounded", "median"],
)
def test_common_canvas(sizes_hw, expected):
    assert common_canvas(sizes_hw) == expected


def test_collator_mixed_items_gives_forward_arguments():
    empty = TrainingExample(image=np.zeros((64, 96, 3), np.uint8), segments=(), key="empty")
    dataset = make_dataset([*make_examples(2), empty], augmentation=None, length=3)
    collator = Collator(preprocessing=PLAIN, labels=SHAPE_CLASSES, task=SegmentationTask.INSTANCE)
    batch = collator([dataset[index] for index in range(3)])
    assert tuple(batch["pixel_values"].shape) == (3, 3, 64, 96)
    assert tuple(batch["mask_labels"].shape) == (3, 64, 96)
    assert [int(index_hw.max()) for index_hw in batch["mask_labels"]] == [
        len(i) for i in batch["class_labels"]
    ]
    assert min(len(ids) for ids in batch["class_labels"]) == 0
    assert not batch[IGNORED_KEY]


def test_load_example_image_turned_by_exif_is_upright(tmp_path):
    turned = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=exif)
    example = TrainingExample(image=tmp_path / "a.jpg", segments=(), key="a")
    assert load_example_image(example).shape == (20, 10, 3)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.full((8, 8), 30000, np.uint16), id="16-bit grey"),
        pytest.param(np.full((8, 8, 4), 10, np.uint8), id="transparency"),
        pytest.param(np.full((8, 8, 3), 77, np.uint8), id="colours"),
        pytest.param(np.full((8, 8), 77, np.uint8), id="grey"),
    ],
)
def test_load_example_image_is_what_is_served(tmp_path, pixels):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    served = decode_image(path.read_bytes(), max_pixels=100)
    assert np.array_equal(load_example_image(TrainingExample(image=path, segments=(), key="a")), served)


def test_load_example_image_cut_off_jpeg_is_read_as_intake_reads_it(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-2])
    assert load_example_image(TrainingExample(image=path, segments=(), key="a")).shape == (64, 64, 3)


def test_load_example_image_damaged_raises(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    example = TrainingExample(image=tmp_path / "a.png", segments=(), key="1/2/3")
    with pytest.raises(ImageError, match="1/2/3"):
        load_example_image(example)
    with pytest.raises(ImageError, match="readable"):
        load_example_image(replace(example, image=tmp_path / "none.png"))


def test_draw_index_map_ignored_areas_lie_under_objects():
    index_hw, labels = draw_index_map([box(0, 0, 2, 2)], (4, 4), max_objects=9, ignored=[box(0, 0, 4, 2)])
    assert labels == ("a",)
    assert (index_hw == 1).sum() == 4
    assert (index_hw == IGNORED).sum() == 4


def test_draw_index_map_too_many_objects_keeps_one_of_each_class():
    segments = [*(box(row, 0, 1, 8) for row in range(4)), box(7, 0, 1, 1, "rare")]
    _, labels = draw_index_map(segments, (8, 8), max_objects=2)
    assert labels == ("a", "rare")


def test_visible_objects_what_is_left_of_an_object_is_ignored():
    index_hw = np.zeros((8, 8), np.int16)
    index_hw[0, :3], index_hw[4:, :], index_hw[2, :4] = 1, 2, IGNORED
    item = TrainingItem(image_hwc=np.zeros((8, 8, 3), np.uint8), index_hw=index_hw, class_ids=(0, 1))
    seen_hw, class_ids = visible_objects(item)
    assert object_planes(seen_hw, 1).sum() == 32
    assert class_ids.tolist() == [1]
    assert (seen_hw == IGNORED).sum() == 3 + 4


def test_example_dataset_mirrored_view_swaps_left_and_right():
    """The left half is labelled left: in every view, what lies on the left is."""
    segments = (box(0, 0, 32, 16, "left half"), box(0, 16, 32, 16, "right half"))
    example = TrainingExample(image=np.zeros((32, 32, 3), np.uint8), segments=segments, key="halves")
    still = Augmentation(scale=(1.0, 1.0), colour=0.0)
    labels = ("right half", "other", "left half")
    dataset = make_dataset([example], labels=labels, augmentation=still, length=24)
    seen = set()
    for index in range(24):
        item = dataset[index]
        place = int(item.index_hw[16, 2])  # one on the left
        assert labels[item.class_ids[place - 1]] == "left half"
        seen.add(place)
    assert seen == {1, 2}  # both the image and its mirror came


def test_example_dataset_balanced_shows_new_and_rare_more_often():
    examples = [
        TrainingExample(
            image=np.full((32, 32, 3), number, np.uint8),
            segments=(box(0, 0, 8, 8, "star" if number == 19 else "disc"),),
            key=str(number),
            fresh=number == 0,
        )
        for number in range(20)
    ]
    plain = Augmentation(flips=False, quarter_turns=False, scale=(1.0, 1.0), colour=0.0)
    dataset = make_dataset(examples, augmentation=plain, balance=True, length=200)
    counts = np.bincount([int(dataset[index].image_hwc[16, 16, 0]) for index in range(200)], minlength=20)
    assert counts[0] >= 17  # twice its share of 10, less what the others lack
    assert counts[19] >= 17
    assert counts.min() >= 6  # old ones are replayed


def test_example_dataset_keeps_index_maps_not_planes():
    """A batch of 4 views with 20 objects each: 2 bytes a pixel, where float planes would be 80."""
    examples = make_examples(4, (64, 96))
    dataset = make_dataset(examples)
    items = [dataset[index] for index in range(4)]
    assert sum(item.index_hw.nbytes for item in items) == 4 * 64 * 96 * 2


def test_dataset_pastes_objects_of_other_images_within_the_limit_of_queries():
    examples = make_examples(6)
    alone, pasted = (
        make_dataset(examples, augmentation=Augmentation(paste=share), max_objects=7, length=40)
        for share in (0.0, 1.0)
    )
    counts = [(len(alone[index].class_ids), len(pasted[index].class_ids)) for index in range(40)]
    assert sum(after for _, after in counts) > sum(before for before, _ in counts)
    assert all(before <= after <= 7 for before, after in counts)
    assert all(pasted[index].index_hw.max() <= len(pasted[index].class_ids) for index in range(40))


def test_dataset_pastes_no_stuff():
    examples = make_examples(6)
    pasted = make_dataset(
        examples, augmentation=Augmentation(paste=1.0), stuff_labels=SHAPE_CLASSES, length=20
    )
    alone = make_dataset(examples, stuff_labels=SHAPE_CLASSES, length=20)
    assert [pasted[index].class_ids for index in range(20)] == [alone[index].class_ids for index in range(20)]
