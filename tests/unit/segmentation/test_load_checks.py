"""Broken checkpoints: each cause has its own error and remedy; any ids of classes load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file

from maskloop.errors import ModelLoadError
from maskloop.lab.tiny_models import build_tiny_mask2former
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def scramble_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights at all")


def grow_labels(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): f"label {index}" for index in range(9)}
    config["label2id"] = {f"label {index}": index for index in range(9)}
    (folder / "config.json").write_text(json.dumps(config))


def forget_weights(folder: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    save_file(
        {"class_predictor.bias": weights["class_predictor.bias"]},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def index_weights(*names: str) -> Callable[[Path], None]:
    """Return what puts an index in place of the weights, which names these files."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        index = {"weight_map": {f"weight {number}": name for number, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def configure(**changes: object) -> Callable[[Path], None]:
    """Return what changes keys of config.json."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | changes))

    return damage


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def nest(folder: Path) -> None:
    (folder / "checkpoint-500").mkdir()
    (folder / "config.json").rename(folder / "checkpoint-500" / "config.json")


def both(*damages: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [damage(folder) for damage in damages]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        r"expected a config\.json, got none; fetch config\.json",
    ),
    "config in a folder inside": (nest, "to the folder inside that has one: checkpoint-500"),
    "config not json": (write("config.json", "{"), r"a readable config\.json"),
    "config a list": (write("config.json", "[]"), r"an object in config\.json"),
    "foreign": (write("config.json", '{"model_type": "sam"}'), "got model_type 'sam'"),
    "no ids": (configure(id2label=None), "id2label in config.json: .*got none; write the classes"),
    "ids a list": (configure(id2label=["cat"]), r"got list of \['cat'\]"),
    "ids no numbers": (configure(id2label={"cat": "cat"}), "got the id 'cat'"),
    "ids twice": (configure(id2label={"1": "a", "01": "b"}), "got 2 entries for 1 ids"),
    "ids below 0": (configure(id2label={"-1": "a", "0": "b"}), "the smallest -1"),
    "timm": (
        configure(use_timm_backbone=True, backbone="swinv2_tiny_window8_256"),
        "got the timm backbone 'swinv2_tiny_window8_256', .*install timm",
    ),
    "timm nested": (
        configure(backbone_config={"model_type": "timm_backbone", "backbone": "resnet50"}),
        "got the timm backbone 'resnet50'",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "safetensors weights .*got none"),
    "truncated": (truncate_weights, "whole safetensors weights .*cut off: fetch the weights again"),
    "scrambled": (scramble_weights, "whole safetensors weights .*cut off: fetch the weights again"),
    "pickle only": (pickle_weights, "got only pytorch_model.bin: pickled.*safe_serialization=True"),
    "weights of another name": (
        lambda folder: (folder / "model.safetensors").rename(folder / "best.safetensors"),
        "got best.safetensors without model.safetensors .*rename",
    ),
    "index of a missing file": (index_weights("model-1.safetensors", "model-2.safetensors"), "2.* missing"),
    "index of a pickle": (index_weights("model-1.bin"), "got model-1.bin: pickled weights"),
    "index outside": (index_weights("../x.safetensors"), r"got \.\./x\.safetensors outside the folder"),
    "index absolute": (index_weights("/etc/x.safetensors"), "outside the folder; do not use"),
    "index empty": (index_weights(), "no weight_map"),
    "index not json": (both(index_weights(), write("model.safetensors.index.json", "?")), "a readable model"),
    "other labels": (grow_labels, "fit config.*one row more than the 9 classes"),
    "newer transformers": (
        both(configure(transformers_version="99.1.0"), forget_weights),
        r"pip install 'transformers>=99\.1\.0'",
    ),
    "weights missing": (forget_weights, "weights for the whole model"),
    "processor not json": (write("preprocessor_config.json", "?"), "readable"),
    "processor wrong": (write("preprocessor_config.json", '{"size": "big"}'), "readable"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_load_checkpoint_broken_folder_raises(
    damage: Callable[[Path], object], message: str, cat_dog_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(cat_dog_folders["cat"], folder)
    damage(folder)
    with pytest.raises(ModelLoadError, match=message):
        load_checkpoint(folder, device="cpu")


IDS = {
    "from 1": {"1": "cat", "2": "dog", "3": "sky"},
    "with gaps": {"0": "cat", "7": "dog", "90": "sky"},
    "in another order": {"10": "sky", "2": "dog", "1": "cat"},
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_load_checkpoint_any_ids_are_rows_of_the_head_in_order(ids: dict[str, str], tmp_path: Path) -> None:
    built = build_tiny_mask2former(("cat", "dog", "sky"), seed=0)
    folder = save_checkpoint(built, tmp_path / "ids")
    names = {name: class_id for class_id, name in ids.items()}
    things = [int(names["cat"]), int(names["sky"])]
    configure(id2label=ids, label2id=names, maskloop_thing_ids=None)(folder)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    write("preprocessor_config.json", json.dumps(processor | {"metadata": {"thing_ids": things}}))(folder)
    loaded = load_checkpoint(folder, device="cpu")
    assert (loaded.labels, loaded.thing_ids) == (("cat", "dog", "sky"), {0, 2})
    again = load_checkpoint(save_checkpoint(loaded, tmp_path / "again"), device="cpu")
    assert (again.labels, again.thing_ids) == (loaded.labels, loaded.thing_ids)
    assert again.model.config.id2label == {0: "cat", 1: "dog", 2: "sky"}


def hub_error(kind: type, status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/owner/model"))
    return kind("refused", response=response)


HUB = {
    "gated": (
        lambda: hub_error(errors.GatedRepoError, 403),
        "accept its conditions at https://hugg.*HF_TOKEN",
    ),
    "unknown": (
        lambda: hub_error(errors.RepositoryNotFoundError, 404),
        "check the spelling; for a private model",
    ),
    "bad name": (lambda: errors.HFValidationError("a/b/c"), "a name of the form owner/model"),
    "offline": (lambda: ConnectionError("no route"), "check the spelling and the network"),
}


@pytest.mark.parametrize(("make", "message"), HUB.values(), ids=HUB)
def test_load_checkpoint_hub_refusal_has_its_own_remedy(
    make: Callable[[], Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise make()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelLoadError, match=message):
        load_checkpoint("owner/model", device="cpu")
