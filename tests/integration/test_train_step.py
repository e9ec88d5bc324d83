import numpy as np
from tests.benchmarks import train_loops
from tests.benchmarks.cases import train
from tests.benchmarks.harness.case import Budget

from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.learning.data.dataset import TrainingExample


def test_reference_learns_from_the_same_objects():
    made = make_image(3, size_hw=(64, 64))
    example = TrainingExample(image=made.image_hwc, segments=made.segments, key="3")
    item = train_loops.ReferenceDataset([example], 1, 64)[0]
    wanted = [(SHAPE_CLASSES.index(segment.label), segment.area) for segment in made.segments]
    got = zip(item["class_labels"].tolist(), item["mask_labels"].sum(dim=(1, 2)).tolist(), strict=True)
    assert sorted((label, int(area)) for label, area in got) == sorted(wanted)
    assert np.isfinite(item["pixel_values"].numpy()).all()


def test_train_step_quick_compares_both_families():
    results = train.run(Budget(seconds=0, quick=True))
    assert [result.name.split()[0] for result in results] == [
        "train-step/mask2former",
        "train-step/oneformer",
    ]
    assert all(min(result.ours.median, result.reference.median) > 0 for result in results)
    assert all("loss to" in result.same for result in results)
