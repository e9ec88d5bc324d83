"""A small folder in COCO's form with holes, parts, a crowd, an empty image and names that are hard."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_api

from maskloop.curation.imports.coco_folder import open_coco_folder
from maskloop.curation.imports.folder_snapshot import freeze_folder
from maskloop.store.images import ImageCache

SIZE = (40, 60)
CATEGORIES = {1: "cat", 2: "Cat", 5: "an empty class"}


def _mask(*boxes, hole=None):
    mask_hw = np.zeros(SIZE, dtype=np.uint8)
    for top, left, bottom, right in boxes:
        mask_hw[top:bottom, left:right] = 1
    if hole is not None:
        mask_hw[hole[0] : hole[2], hole[1] : hole[3]] = 0
    return mask_hw


MASKS = [  # image, category, crowd, mask
    (1, 1, 0, _mask((2, 2, 20, 20), hole=(6, 6, 12, 12))),
    (1, 2, 0, _mask((25, 5, 30, 15), (30, 20, 38, 30))),
    (1, 2, 0, _mask((7, 7, 11, 11))),
    (2, 1, 0, _mask((0, 0, 40, 60), hole=(10, 10, 30, 30))),
    (2, 1, 1, _mask((12, 12, 28, 28))),
]
NAMES = {1: "first.png", 2: "sub folder/second.jpg", 3: "ünused.png"}


def _rle(mask_hw):
    rle = coco_api.encode(np.asfortranarray(mask_hw))
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


@pytest.fixture
def coco_source(tmp_path):
    """The folder; image 2 is in the validation split."""
    folder = tmp_path / "source"
    for number, name in NAMES.items():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "annotations").mkdir()
    for split, numbers in (("train", (1, 3)), ("val", (2,))):
        content = {
            "images": [
                {"id": n, "file_name": NAMES[n], "height": SIZE[0], "width": SIZE[1]} for n in numbers
            ],
            "annotations": [
                {
                    "id": 10 + k,
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": crowd,
                    "segmentation": _rle(m),
                }
                for k, (image, category, crowd, m) in enumerate(MASKS)
                if image in numbers
            ],
            "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def cache(tmp_path):
    return ImageCache(tmp_path / "cache")


@pytest.fixture
def snapshot(coco_source, cache, tmp_path):
    return freeze_folder(open_coco_folder(coco_source), cache=cache, root=tmp_path / "snapshots")
