"""What of a folder a label config can hold, and what is said where it cannot."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from maskloop.curation.imports.coco_folder import FolderImage, FolderObject
from maskloop.curation.snapshots.rows import Category, ObjectKind
from maskloop.errors import ConfigurationError
from maskloop.types import Segment
from maskloop_studio.exchange.folder_import import ImportAs, import_folder
from maskloop_studio.formats import annotation_to_segments
from maskloop_studio.formats.label_config import parse_label_config

CONFIG = """<View><Image name="i" value="$photo"/><PolygonLabels name="p" toName="i">
<Label value="Car" predicted_values="auto"/><Label value="Blur"/></PolygonLabels></View>"""


class Studio:
    """The calls that an import makes."""

    def __init__(self, config=CONFIG, items=()):
        self.config, self.imported = config, []
        self.items = items

    def project(self, project_id):
        return SimpleNamespace(label_config=self.config)

    def iter_tasks(self, project_id):
        return iter(SimpleNamespace(data={"maskloop_item": item}) for item in self.items)

    def upload_image(self, project_id, name, data):
        return f"/data/upload/{project_id}/{name}"

    def import_tasks(self, project_id, tasks):
        self.imported += tasks
        return [len(self.imported)]


class Folder:
    """An opened folder with one image: an object of two parts with a hole, and a crowd."""

    categories = (Category(id=1, name="auto"),)

    def __init__(self, path):
        self.path = path

    def images(self):
        mask_hw = np.zeros((20, 30), dtype=bool)
        mask_hw[:9, :9], mask_hw[3:6, 3:6], mask_hw[12:, 20:] = True, False, True
        objects = (
            FolderObject(
                segment=Segment(mask_hw=mask_hw, offset_yx=(0, 0), label="auto"),
                kind=ObjectKind.OBJECT, category_id=1, number=5,
            ),
            FolderObject(
                segment=Segment(mask_hw=np.ones((4, 4), dtype=bool), offset_yx=(10, 2), label="auto"),
                kind=ObjectKind.CROWD, category_id=1, number=6,
            ),
        )  # fmt: skip
        yield FolderImage(
            item="s/a.png", file_name="s/a.png", path=self.path, size_hw=(20, 30), split="train", number=1,
            objects=objects,
        )  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Folder:
    path = Path(tmp_path / "a.png")
    path.write_bytes(b"image")
    return Folder(path)


def take_in(folder, studio, **changes):
    values = {"client": studio, "become": ImportAs.ANNOTATIONS, "model_version": "v", **changes}
    return import_folder(folder, 7, **values)


def test_import_draws_parts_and_holes_as_one_object(folder):
    studio = Studio()
    report = take_in(folder, studio)
    (task,) = studio.imported
    assert task["data"] == {"photo": "/data/upload/7/a.png", "maskloop_item": "s/a.png"}
    content = annotation_to_segments(task["annotations"][0]["result"], parse_label_config(CONFIG))
    (found,), (one,) = content.segments, [o for i in folder.images() for o in i.objects[:1]]
    assert (found.label, found.area) == ("Car", one.segment.area)
    assert np.array_equal(found.mask_hw, one.segment.mask_hw)
    assert (report.tasks, report.objects, report.left_out) == (1, 1, {"crowd": 1})


def test_import_gives_crowds_the_ignored_label(folder):
    studio = Studio()
    report = take_in(folder, studio, ignored_labels=("Haze", "Blur"))
    result = studio.imported[0]["annotations"][0]["result"]
    assert result[-1]["value"]["polygonlabels"] == ["Blur"]
    assert report.left_out == {}


def test_import_as_predictions_names_the_version(folder):
    studio = Studio()
    take_in(folder, studio, become=ImportAs.PREDICTIONS, model_version="start")
    (prediction,) = studio.imported[0]["predictions"]
    assert (prediction["model_version"], "annotations" in studio.imported[0]) == ("start", False)


def test_import_again_passes_over_what_is_there(folder):
    studio = Studio(items=["s/a.png"])
    assert (take_in(folder, studio).present, studio.imported) == (1, [])


CONFIGS = {
    "label missing": (CONFIG.replace("auto", "lorry"), '<Label value="auto"/>'),
    "two images": (
        CONFIG.replace("<PolygonLabels", '<Image name="j" value="$b"/><PolygonLabels').replace(
            'toName="i"', 'toName="i,j"'
        ),
        "one image a task",
    ),
    "nested field": (CONFIG.replace("$photo", "$a.b"), "one image a task"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_import_into_another_config_is_refused_before_anything_is_uploaded(name, folder):
    config, words = CONFIGS[name]
    studio = Studio(config)
    with pytest.raises(ConfigurationError, match=words):
        take_in(folder, studio)
    assert studio.imported == []
