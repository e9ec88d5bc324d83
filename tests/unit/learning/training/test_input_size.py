"""How large a model sees its images: larger only where objects would be too small to be drawn."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from maskloop.errors import ImageError
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.gate import GateRule
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.input_size import cost_ratio, fitting_size
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.types import Segment

SMALL = Preprocessing(shortest_edge=160, longest_edge=320)
LARGE = Preprocessing(shortest_edge=800, longest_edge=1333)


def example(side, size_hw=(320, 320), count=3, boxes=False):
    """Return an image with squares of a side, in its own pixels."""
    parts = tuple(
        Segment(mask_hw=np.ones((side, side), bool), offset_yx=(0, side * place), label="disc")
        for place in range(count)
    )
    image_hwc = np.zeros((*size_hw, 3), np.uint8)
    return TrainingExample(
        image=image_hwc, segments=() if boxes else parts, boxes=parts if boxes else (), key=""
    )


@pytest.mark.parametrize(
    ("sides", "size_hw", "preprocessing", "edge"),
    [
        ([40], (320, 320), SMALL, 160),  # 20 pixels as the model sees it
        ([28], (320, 320), SMALL, 160),  # 14: not worth it
        ([16], (320, 320), SMALL, 320),  # 8 -> 16
        ([4], (1000, 1000), SMALL, 384),  # 2.5 times at once, no more
        ([5], (160, 160), SMALL, 256),  # 1.5 times the image's own size, no more
        ([5], (100, 100), SMALL, 160),  # it is enlarged already
        ([16, 16, 80], (320, 320), SMALL, 320),  # the image in the middle decides
        ([16, 80, 80], (320, 320), SMALL, 160),
        ([10], (2000, 2000), LARGE, 1024),  # as many pixels as published models take, no more
        ([10], (1600, 2664), LARGE, 800),
        ([16], (320, 320), replace(SMALL, shortest_edge=None, box_hw=(160, 160)), None),
    ],
)
def test_small_objects_enlarge_the_input(sides, size_hw, preprocessing, edge):
    found = fitting_size(preprocessing, [example(side, size_hw) for side in sides], edge=None)
    assert found.shortest_edge == edge
    if edge is not None:
        assert found.longest_edge == round(preprocessing.longest_edge * edge / preprocessing.shortest_edge)


def test_boxes_count_and_images_without_objects_do_not():
    assert fitting_size(SMALL, [example(16, boxes=True)], edge=None).shortest_edge == 320
    assert fitting_size(SMALL, [example(16), *[example(16, count=0)] * 5], edge=None).shortest_edge == 320
    assert fitting_size(SMALL, [example(1, count=0)], edge=None) == SMALL


@pytest.mark.parametrize(("edge", "longest"), [(96, 192), (160, 320), (640, 1280)])
def test_a_person_may_name_the_size(edge, longest):
    found = fitting_size(SMALL, [example(16)], edge=edge)
    assert (found.shortest_edge, found.longest_edge) == (edge, longest)


@pytest.mark.parametrize("orientation", [1, 6])
def test_files_are_measured_upright(tmp_path, orientation):
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (600, 300)).save(path, exif=exif)
    part = Segment(mask_hw=np.ones((15, 15), bool), offset_yx=(0, 0), label="disc")
    one = TrainingExample(image=path, segments=(part,), key="")
    wide = Preprocessing(shortest_edge=160, longest_edge=None)
    assert fitting_size(wide, [one], edge=None).shortest_edge == 320


def test_unreadable_file_is_named(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"image\.jpg"):
        fitting_size(SMALL, [TrainingExample(image=path, segments=(), key="7")], edge=None)


def test_larger_inputs_may_take_longer(settings):
    ratio = cost_ratio(SMALL, replace(SMALL, shortest_edge=320))
    assert ratio == 4
    assert cost_ratio(replace(SMALL, shortest_edge=320), SMALL) == 1
    assert cost_ratio(SMALL, replace(SMALL, shortest_edge=None)) == 1
    assert GateRule.from_settings(settings).slowdown == pytest.approx(0.5)
    assert GateRule.from_settings(settings, dearer=ratio).slowdown == pytest.approx(5.0)


def test_finetune_sees_and_saves_the_larger_input(tmp_path):
    base = build_tiny_mask2former(SHAPE_CLASSES, seed=0)
    base = replace(base, preprocessing=replace(base.preprocessing, shortest_edge=64, longest_edge=128))
    job = FinetuneJob(
        base=base,
        examples=[example(16, (128, 128))],
        recipe=FinetuneRecipe(steps=1, batch=1, warmup=0),
        output_dir=tmp_path / "work",
    )
    trained = finetune(job)
    assert trained.preprocessing.shortest_edge == 128
    folder = save_checkpoint(trained, tmp_path / "saved")
    loaded = load_checkpoint(folder, device="cpu").preprocessing
    assert (loaded.shortest_edge, loaded.longest_edge) == (128, 256)
