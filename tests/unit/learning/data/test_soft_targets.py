"""Several annotators' drawings: what becomes of their objects, and pixels against a slow plain version."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.learning.data.test_index_map import filled

from maskloop.learning.data.augmentation import Augmentation, View
from maskloop.learning.data.collate import SOFT_KEY, Collator
from maskloop.learning.data.copy_paste import paste_objects
from maskloop.learning.data.dataset import ExampleDataset, TrainingExample
from maskloop.learning.data.index_map import (
    FIRST_BOX,
    FIRST_DELETED,
    IGNORED,
    TrainingItem,
    draw_index_map,
    fitting_objects,
    visible_objects,
    visible_soft,
)
from maskloop.learning.data.soft_targets import draw_shares, merge_annotators
from maskloop.learning.data.task_targets import TaskSampling
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.types import SegmentationTask

A, B = filled(0, 0, 10, 10), filled(0, 20, 10, 10)
A_LOW, A_AS_B, FAR = filled(2, 0, 10, 10), filled(0, 0, 10, 10, "b"), filled(20, 20, 6, 6)
BOX_AT_A, AREA_AT_A = replace(filled(0, 0, 12, 12), is_box=True), filled(0, 0, 12, 12, "")
SKY, SKY_APART = filled(0, 0, 10, 30, "sky"), filled(20, 0, 2, 4, "sky")


@pytest.mark.parametrize(
    ("believed", "others", "expected", "ignored"),
    [
        pytest.param([A, B], [[A_LOW, B], [B, A]], [{"a": 1.0}, {"a": 1.0}], 0, id="all agree"),
        pytest.param([A, B], [[A], [A]], [{"a": 1.0}, {"a": 1 / 3}], 0, id="drawn by one"),
        pytest.param([A], [[A_AS_B]], [{"a": 0.5, "b": 0.5}], 0, id="another class, the believed one first"),
        pytest.param([A], [[A_AS_B], []], [{"a": 0.5, "b": 0.5}], 0, id="two of three, who differ"),
        pytest.param([A], [[], [], [A_AS_B]], [{"a": 0.25, "b": 0.25}], 0, id="two of four, who differ"),
        pytest.param([A, B], [[A, B], [A]], [{"a": 1.0}, {"a": 1.0}], 0, id="drawn by two of three"),
        pytest.param([A], [[A_AS_B], [A_AS_B]], [{"b": 1.0}], 0, id="most say otherwise"),
        pytest.param([A], [[A, FAR]], [{"a": 1.0}], 1, id="drawn by the other of two"),
        pytest.param([A], [[A, FAR], [A]], [{"a": 1.0}], 1, id="drawn by one other of three"),
        pytest.param([A], [[FAR, A], [A, FAR]], [{"a": 1.0}, {"a": 1.0}], 0, id="drawn by both others"),
        pytest.param([A], [[]], [{"a": 0.5}], 0, id="nothing drawn"),
        pytest.param([], [[A], [A]], [{"a": 1.0}], 0, id="nothing drawn by the believed one"),
        pytest.param([A, B], [[BOX_AT_A, B]], [{"a": 1.0}, {"a": 1.0}], 0, id="a box says nothing"),
        pytest.param([A, B], [[AREA_AT_A]], [{"a": 1.0}, {"a": 0.5}], 0, id="nor an unlabelled area"),
        pytest.param([], [[AREA_AT_A], [A]], [], 1, id="one of two who were asked"),
        pytest.param([], [[AREA_AT_A], [A], [A]], [{"a": 1.0}], 0, id="two of three who were asked"),
        pytest.param([SKY], [[SKY_APART]], [{"sky": 1.0}], 0, id="stuff is one object"),
        pytest.param([SKY], [[]], [{"sky": 0.5}], 0, id="no stuff"),
        pytest.param([A, A], [[A]], [{"a": 1.0}, {"a": 0.5}], 0, id="one drawn twice"),
    ],
)
def test_merge_annotators_objects_have_the_votes_of_those_who_drew_them(believed, others, expected, ignored):
    merged = merge_annotators(believed, others, stuff_labels={"sky"})
    assert [one.votes for one in merged.objects] == [pytest.approx(votes) for votes in expected]
    assert [one.label for one in merged.segments] == [max(votes, key=votes.get) for votes in expected]
    assert len(merged.ignored) == ignored
    assert [part.mask_hw.shape for part in merged.segments[: len(believed)]] == [
        part.mask_hw.shape for part in believed
    ]


def test_merge_annotators_what_others_drew_in_unknown_areas_is_left_out():
    merged = merge_annotators([B], [[A, B], [A, B]], unknown=[BOX_AT_A])
    assert len(merged.segments) == 1
    assert merged.ignored == ()


def test_merge_annotators_pairs_have_the_highest_sum_of_iou():
    """Nearest first would give the first object its best partner and leave the second one alone."""
    believed = [filled(0, 0, 10, 10), filled(0, 3, 10, 10)]
    other = [filled(0, 1, 10, 10), filled(0, 0, 10, 8)]
    merged = merge_annotators(believed, [other])
    assert [one.votes for one in merged.objects] == [{"a": 1.0}, {"a": 1.0}]


def random_drawings(seed, annotators=3):
    """Return what annotators draw, of objects that they shift, miss and mistake, on 32 x 32 pixels."""
    rng = np.random.default_rng(seed)
    true = [(rng.integers(2, 20, 2), rng.integers(5, 11, 2)) for _ in range(6)]
    drawn = []
    for _ in range(annotators):
        regions = []
        for (top, left), (height, width) in true:
            down, right = rng.integers(-1, 2, 2)
            if rng.random() < 0.8:
                label = "b" if rng.random() < 0.2 else "a"
                regions.append(filled(top + down, left + right, height, width, label))
        drawn.append(regions)
    return drawn


def plain_shares(merged, kept):
    """Return the share of each object at each pixel, pixel by pixel."""
    found = {}
    for y, x in np.ndindex(32, 32):
        shares = {}
        tops = []
        for regions in merged.annotators:
            covering = [
                one
                for one in sorted(regions, key=lambda each: -each.area)
                if 0 <= y - one.offset_yx[0] < one.mask_hw.shape[0]
                and 0 <= x - one.offset_yx[1] < one.mask_hw.shape[1]
            ]
            tops.append(covering[-1] if covering else None)
        for number, parts in enumerate(kept, start=1):
            drawn = merged.of(parts).drawn
            shares[number] = sum(tops[who] is of_one[0] for who, of_one in drawn.items()) / len(drawn)
        found[y, x] = shares
    return found


@pytest.mark.parametrize("seed", range(6))
def test_draw_shares_equal_a_plain_version(seed):
    believed, *others = random_drawings(seed)
    merged = merge_annotators(believed, others)
    values = {"max_objects": 20, "stuff_labels": ()}
    before_hw, _ = draw_index_map(merged.segments, (32, 32), ignored=merged.ignored, **values)
    kept, _ = fitting_objects(merged.segments, **values)
    index_hw, shares_hw = draw_shares(before_hw, kept, merged)
    plain = plain_shares(merged, kept)
    for place, shares in plain.items():
        best = max(shares.values())
        if before_hw[place] == IGNORED:
            assert index_hw[place] == IGNORED
            continue
        assert shares_hw[place] == round(255 * best)
        if best > 0:
            assert shares[int(index_hw[place])] == best
            if before_hw[place] > 0 and shares[int(before_hw[place])] == best:
                assert index_hw[place] == before_hw[place]
        else:
            assert index_hw[place] == before_hw[place]
    assert len(np.unique(shares_hw)) >= 3


def test_draw_shares_boxes_and_ignored_areas_stay_and_deleted_regions_give_way():
    merged = merge_annotators([A], [[filled(0, 0, 10, 13)]])
    before_hw, _ = draw_index_map(merged.segments, (16, 16), max_objects=5)
    before_hw[:, 10], before_hw[:, 11], before_hw[:, 12] = IGNORED, FIRST_BOX, FIRST_DELETED
    index_hw, shares_hw = draw_shares(before_hw, [merged.segments], merged)
    assert index_hw[5, 9:13].tolist() == [1, IGNORED, FIRST_BOX, 1]
    assert shares_hw[5, 9:13].tolist() == [255, 0, 0, 128]


def test_draw_shares_after_pickling_are_the_same():
    """Data workers get their dataset by pickle."""
    merged = merge_annotators([A, B], [[A_LOW], [B]])
    before_hw, _ = draw_index_map(merged.segments, (32, 32), max_objects=5)
    both = []
    for one in (merged, pickle.loads(pickle.dumps(merged))):
        kept, _ = fitting_objects(one.segments, max_objects=5, stuff_labels=())
        both.append(draw_shares(before_hw, kept, one))
    for first, second in zip(*both, strict=True):
        assert np.array_equal(first, second)


def make_dataset(labels=("a", "b"), *, augmentation, **layers):
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    return ExampleDataset(
        [TrainingExample(image=image, key="1", **layers)],
        length=40,
        labels=labels,
        resize=lambda size_hw: (48, 72),
        augmentation=augmentation,
        seed=3,
        max_objects=9,
    )


def test_example_dataset_views_show_shares_where_they_would_show_objects():
    """The same views with the pixels of each share as an object of its own: turned, mirrored, cut, scaled."""
    augmentation = Augmentation(scale=(0.4, 2.0))
    both, one = filled(20, 10, 30, 30), filled(20, 40, 30, 12)
    drawn_by_other = filled(20, 10, 30, 42)
    soft = make_dataset(segments=(both,), others=((drawn_by_other,),), augmentation=augmentation)
    plain = make_dataset(segments=(both, one), augmentation=augmentation)
    for shown, apart in zip(soft, plain, strict=True):
        assert np.array_equal(shown.image_hwc, apart.image_hwc)
        assert np.array_equal(shown.index_hw, np.minimum(apart.index_hw, 1))
        inside = shown.index_hw == 1
        assert np.array_equal(shown.shares_hw[inside], np.where(apart.index_hw == 1, 255, 128)[inside])
        assert shown.votes_nk.tolist() == [[1.0, 0.0]]


def test_example_dataset_votes_swap_with_labels_in_a_mirror():
    labels = ("left ear", "right ear", "nose")
    segments = (filled(20, 10, 30, 30, "left ear"), filled(20, 50, 20, 20, "nose"))
    others = ((), (), ())
    dataset = make_dataset(labels, segments=segments, others=others, augmentation=Augmentation())
    seen = set()
    for item in dataset:
        ear, nose = item.votes_nk.tolist()
        assert nose == [0, 0, 0.25]
        assert ear == [0.25 * (item.class_ids[0] == class_id) for class_id in range(3)]
        seen.add(item.class_ids[0])
    assert seen == {0, 1}


def test_example_dataset_validation_believes_one_annotator():
    dataset = make_dataset(segments=(A,), others=((B,),), augmentation=None)
    assert dataset[0].shares_hw is None
    assert dataset[0].votes_nk is None
    assert len(dataset[0].class_ids) == 1


def test_example_dataset_paste_keeps_shares_and_votes_of_both():
    """All objects of one image, drawn by one person, are pasted onto another, drawn by two."""
    image = np.zeros((64, 64, 3), np.uint8)
    target = TrainingExample(image=image, key="1", segments=(filled(0, 0, 30, 60),), others=((),))
    source = TrainingExample(image=image + 200, key="2", segments=(filled(20, 0, 30, 60, "b"),))
    dataset = ExampleDataset(
        [target, source],
        length=60,
        labels=("a", "b"),
        resize=lambda size_hw: size_hw,
        augmentation=Augmentation(paste=1.0, flips=False, quarter_turns=False, scale=(1.0, 1.0), colour=0.0),
        seed=0,
        max_objects=9,
    )
    seen = set()
    for item in dataset:
        votes = item.votes_of(2)
        assert len(votes) == len(item.class_ids)
        for number, (class_id, row) in enumerate(zip(item.class_ids, votes, strict=True), start=1):
            assert row[class_id] == (0.5 if class_id == 0 else 1.0)
            if item.shares_hw is not None:
                assert (item.shares_hw[item.index_hw == number] == 255).all()
        seen.add(item.class_ids)
    assert {(0, 1), (1, 0)} <= seen


def test_paste_objects_bring_their_shares():
    blank, index_hw = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int16)
    above_hw, shares_hw = index_hw.copy(), np.full((4, 4), 85, np.uint8)
    above_hw[:2] = 1
    plain, soft = View(blank, index_hw, False), View(blank, above_hw, False, shares_hw)
    onto_plain, _ = paste_objects(plain, (), soft, (0,), chosen=(0,))
    assert onto_plain.shares_hw.tolist() == [[85] * 4] * 2 + [[255] * 4] * 2
    onto_soft, _ = paste_objects(soft, (0,), View(blank, above_hw[::-1], False), (0,), chosen=(0,))
    assert onto_soft.shares_hw.tolist() == [[85] * 4] * 2 + [[255] * 4] * 2
    assert paste_objects(plain, (), plain, (), chosen=())[0].shares_hw is None


def soft_item(index_hw, shares_hw, votes):
    return TrainingItem(
        image_hwc=np.zeros((*index_hw.shape, 3), np.uint8),
        index_hw=index_hw.astype(np.int16),
        class_ids=tuple(int(np.argmax(row)) for row in votes),
        shares_hw=shares_hw.astype(np.uint8),
        votes_nk=np.array(votes, np.float32),
    )


def test_with_task_semantic_pixels_have_the_share_of_all_who_gave_the_class():
    rng = np.random.default_rng(0)
    votes = [[0.75, 0.25, 0.0], [0.5, 0.0, 0.0], [0.0, 0.25, 0.5]]
    item = soft_item(rng.integers(-1, 4, (16, 16)), rng.integers(0, 256, (16, 16)), votes)
    sampling = TaskSampling.of_project(SegmentationTask.INSTANCE, labels=("a", "b", "c"), stuff_labels=("c",))
    made = sampling.with_task(item, SegmentationTask.SEMANTIC)
    assert made.class_ids == (0, 2)
    assert made.votes_nk.tolist() == [[1, 0, 0], [0, 0, 1]]
    for place, value in np.ndenumerate(item.index_hw):
        if value > 0:
            share = item.shares_hw[place] * (0.75, 0.5, 0.5)[value - 1]
            assert abs(made.shares_hw[place] - share) <= 0.5
    things = TaskSampling.of_project(SegmentationTask.PANOPTIC, labels=("a", "b", "c"), stuff_labels=("c",))
    only_things = things.with_task(item, SegmentationTask.INSTANCE)
    assert only_things.votes_nk.tolist() == votes[:2]
    assert np.array_equal(only_things.shares_hw, item.shares_hw)


def test_visible_soft_is_numbered_as_visible_objects_and_padded_with_certainty():
    index_hw = np.zeros((16, 16))
    index_hw[0, :9], index_hw[4:8, :8], index_hw[10:, :8] = 1, 2, 3  # the first has nine pixels
    soft = soft_item(index_hw, np.full((16, 16), 85), [[1, 0], [0.25, 0.5], [0.5, 0]])
    plain = TrainingItem(image_hwc=soft.image_hwc, index_hw=soft.index_hw, class_ids=(0, 0, 1))
    found = visible_soft([soft, plain], (24, 20), 2)
    assert found.counts == (2, 2)
    assert found.votes_bnk.tolist() == [[[0.25, 0.5], [0.5, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]
    assert visible_objects(soft)[1].tolist() == [1, 0]
    assert (found.shares_bhw[0, :16, :16] == 85).all()
    assert (found.shares_bhw[0, 16:] == 255).all()
    assert (found.shares_bhw[1] == 255).all()


def test_collator_soft_labels_are_there_only_where_an_image_has_any():
    index_hw = np.zeros((32, 64), np.int16)
    index_hw[8:24, 16:48] = 1
    soft = soft_item(index_hw, np.full(index_hw.shape, 85), [[0.5, 0]])
    plain = replace(soft, shares_hw=None, votes_nk=None)
    preprocessing = Preprocessing(shortest_edge=64, size_divisor=64)
    collate = Collator(preprocessing=preprocessing, labels=("a", "b"), task=SegmentationTask.INSTANCE)
    assert SOFT_KEY not in collate([plain])
    batch = collate([plain, soft])
    assert tuple(batch[SOFT_KEY].shares_bhw.shape) == tuple(batch["mask_labels"].shape)
    assert batch[SOFT_KEY].votes_bnk.tolist() == [[[1, 0]], [[0.5, 0]]]
