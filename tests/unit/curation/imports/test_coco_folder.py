"""Folders in COCO's form that are damaged are refused, with the place."""

import json

import pytest

from maskloop.curation.imports.coco_folder import open_coco_folder
from maskloop.errors import CodecError


def edit(folder, change):
    path = folder / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGES = {
    "image gone": (lambda c: c["images"][0].update(file_name="gone.png"), "gone.png"),
    "outside": (lambda c: c["images"][0].update(file_name="../../first.png"), "inside the folder"),
    "absolute": (lambda c: c["images"][0].update(file_name="/etc/passwd"), "inside the folder"),
    "size": (lambda c: c["images"][0].update(height=41), "expected"),
    "no size": (lambda c: c["images"][0].pop("height"), "'height' as int"),
    "category": (lambda c: c["annotations"][0].update(category_id=9), "category_id 9"),
    "one name twice": (lambda c: c["categories"].append({"id": 7, "name": "cat"}), "a name of their own"),
    "another name": (lambda c: c["categories"][0].update(name="dog"), "the name 'dog'"),
    "RLE": (lambda c: c["annotations"][0]["segmentation"].update(counts="0"), "add up"),
    "RLE of another size": (lambda c: c["annotations"][0]["segmentation"].update(size=[1, 1]), "40x60"),
    "no list": (lambda c: c.update(images={}), "a list of objects"),
    "id": (lambda c: c["annotations"][0].update(image_id="1"), "'image_id' as int"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_open_damaged_folder_names_the_damage(name, coco_source):
    change, words = DAMAGES[name]
    edit(coco_source, change)
    with pytest.raises(CodecError, match=words):
        list(open_coco_folder(coco_source).images())


@pytest.mark.parametrize("panoptic", [None, True])
def test_open_folder_without_annotations_says_what_is_looked_for(panoptic, tmp_path):
    with pytest.raises(CodecError, match=r"panoptic.json"):
        open_coco_folder(tmp_path, panoptic=panoptic)


def test_same_name_in_two_splits_stays_two_images(coco_source):
    val = coco_source / "annotations" / "instances_val.json"
    content = json.loads(val.read_text())
    content["images"][0]["file_name"] = "first.png"
    val.write_text(json.dumps(content))
    items = [image.item for image in open_coco_folder(coco_source).images()]
    assert items == ["train/first.png", "validation/first.png", "ünused.png"]
