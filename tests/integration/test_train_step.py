import json

import numpy as np

from maskloop.learning.dataset import TrainingExample
from maskloop.synthetic.shapes import SHAPE_CLASSES, make_image

from ..benchmarks import train_step


def test_reference_learns_from_the_same_objects():
    made = make_image(3, size_hw=(64, 64))
    example = TrainingExample(image=made.image_hwc, segments=made.segments, key="3")
    item = train_step.ReferenceDataset([example], 1, 64)[0]
    wanted = [(SHAPE_CLASSES.index(segment.label), segment.area) for segment in made.segments]
    got = zip(item["class_labels"].tolist(), item["mask_labels"].sum(dim=(1, 2)).tolist(), strict=True)
    assert sorted((label, int(area)) for label, area in got) == sorted(wanted)
    assert np.isfinite(item["pixel_values"].numpy()).all()


def test_train_step_tiny_writes_its_case(tmp_path):
    numbers = {"sizes": 64, "batch": 2, "steps": 3, "warmup": 1, "repeats": 1, "json": tmp_path / "out.json"}
    train_step.main(["--tiny", *(f"--{name}={value}" for name, value in numbers.items())])
    (case,) = json.loads((tmp_path / "out.json").read_text())["cases"]
    assert case["name"] == "train-step-tiny-64"
    assert min(case["ours"], case["reference"]) > 0
    assert case["steps"] == 3
