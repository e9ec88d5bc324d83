"""What differs between two snapshots."""

import json

import numpy as np
import pytest

from maskloop.curation.imports.coco_folder import open_coco_folder
from maskloop.curation.imports.folder_snapshot import freeze_folder
from maskloop.curation.snapshots.compare import compare_snapshots

from ..conftest import _mask, _rle


def _relabel(content):
    content["annotations"][0]["category_id"] = 2


def _move(content):
    content["annotations"][0]["segmentation"] = _rle(_mask((3, 3, 20, 20)))


def _add(content):
    content["annotations"].append(
        {**content["annotations"][0], "id": 99, "segmentation": _rle(_mask((33, 50, 39, 59)))}
    )


EDITS = {
    "nothing": (lambda content: None, {}),
    "relabelled": (_relabel, {"relabelled": 1}),
    "changed": (_move, {"changed": 1}),
    "added": (_add, {"added": 1}),
    "deleted": (lambda content: content["annotations"].pop(), {"deleted": 1}),
    "numbers": (lambda content: content["annotations"][0].update(id=77), {}),
    "order": (lambda content: content["annotations"].reverse(), {}),
    "image": (lambda content: content["images"].pop(0), {"deleted": 3}),
}


@pytest.mark.parametrize("name", EDITS)
def test_compare_snapshots_counts_each_kind_of_edit(name, snapshot, coco_source, cache, tmp_path):
    edit, expected = EDITS[name]
    path = coco_source / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    edit(content)
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    path.write_text(json.dumps(content))
    diff = compare_snapshots(
        snapshot, freeze_folder(open_coco_folder(coco_source), cache=cache, root=tmp_path / "new")
    )
    assert {kind: count for kind, count in diff.counts().items() if count} == expected
    assert diff.images_removed == (("first.png",) if name == "image" else ())
    assert json.loads(json.dumps(diff.as_json()))["unchanged"] == 5 - sum(expected.values()) + expected.get(
        "added", 0
    )


def test_compare_snapshots_backwards_exchanges_added_and_deleted(snapshot, coco_source, cache, tmp_path):
    (coco_source / "annotations" / "instances_val.json").unlink()
    other = freeze_folder(open_coco_folder(coco_source), cache=cache, root=tmp_path / "new")
    there, back = compare_snapshots(snapshot, other), compare_snapshots(other, snapshot)
    assert there.counts()["deleted"] == back.counts()["added"] == 2
    assert there.images_removed == back.images_added == ("sub folder/second.jpg",)
    assert np.isclose(there.unchanged, 3)
