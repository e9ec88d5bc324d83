"""Each task's targets against a slow plain version, and which task an item gets."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.lab.tiny_models import build_tiny_oneformer
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.collate import OTHER_TASK_KEY, Collator
from maskloop.learning.data.dataset import ExampleDataset, TrainingExample
from maskloop.learning.data.index_map import FIRST_BOX, FIRST_DELETED, IGNORED, TrainingItem, visible_objects
from maskloop.learning.data.task_targets import TaskSampling, allowed_tasks
from maskloop.types import Segment, SegmentationTask

INSTANCE, SEMANTIC, PANOPTIC = (SegmentationTask(name) for name in ("instance", "semantic", "panoptic"))
LABELS = ("cat", "dog", "sky")
STUFF = frozenset({"sky"})


def sampling(own):
    return TaskSampling.of_project(own, labels=LABELS, stuff_labels=STUFF)


def random_item(seed):
    """Return an item with objects, sky, boxes, ignored and deleted areas strewn over 12 x 12 pixels."""
    rng = np.random.default_rng(seed)
    class_ids = (*rng.integers(0, 2, size=4).tolist(), 2)
    index_hw = rng.integers(FIRST_BOX - 1, len(class_ids) + 1, size=(12, 12)).astype(np.int16)
    index_hw[rng.random((12, 12)) < 0.1] = FIRST_DELETED - 1
    return TrainingItem(
        image_hwc=np.zeros((12, 12, 3), np.uint8),
        index_hw=index_hw,
        class_ids=class_ids,
        box_ids=(0, 1),
        deleted=2,
    )


def plain_targets(item, task):
    """Return what each pixel teaches: (class, object), where an object of None is the whole class."""
    found = {}
    for place, value in np.ndenumerate(item.index_hw):
        if value > 0:
            class_id = item.class_ids[value - 1]
            is_stuff = LABELS[class_id] in STUFF
            if is_stuff and task is INSTANCE:
                found[place] = "background"
            else:
                found[place] = (class_id, None if is_stuff or task is SEMANTIC else int(value))
        elif value == 0:
            found[place] = "background"
        elif value <= FIRST_DELETED:
            found[place] = "background" if task is SEMANTIC else ("deleted", int(value))
        elif value == IGNORED or task is SEMANTIC:
            found[place] = "ignored"
        else:
            found[place] = ("box", item.box_ids[FIRST_BOX - value], int(value))
    return found


@pytest.mark.parametrize("task", [INSTANCE, SEMANTIC, PANOPTIC])
def test_with_task_pixels_equal_a_plain_version(task):
    for seed in range(20):
        item = random_item(seed)
        made = sampling(PANOPTIC).with_task(item, task)
        plain = plain_targets(item, task)
        pairs = set()
        for place, value in np.ndenumerate(made.index_hw):
            expected = plain[place]
            if value > 0:
                pairs.add((int(value), expected))
                assert expected[0] == made.class_ids[value - 1]
            elif value <= FIRST_DELETED:
                assert expected == ("deleted", int(value))
            elif value < IGNORED:
                assert expected == ("box", made.box_ids[FIRST_BOX - value], int(value))
            else:
                assert expected == ("background" if value == 0 else "ignored")
        assert len(pairs) == len(dict(pairs)) == len({expected for _, expected in pairs})  # one to one


def test_with_task_semantic_has_each_class_once_and_no_box():
    made = sampling(PANOPTIC).with_task(random_item(0), SEMANTIC)
    assert len(set(made.class_ids)) == len(made.class_ids)
    assert made.box_ids == ()
    assert made.deleted == 0
    assert made.task is SEMANTIC


def test_with_task_own_is_the_item_itself():
    item = random_item(0)
    assert sampling(INSTANCE).with_task(item, INSTANCE) is item


def test_with_task_specks_of_a_class_are_seen_together_in_semantic():
    index_hw = np.zeros((8, 8), np.int16)
    index_hw[0, :6], index_hw[4, :6] = 1, 2  # too small for an object each
    item = replace(random_item(0), index_hw=index_hw, class_ids=(1, 1), box_ids=())
    _, alone = visible_objects(item)
    together_hw, ids = visible_objects(sampling(INSTANCE).with_task(item, SEMANTIC))
    assert alone.tolist() == []
    assert ids.tolist() == [1]
    assert int((together_hw == 1).sum()) == 12


@pytest.mark.parametrize(
    ("own", "has_things", "others"),
    [
        (INSTANCE, True, {PANOPTIC, SEMANTIC}),
        (PANOPTIC, True, {SEMANTIC, INSTANCE}),
        (PANOPTIC, False, {SEMANTIC}),
        (SEMANTIC, True, set()),
        (SEMANTIC, False, {PANOPTIC}),
    ],
    ids=["instance", "panoptic", "panoptic of stuff", "semantic", "semantic of stuff"],
)
def test_allowed_tasks(own, has_things, others):
    first, *rest = allowed_tasks(own, has_things=has_things)
    assert first is own
    assert set(rest) == others


def test_draw_each_task_equally_often_and_again_the_same():
    tasks = [sampling(INSTANCE).draw(seed=3, index=index) for index in range(3000)]
    assert all(abs(count - 1000) < 120 for count in Counter(tasks).values())
    assert tasks[2999] is sampling(INSTANCE).draw(seed=3, index=2999)
    assert tasks != [sampling(INSTANCE).draw(seed=4, index=index) for index in range(3000)]


def dataset(tasks):
    made = [make_image(seed, size_hw=(64, 64)) for seed in range(3)]
    hidden = Segment(mask_hw=np.ones((16, 16), bool), offset_yx=(0, 0), label="unlabelled")
    examples = [
        TrainingExample(image=one.image_hwc, segments=one.segments, key=str(n), ignored=(hidden,))
        for n, one in enumerate(made)
    ]
    return ExampleDataset(
        examples,
        length=30,
        labels=SHAPE_CLASSES,
        resize=lambda size_hw: size_hw,
        augmentation=Augmentation(paste=0.5),
        seed=0,
        max_objects=20,
        tasks=tasks,
    )


def test_example_dataset_views_are_the_same_with_and_without_tasks():
    every = TaskSampling.of_project(INSTANCE, labels=SHAPE_CLASSES, stuff_labels=())
    plain, mixed = dataset(None), dataset(every)
    seen = Counter()
    for index in range(29, -1, -1):  # in any order, as after a restart
        one, other = plain[index], mixed[index]
        seen[other.task] += 1
        assert one.task is None
        assert np.array_equal(one.image_hwc, other.image_hwc)
        assert np.array_equal(one.index_hw < 0, other.index_hw < 0)
        assert np.array_equal(one.index_hw > 0, other.index_hw > 0)
        assert (len(set(other.class_ids)) == len(other.class_ids)) or other.task is not SEMANTIC
    assert set(seen) == {None, PANOPTIC, SEMANTIC}  # None: the own one


def test_collator_gives_each_image_the_texts_of_its_task():
    tiny = build_tiny_oneformer(LABELS, seed=0, training=True)
    item = TrainingItem(
        image_hwc=np.zeros((64, 64, 3), np.uint8), index_hw=np.ones((64, 64), np.int16), class_ids=(1,)
    )
    tasks = [None, SEMANTIC, PANOPTIC, INSTANCE]
    collators = {
        task: Collator(preprocessing=tiny.preprocessing, labels=LABELS, task=task, task_text=tiny.task_text)
        for task in (INSTANCE, SEMANTIC, PANOPTIC)
    }
    batch = collators[INSTANCE]([replace(item, task=task) for task in tasks])
    for row, task in enumerate(tasks):
        alone = collators[task or INSTANCE]([item])
        for name in ("task_inputs", "text_inputs"):
            assert torch.equal(batch[name][row], alone[name][0])
    assert batch[OTHER_TASK_KEY].tolist() == [False, True, True, False]
    assert OTHER_TASK_KEY not in collators[INSTANCE]([item])
