"""Image processors as transformers 4 and 5 saved them are read; none at all is a warning."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    EomtImageProcessorPil,
    Mask2FormerImageProcessorPil,
    MaskFormerImageProcessorPil,
    OneFormerImageProcessorPil,
    OneFormerProcessor,
)

from maskloop.lab.tiny_models import (
    build_tiny_eomt,
    build_tiny_mask2former,
    build_tiny_maskformer,
    build_tiny_oneformer,
)
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint

LABELS = ("cat", "sky")
BUILDERS: dict[str, Callable[..., Any]] = {
    "mask2former": build_tiny_mask2former,
    "oneformer": build_tiny_oneformer,
    "maskformer": build_tiny_maskformer,
    "eomt": build_tiny_eomt,
}
SAVED = {"size": {"shortest_edge": 96, "longest_edge": 192}, "image_mean": [0.1] * 3, "image_std": [0.2] * 3}
CLASSES = {"0": {"name": "cat", "isthing": 1}, "1": {"name": "sky", "isthing": 0}}


def save_alone(kind: type) -> Callable[[Path], object]:
    """As transformers 4 and 5 save an image processor alone."""
    return lambda folder: kind(**SAVED).save_pretrained(folder)


def save_nested(folder: Path) -> None:
    """As transformers 5 saves a processor with its tokenizer: all in one file."""
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    images = OneFormerImageProcessorPil(
        **SAVED, repo_path=str(folder), class_info_file="classes.json", num_text=16
    )
    tokenizer = load_checkpoint(folder, device="cpu").task_text.tokenizer
    OneFormerProcessor(images, tokenizer, max_seq_length=32, task_seq_length=16).save_pretrained(folder)
    (folder / "preprocessor_config.json").unlink(missing_ok=True)


def save_old(folder: Path) -> None:
    """As the first versions of transformers 4 wrote it."""
    old = {
        "feature_extractor_type": "MaskFormerFeatureExtractor",
        "size": 96,
        "max_size": 192,
        "size_divisibility": 32,
        "image_mean": [0.1] * 3,
        "image_std": [0.2] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(old))


FORMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "mask2former alone": ("mask2former", save_alone(Mask2FormerImageProcessorPil)),
    "maskformer alone": ("maskformer", save_alone(MaskFormerImageProcessorPil)),
    "oneformer nested": ("oneformer", save_nested),
    "oneformer alone": ("oneformer", save_alone(OneFormerImageProcessorPil)),
    "eomt alone": ("eomt", save_alone(EomtImageProcessorPil)),
    "maskformer of old": ("maskformer", save_old),
    "mask2former nested": (
        "mask2former",
        lambda folder: (folder / "processor_config.json").write_text(json.dumps({"image_processor": SAVED})),
    ),
}


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder of a family without any processor file."""

    def make(family: str) -> Path:
        folder = save_checkpoint(BUILDERS[family](LABELS, seed=0), tmp_path / family)
        config = json.loads((folder / "config.json").read_text())
        del config["maskloop_thing_ids"]
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "preprocessor_config.json").unlink()
        (folder / "class_info.json").unlink(missing_ok=True)
        return folder

    return make


@pytest.mark.parametrize(("family", "save"), FORMS.values(), ids=FORMS)
def test_load_checkpoint_reads_each_saved_form(
    family: str, save: Callable[[Path], object], folder_of: Callable[[str], Path]
) -> None:
    folder = folder_of(family)
    save(folder)
    loaded = load_checkpoint(folder, device="cpu")
    found = loaded.preprocessing
    assert (found.mean, found.std) == ((0.1,) * 3, (0.2,) * 3)
    if family == "eomt":
        assert found.box_hw == (128, 128)  # its model's own square
    else:
        assert (found.shortest_edge, found.longest_edge) == (96, 192)
    assert loaded.warnings == ()


def test_load_checkpoint_oneformer_nested_processor_names_its_things(
    folder_of: Callable[[str], Path],
) -> None:
    folder = folder_of("oneformer")
    save_nested(folder)
    assert json.loads((folder / "processor_config.json").read_text())["image_processor"]["metadata"]
    (folder / "classes.json").unlink()
    assert load_checkpoint(folder, device="cpu").thing_ids == {0}


def test_load_checkpoint_class_file_outside_the_folder_is_not_read(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folder_of("oneformer")
    (tmp_path / "secret.json").write_text(json.dumps(CLASSES))
    (folder / "preprocessor_config.json").write_text(json.dumps({"class_info_file": "../secret.json"}))
    assert load_checkpoint(folder, device="cpu").thing_ids == {0, 1}


@pytest.mark.parametrize("family", BUILDERS)
def test_load_checkpoint_without_processor_warns_once(
    family: str, folder_of: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(family)
    with caplog.at_level(logging.WARNING):
        first, again = (load_checkpoint(folder, device="cpu") for _ in range(2))
    assert first.warnings == again.warnings
    assert "no preprocessor_config.json" in first.warnings[0]
    assert caplog.text.count("checkpoint_incomplete") == 1


def test_save_checkpoint_keeps_the_warnings_of_its_base(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    base = load_checkpoint(folder_of("mask2former"), device="cpu")
    again = load_checkpoint(save_checkpoint(base, tmp_path / "tuned"), device="cpu")
    assert again.warnings == base.warnings != ()
