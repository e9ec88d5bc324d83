"""Exports end whole or not at all, go on where they were stopped, and name what is left out."""

import errno
import json
import sys

import pytest

from maskloop.curation.exports import export as export_module
from maskloop.curation.exports.export import export_snapshot
from maskloop.curation.exports.format import ExportPlan, ImagesMode
from maskloop.curation.exports.formats import FORMATS
from maskloop.curation.imports.coco_folder import open_coco_folder
from maskloop.curation.imports.folder_snapshot import freeze_folder
from maskloop.curation.snapshots.compare import compare_snapshots
from maskloop.errors import ConfigurationError, ResourceError


@pytest.fixture
def export(snapshot, cache, tmp_path):
    """Export the snapshot into a folder named after the format."""

    def do(name, folder="", source=None, **plan):
        form = FORMATS[name]
        chosen = ExportPlan(format=name, **plan)
        return export_snapshot(source or snapshot, chosen, form, tmp_path / (folder or name), cache=cache)

    return do


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_export_is_the_same_again_and_has_a_card_and_no_leftovers(name, export, tmp_path):
    first = export(name, licence="CC0-1.0")
    assert (first.failed, first.images.total()) == (0, 3)
    assert files(first.folder) == files(export(name, "again", licence="CC0-1.0").folder)
    card = (first.folder / "README.md").read_text()
    assert 'license: "CC0-1.0"' in card
    assert "differ in case only: cat, Cat" in card
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_export_coco_reads_back_as_the_same_snapshot(export, cache, tmp_path, snapshot):
    exported = export("coco").folder
    back = freeze_folder(open_coco_folder(exported), cache=cache, root=tmp_path / "back")
    assert back.digest == snapshot.digest
    assert compare_snapshots(snapshot, back).unchanged == 5


def test_export_boxes_are_counted_in_every_form_and_read_back_from_coco(export, coco_source, cache, tmp_path):
    path = coco_source / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["kind"] = "box"
    path.write_text(json.dumps(content))
    with_box = freeze_folder(open_coco_folder(coco_source), cache=cache, root=tmp_path / "with-box")
    assert [row.kind for one in with_box.images() for row in one.objects].count("box") == 1
    for name in FORMATS:
        result = export(name, f"{name}-boxes", source=with_box)
        assert result.counts["boxes, written as masks that fill them"] == 1
    back = freeze_folder(open_coco_folder(tmp_path / "coco-boxes"), cache=cache, root=tmp_path / "back")
    assert back.digest == with_box.digest


def test_export_panoptic_reads_back_as_the_same_pixels(export, cache, tmp_path):
    first = export("coco-panoptic").folder
    back = freeze_folder(open_coco_folder(first), cache=cache, root=tmp_path / "back")
    again = export("coco-panoptic", "second", source=back).folder
    maps = [
        {name: data for name, data in files(folder).items() if name.startswith("annotations/")}
        for folder in (first, again)
    ]
    assert maps[0] == maps[1]


def test_export_stopped_goes_on_and_looks_whole_only_at_the_end(export, monkeypatch, tmp_path):
    form = FORMATS["semantic-png"]
    written = []
    real = type(form).write

    def stop_at_second(self, one, job, folder):
        written.append(one.image.item)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, one, job, folder)

    monkeypatch.setattr(type(form), "write", stop_at_second)
    with pytest.raises(ResourceError, match="run the same command"):
        export("semantic-png")
    assert not (tmp_path / "semantic-png").exists()
    result = export("semantic-png")
    assert result.images.total() == 3
    assert written == ["first.png", "sub folder/second.jpg", "sub folder/second.jpg", "ünused.png"]


def test_export_of_another_plan_begins_anew(export, monkeypatch, tmp_path):
    monkeypatch.setattr(export_module, "_finish", lambda *_: sys.exit(3))
    with pytest.raises(SystemExit):
        export("yolo-seg")
    monkeypatch.undo()
    assert export("yolo-seg", splits=("train",)).images == {"train": 2}
    assert not (tmp_path / "yolo-seg" / "images" / "val" / "sub folder").exists()


def test_export_without_an_image_names_it_and_exports_the_rest(export, snapshot, cache):
    cache.path(next(snapshot.images()).image.image_key).unlink()
    result = export("coco")
    assert (result.failed, result.images) == (1, {"train": 1, "validation": 1})
    assert "first.png" in (result.folder / "left-out.txt").read_text()
    content = json.loads((result.folder / "annotations" / "instances_train.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["ünused.png"]


def test_export_into_a_folder_with_files_raises(export, tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match="a new or an empty folder"):
        export("coco")
    assert files(tmp_path / "coco") == {"mine.txt": b"keep"}


@pytest.mark.parametrize("name", FORMATS)
def test_export_of_nothing_is_whole(name, export, cache, tmp_path, coco_source):
    for path in (coco_source / "annotations").glob("*.json"):
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    empty = freeze_folder(open_coco_folder(coco_source), cache=cache, root=tmp_path / "empty")
    result = export(name, source=empty)
    assert (result.images.total(), result.failed) == (0, 0)
    assert (result.folder / "maskloop-export.json").exists()


def test_export_of_chosen_labels_keeps_their_numbers_and_all_images(export):
    folder = export("coco", labels=("Cat",)).folder
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    assert [(one["id"], one["name"]) for one in content["categories"]] == [(2, "Cat")]
    assert len(content["images"]) == 2
    assert {one["category_id"] for one in content["annotations"]} == {2}


def test_export_of_an_unknown_label_raises(export):
    with pytest.raises(ConfigurationError, match="cat, Cat, an empty class"):
        export("coco", labels=("CAT",))


def test_export_for_training_without_images_raises(export):
    with pytest.raises(ConfigurationError, match="--images copy or link"):
        export("hf", images=ImagesMode.NONE)


@pytest.mark.parametrize(("mode", "shared"), [(ImagesMode.COPY, False), (ImagesMode.LINK, True)])
def test_export_links_to_the_cache_only_when_asked(mode, shared, export, snapshot, cache):
    folder = export("parquet", images=mode).folder
    one = next(snapshot.images()).image
    assert (folder / "images" / one.file_name).samefile(cache.path(one.image_key)) is shared
