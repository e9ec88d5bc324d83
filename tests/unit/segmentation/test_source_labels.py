"""A checkpoint's classes come from its config.json alone."""

import json

import huggingface_hub
import pytest

from maskloop.errors import ModelLoadError
from maskloop.segmentation.source_labels import source_labels
from maskloop.settings import BASE_MODEL

CONFIG = {"id2label": {"1": "dog", "0": "cat"}}


def test_source_labels_folder_without_weights_in_order_of_ids(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert source_labels(str(tmp_path)) == ("cat", "dog")


def test_source_labels_shipped_model_are_those_of_its_file():
    known = json.loads((BASE_MODEL / "config.json").read_text())["id2label"]
    assert source_labels(str(BASE_MODEL)) == tuple(known.values())


def test_source_labels_hub_name_downloads_the_config_only(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    asked = []

    def download(name, file):
        asked.append((name, file))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert source_labels("owner/model") == ("cat", "dog")
    assert asked == [("owner/model", "config.json")]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("./none", "no such folder", id="no folder"),
        pytest.param(".", "config.json", id="no config"),
    ],
)
def test_source_labels_nothing_there_says_what_to_set(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=words):
        source_labels(source)
