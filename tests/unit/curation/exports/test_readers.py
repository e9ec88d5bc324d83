"""Exports read by programs of others: their masks are the snapshot's."""

import base64
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from maskloop.curation.exports.export import export_snapshot
from maskloop.curation.exports.format import ExportPlan
from maskloop.curation.exports.formats import FORMATS

from ..conftest import MASKS, NAMES, SIZE

FIRST = [one for one in MASKS if one[0] == 1]
SECOND = [one for one in MASKS if one[0] == 2]


@pytest.fixture
def export(snapshot, cache, tmp_path):
    def do(name, **plan):
        chosen = ExportPlan(format=name, **plan)
        return export_snapshot(snapshot, chosen, FORMATS[name], tmp_path / name, cache=cache)

    return do


def iou(first, second):
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    return (first & second).sum() / (first | second).sum()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("polygons", [False, True], ids=["rle", "polygons"])
def test_pycocotools_reads_coco_masks_as_they_were_drawn(export, polygons):
    from pycocotools.coco import COCO

    folder = export("coco", polygons=polygons).folder
    for split, expected in (("train", FIRST), ("val", SECOND)):
        coco = COCO(folder / "annotations" / f"instances_{split}.json")
        found = coco.loadAnns(coco.getAnnIds())
        for one, (_, category, crowd, mask_hw) in zip(found, expected, strict=True):
            assert (one["category_id"], one["iscrowd"], one["area"]) == (category, crowd, mask_hw.sum())
            assert np.array_equal(coco.annToMask(one), mask_hw)


def test_faster_coco_eval_gives_full_marks_to_the_same_annotations(export):
    from faster_coco_eval import COCO, COCOeval_faster

    coco = COCO(str(export("coco").folder / "annotations" / "instances_train.json"))
    results = coco.loadRes([{**one, "score": 0.9} for one in coco.loadAnns(coco.getAnnIds())])
    judged = COCOeval_faster(coco, results, "segm", print_function=lambda *_: None)
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[0] == pytest.approx(1.0)


def test_panoptic_files_follow_panopticapis_rules(export):
    folder = export("coco-panoptic").folder / "annotations"
    for split in ("train", "val"):
        content = json.loads((folder / f"panoptic_{split}.json").read_text())
        categories = {one["id"] for one in content["categories"]}
        for one in content["annotations"]:
            # As panopticapi/evaluation.py reads and checks them.
            rgb = np.asarray(Image.open(folder / f"panoptic_{split}" / one["file_name"]), dtype=np.uint32)
            ids = rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2]
            areas = {info["id"]: info["area"] for info in one["segments_info"]}
            labels, counts = np.unique(ids[ids > 0], return_counts=True)
            assert dict(zip(labels.tolist(), counts.tolist(), strict=True)) == areas
            assert {info["category_id"] for info in one["segments_info"]} <= categories
            for info in one["segments_info"]:
                box = cv2.boundingRect((ids == info["id"]).astype(np.uint8))
                assert list(box) == info["bbox"]


def test_supervision_reads_yolo_labels(export):
    import supervision

    folder = export("yolo-seg").folder
    found = supervision.DetectionDataset.from_yolo(
        str(folder / "images" / "train"),
        str(folder / "labels" / "train"),
        str(folder / "data.yaml"),
        force_masks=True,
    )
    assert found.classes[:2] == ["cat", "Cat"]
    (detections,) = [one for path, _, one in found if path.endswith("first.png")]
    assert detections.class_id.tolist() == [category - 1 for _, category, _, _ in FIRST]


def test_yolo_labels_pass_ultralytics_rules(export):
    # https://docs.ultralytics.com/datasets/segment: labels/ in place of images/, .txt in place of the suffix;
    # an integer class below the number of names, then at least three points, all within 0..1; no line twice.
    folder = export("yolo-seg").folder
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    assert sorted(names) == list(range(len(names)))
    images = [path for path in (folder / "images").rglob("*") if path.is_file()]
    assert len(images) == len(NAMES)
    for image in images:
        head, _, tail = str(image).rpartition("/images/")
        label = Path(f"{head}/labels/{tail}").with_suffix(".txt")
        rows = [line.split() for line in label.read_text().splitlines()]
        assert all(row[0].isdigit() and int(row[0]) < len(names) for row in rows)
        points = [np.array(row[1:], np.float32) for row in rows]
        assert all(len(one) >= 6 and len(one) % 2 == 0 for one in points)
        assert all(one.min() >= 0 and one.max() <= 1 for one in points)
        boxes = [(*one.reshape(-1, 2).min(0), *one.reshape(-1, 2).max(0)) for one in points]
        lines = {(row[0], *box) for row, box in zip(rows, boxes, strict=True)}
        assert len(lines) == len(rows)  # two lines of one class and box count as one line twice


def test_yolo_lines_filled_by_even_odd_give_the_masks_back(export):
    result = export("yolo-seg")
    assert min(result.least.values()) >= 0.98
    lines = (result.folder / "labels" / "train" / "first.txt").read_text().splitlines()
    for line, (_, category, _, mask_hw) in zip(lines, FIRST, strict=True):
        index, *numbers = line.split()
        points = np.array(numbers, float).reshape(-1, 2) * (SIZE[1], SIZE[0])
        scaled = np.zeros((SIZE[0] * 8, SIZE[1] * 8), np.uint8)
        cv2.fillPoly(scaled, [(points * 8).round().astype(np.int32)], 1)
        assert int(index) == category - 1
        assert iou(scaled[4::8, 4::8], mask_hw) >= 0.98


def test_semantic_png_has_the_class_of_the_smallest_object(export):
    folder = export("semantic-png").folder
    class_hw = np.asarray(Image.open(folder / "annotations" / "train" / "first.png"))
    expected = np.zeros(SIZE, np.uint8)
    for _, category, _, mask_hw in sorted(FIRST, key=lambda one: -int(one[3].sum())):
        expected[mask_hw > 0] = category
    assert np.array_equal(class_hw, expected)


def test_cityscapes_ids_count_objects_of_a_class(export):
    folder = export("cityscapes").folder / "gtFine"
    ids = np.asarray(Image.open(folder / "train" / "data" / "first_gtFine_instanceIds.png"))
    assert np.unique(ids).tolist() == [0, 1000, 2000, 2001]
    second = np.asarray(Image.open(folder / "val" / "sub folder" / "second_gtFine_instanceIds.png"))
    assert np.array_equal(second == 1, SECOND[1][3])  # the crowd has the class alone


def test_labelme_shapes_are_the_masks(export):
    shapes = json.loads((export("labelme").folder / "train" / "first.json").read_text())["shapes"]
    for shape, (_, _, _, mask_hw) in zip(shapes, FIRST, strict=True):
        # As labelme/label_file.py reads them.
        (left, top), (right, bottom) = shape["points"]
        crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
        full = np.zeros(SIZE, bool)
        full[top : bottom + 1, left : right + 1] = crop
        assert np.array_equal(full, mask_hw)


def test_cvat_masks_are_the_masks(export):
    root = ET.parse(export("cvat").folder / "annotations.xml").getroot()
    frames = {frame.get("name"): frame for frame in root.iter("image")}
    assert frames.keys() == set(NAMES.values())
    for mask, (_, _, _, mask_hw) in zip(frames["first.png"], FIRST, strict=True):
        runs = [int(run) for run in mask.get("rle").split(", ")]
        left, top, width, height = (int(mask.get(name)) for name in ("left", "top", "width", "height"))
        values = np.arange(len(runs)) % 2 == 1
        full = np.zeros(SIZE, bool)
        full[top : top + height, left : left + width] = np.repeat(values, runs).reshape(height, width)
        assert np.array_equal(full, mask_hw)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`datasets.load_dataset` of a folder, with a cache of its own and without the network."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    return lambda folder: load_dataset(str(folder), cache_dir=str(tmp_path / "hf"))


def test_datasets_reads_hf_as_the_training_example_takes_it(export, load):
    found = load(export("hf").folder)
    assert {split: len(rows) for split, rows in found.items()} == {"train": 2, "validation": 1}
    row = next(one for one in found["train"] if np.array(one["annotation"]).any())
    assert row["semantic_class_to_id"] == {"background": 0, "cat": 1, "Cat": 2, "an empty class": 5}
    # As run_instance_segmentation.py reads it: number of the object -> class.
    pairs = np.unique(np.array(row["annotation"])[..., :2].reshape(-1, 2), axis=0)
    class_of = {number: category for category, number in pairs.tolist()}
    assert class_of[0] == 0
    assert sorted(class_of.values()) == [0, 1, 2, 2]


def test_datasets_reads_hf_semantic(export, load):
    folder = export("hf-semantic").folder
    row = next(iter(load(folder)["validation"]))
    assert row["label"].mode == "L"
    assert np.unique(np.array(row["label"])).tolist() == [0, 1]
    assert json.loads((folder / "id2label.json").read_text())["2"] == "Cat"
