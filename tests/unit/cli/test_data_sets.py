"""`maskloop snapshot` and `maskloop export` from the command line: what they print and how they end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from maskloop.errors import MaskloopError, StudioError
from maskloop.settings import load_settings
from maskloop_studio.cli.main import app
from maskloop_studio.services import process_services


@pytest.fixture
def run(tmp_path, settings, monkeypatch):
    """Run a command in a home of its own, without Label Studio."""
    monkeypatch.setenv("MASKLOOP_HOME", str(tmp_path / "home"))
    for cached in (load_settings, process_services):
        cached.cache_clear()

    def do(*arguments, code=0):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout

    yield do
    process_services().close()
    for cached in (load_settings, process_services):
        cached.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """One image with one object."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "data" / "images" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}
        ],
    }
    (tmp_path / "data" / "instances.json").write_text(json.dumps(content))
    return tmp_path / "data"


def test_snapshot_is_created_listed_shown_verified(run, folder):
    made = json.loads(run("snapshot", "create", "--coco", folder, "--name", "start", "--json"))
    assert (made["images"], made["objects"], made["left_out"]) == (1, 1, 0)
    assert "1 cat: 1" in run("snapshot", "show", made["digest"][:8])
    assert json.loads(run("snapshot", "list", "--json"))[0]["name"] == "start"
    assert made["digest"][:8] in run("snapshot", "list")
    assert json.loads(run("snapshot", "verify", "start", "--json"))["troubles"] == []
    assert "0 added, 0 changed" in run("snapshot", "diff", "start", made["digest"])


def test_export_without_an_image_ends_with_one_and_names_it(run, folder, tmp_path):
    run("snapshot", "create", "--coco", folder, "--name", "start")
    for path in (tmp_path / "home" / "images").rglob("*"):
        if path.is_file():
            path.unlink()
    out = tmp_path / "out"
    answer = json.loads(run("export", "start", "--format", "coco", "--out", out, "--json", code=1))
    assert answer["failed"] == 1
    assert "a.png" in answer["failures"][0]
    assert "a.png" in run("snapshot", "verify", "start", code=1)


def test_export_says_what_is_lost(run, folder, tmp_path):
    run("snapshot", "create", "--coco", folder, "--name", "start")
    shown = run("export", "start", "--format", "yolo-seg", "--out", tmp_path / "out", "--licence", "MIT")
    assert "train 1" in shown
    assert "least IoU of a polygon with its mask: 1.0000" in shown


class ImportStudio:
    """The calls that an import makes; the upload of a file with a bad name fails."""

    config = """<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i"><Label value="cat"/>
        </BrushLabels></View>"""

    def project(self, project_id):
        return SimpleNamespace(label_config=self.config)

    def iter_tasks(self, project_id):
        return iter(())

    def upload_image(self, project_id, name, data):
        if name == "bad.png":
            raise StudioError("upload", expected="a place for it", got="a full disk", remedy="free it")
        return f"/data/upload/{project_id}/{name}"

    def import_tasks(self, project_id, tasks):
        return [1]


@pytest.mark.parametrize(
    ("second", "tasks", "words"),
    [pytest.param("b.png", 2, "", id="whole"), pytest.param("bad.png", 1, ", ended early", id="failed")],
)
def test_import_is_recorded_with_its_counts(run, folder, second, tasks, words):
    Image.fromarray(np.ones((20, 30, 3), np.uint8)).save(folder / "images" / second)
    content = json.loads((folder / "instances.json").read_text())
    content["images"].append({"id": 2, "file_name": second, "height": 20, "width": 30})
    (folder / "instances.json").write_text(json.dumps(content))
    services = process_services()
    services.client = ImportStudio()
    CliRunner().invoke(app, ["import", str(folder), "7"])
    services.client.close = lambda: None
    (one,) = services.store.audit.newest(7, limit=9)
    assert (one.entry.action, one.entry.subject) == ("imported", f"{tasks} tasks")
    assert one.entry.reason == f"{folder} as annotations{words}"
    assert (one.entry.facts["tasks"], one.entry.facts["objects"]) == (tasks, 1)


WRONG = {
    "split": ("export", "start", "--format", "coco", "--out", "x", "--split", "test"),
    "images": ("export", "start", "--format", "coco", "--out", "x", "--images", "move"),
    "predictions of a snapshot": (
        "export",
        "a",
        "--format",
        "coco",
        "--out",
        "x",
        "--include",
        "predictions:v",
    ),
    "both sources": ("snapshot", "create", "7", "--coco", "x"),
    "import as": ("import", "x", "7", "--as", "drafts"),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_wrong_usage_ends_with_two(arguments, run):
    run(*arguments, code=2)


REFUSED = {
    "format": (("export", "start", "--format", "voc", "--out", "x"), "coco-panoptic"),
    "snapshot": (("snapshot", "show", "nothing"), "maskloop snapshot list"),
    "name": (("snapshot", "create", "--coco", "x", "--name", "12"), "not all digits"),
    "folder": (("snapshot", "create", "--coco", "/nowhere"), "no such folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_explained(name, run, folder):
    arguments, words = REFUSED[name]
    run("snapshot", "create", "--coco", folder, "--name", "start")
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, MaskloopError)
    assert words in str(result.exception)
