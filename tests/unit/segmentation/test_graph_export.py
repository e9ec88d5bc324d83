"""Graphs are exported once, checked when read, and never half there; without OpenVINO nothing changes."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from maskloop.errors import DependencyError, ModelLoadError
from maskloop.files import publish_folder
from maskloop.segmentation import graph_export
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.segmentation.graph_export import GraphExports, GraphMode, find_graph
from maskloop.segmentation.model_cache import ModelCache


class Exporter:
    """Writes small files in place of a graph."""

    def __init__(self, content: str = "<net/>") -> None:
        self.count, self.content = 0, content

    def __call__(self, _source: str, folder: Path) -> None:
        self.count += 1
        with publish_folder(folder) as partial:
            for name in graph_export.GRAPH_FILES:
                (partial / name).write_text(self.content)
            digests = {name: graph_export._file_digest(partial / name) for name in graph_export.GRAPH_FILES}
            (partial / graph_export.DIGESTS_FILE).write_text(json.dumps(digests))


@pytest.fixture
def source(cat_dog_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    versions = {"openvino": "2026.4", "torch": "2.13", "transformers": "5.23"}
    monkeypatch.setattr(graph_export, "version", versions.__getitem__)
    return str(cat_dog_folders["cat"])


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.mark.usefixtures("no_openvino")
@pytest.mark.parametrize("mode", ["auto", "off"])
def test_prepare_without_openvino_changes_nothing(
    cat_dog_folders: dict[str, Path], tmp_path: Path, mode: GraphMode
) -> None:
    graphs = GraphExports(tmp_path / "graphs", mode=mode)
    cache = ModelCache(device="cpu", keep=1, graphs=graphs)
    checkpoint = cache.load(str(cat_dog_folders["cat"]))
    assert checkpoint.plan == ModelCache(device="cpu", keep=1).load(str(cat_dog_folders["cat"])).plan
    assert not (tmp_path / "graphs").exists()
    assert cache.shape_engines.total() == 0


@pytest.mark.usefixtures("no_openvino")
def test_graph_exports_forced_without_openvino_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"MASKLOOP_OPENVINO=on.*maskloop\[openvino\]"):
        GraphExports(tmp_path, mode="on")


def test_find_graph_twice_exports_once(source: str, tmp_path: Path) -> None:
    export = Exporter()
    paths = {find_graph(tmp_path, source, export) for _ in range(2)}
    assert (export.count, {path.read_text() for path in paths}) == (1, {"<net/>"})


@pytest.mark.parametrize("name", [*graph_export.GRAPH_FILES, graph_export.DIGESTS_FILE])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_find_graph_damaged_file_is_named_and_made_again(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    export = Exporter()
    damaged = find_graph(tmp_path, source, export).parent / name
    if damage == "cut":
        damaged.write_bytes(damaged.read_bytes()[:-1])
    else:
        damaged.unlink()
    with caplog.at_level(logging.WARNING):
        path = find_graph(tmp_path, source, export)
    assert (export.count, path.read_text()) == (2, "<net/>")
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert [str(damaged) in message for message in warnings] == [True]


def change_openvino(monkeypatch: pytest.MonkeyPatch, _source: str) -> None:
    versions = {"openvino": "2026.5", "torch": "2.13", "transformers": "5.23"}
    monkeypatch.setattr(graph_export, "version", versions.__getitem__)


def change_code(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(graph_export.symbolic, "__file__", graph_export.__file__)


@pytest.mark.parametrize("change", [change_openvino, change_code])
def test_find_graph_other_openvino_or_code_exports_anew(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    export = Exporter()
    before = find_graph(tmp_path, source, export)
    change(monkeypatch, source)
    assert find_graph(tmp_path, source, export) != before
    assert export.count == 2


def test_find_graph_other_weights_export_anew(
    source: str, cat_dog_folders: dict[str, Path], tmp_path: Path
) -> None:
    export = Exporter()
    paths = {find_graph(tmp_path, str(folder), export) for folder in cat_dog_folders.values()}
    assert (len(paths), export.count) == (2, 2)


def test_find_graph_failing_disk_says_so(source: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"a damaged .*digests.json right after it was written"):
        find_graph(tmp_path, source, lambda _source, folder: folder.mkdir())


def test_find_graph_many_models_keeps_those_used_last(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = iter("abcdefgha")
    monkeypatch.setattr(graph_export, "graph_key", lambda _source: next(keys))
    export = Exporter()
    for hours in range(8, 0, -1):
        path = find_graph(tmp_path, source, export)
        os.utime(path.parent, (path.stat().st_mtime - 3600 * hours,) * 2)
    find_graph(tmp_path, source, export)
    kept = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert (kept, export.count) == (set("adefgh"), 9)


def test_prepare_failing_export_is_one_line(
    tiny_mask2former: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(graph_export, "installed_openvino", lambda: "2026.4")
    monkeypatch.setattr(graph_export, "version", lambda _name: "2026.4")
    graphs = GraphExports(tmp_path, mode="auto")
    checkpoint = graphs.prepare(tiny_mask2former)  # its source is no folder
    assert checkpoint.plan.openvino
    graphs.wait()
    (record,) = [record for record in caplog.records if "graph_not_made" in record.getMessage()]
    assert "engine=torch" in record.getMessage()
