import json

import numpy as np
import pytest
from faster_coco_eval import mask as coco_mask
from tests.paths import SHARED

from maskloop.errors import CodecError
from maskloop.lab.synthetic.coco import read_coco
from maskloop.masks import paste_segment

REAL = SHARED / "data"
SIZE_HW = (8, 10)


def make_plane(seed=0):
    return np.random.default_rng(seed).random(SIZE_HW) < 0.4


def plane_to_counts(plane_hw):
    flat = plane_hw.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def make_folder(tmp_path, segmentation, **annotation):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    record = {
        "id": 5,
        "image_id": 1,
        "category_id": 3,
        "segmentation": segmentation,
        "iscrowd": 0,
        **annotation,
    }
    image = {"id": 1, "file_name": "a.png", "height": SIZE_HW[0], "width": SIZE_HW[1]}
    content = {"images": [image], "categories": [{"id": 3, "name": "fig"}], "annotations": [record]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def test_read_coco_polygon_covers_rectangle(tmp_path):
    (image,) = read_coco(make_folder(tmp_path, [[2, 1, 7, 1, 7, 5, 2, 5]]))
    (segment,) = image.segments
    assert (segment.label, segment.box_yxyx, segment.area) == ("fig", (1, 2, 5, 7), 20)


@pytest.mark.parametrize("compressed", [False, True], ids=["counts-list", "counts-string"])
@pytest.mark.parametrize("seed", range(5))
def test_read_coco_rle_round_trips(tmp_path, seed, compressed):
    plane_hw = make_plane(seed)
    counts = plane_to_counts(plane_hw)
    if compressed:
        rle = coco_mask.encode(np.asfortranarray(plane_hw[..., None].astype(np.uint8)))[0]
        counts = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
    (image,) = read_coco(make_folder(tmp_path, {"size": list(SIZE_HW), "counts": counts}))
    assert np.array_equal(paste_segment(image.segments[0], SIZE_HW), plane_hw)


def test_read_coco_crowd_is_kept_apart(tmp_path):
    (image,) = read_coco(make_folder(tmp_path, {"size": list(SIZE_HW), "counts": [0, 80]}, iscrowd=1))
    assert (image.segments, len(image.crowds), image.crowds[0].area) == ((), 1, 80)


@pytest.mark.parametrize(
    ("segmentation", "annotation", "words"),
    [
        ([[1, 2, 3, 4]], {}, "three x, y pairs"),
        ([[1, 2, 3, 4, 5, float("nan")]], {}, "three x, y pairs"),
        ({"size": [8, 10], "counts": [3, 4]}, {}, "add up to 80"),
        ({"size": [8, 10], "counts": [90, -10]}, {}, "add up to 80"),
        ({"size": [8, 10], "counts": "zz~~"}, {}, "RLE"),
        ({"size": [9, 10], "counts": [90]}, {}, "8x10"),
        (None, {}, "polygons or an RLE"),
        ([], {"category_id": 9}, "category"),
        ([], {"image_id": "one"}, "image_id"),
    ],
    ids=["short", "nan", "too-few", "negative", "damaged", "other-size", "none", "unknown-class", "text-id"],
)
def test_read_coco_bad_annotation_raises(tmp_path, segmentation, annotation, words):
    with pytest.raises(CodecError, match=words):
        read_coco(make_folder(tmp_path, segmentation, **annotation))


@pytest.mark.parametrize("text", [None, "{", "[]", '{"images": 3}'], ids=["none", "cut", "list", "number"])
def test_read_coco_bad_file_raises(tmp_path, text):
    if text is not None:
        (tmp_path / "instances.json").write_text(text)
    with pytest.raises(CodecError, match=r"instances\.json"):
        read_coco(tmp_path)


def test_read_coco_missing_image_raises(tmp_path):
    folder = make_folder(tmp_path, [])
    (folder / "images" / "a.png").unlink()
    with pytest.raises(CodecError, match=r"a\.png"):
        read_coco(folder)


@pytest.mark.parametrize(("name", "segments", "crowds"), [("fruits", 165, 0), ("coco104", 1028, 13)])
def test_read_coco_real_folder_counts(name, segments, crowds):
    if not (REAL / name).is_dir():
        pytest.skip("no real images here")
    images = read_coco(REAL / name)
    assert sum(len(image.segments) for image in images) == segments
    assert sum(len(image.crowds) for image in images) == crowds
