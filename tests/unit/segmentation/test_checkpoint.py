"""Folders of checkpoints: whole, half, foreign, of another dtype; and class heads that grow."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from transformers import Mask2FormerImageProcessorPil, OneFormerImageProcessorPil

from maskloop.errors import DependencyError, ModelLoadError
from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_oneformer
from maskloop.segmentation import checkpoint as checkpoint_module
from maskloop.segmentation.checkpoint import (
    Checkpoint,
    check_torchvision,
    declare_kinds,
    load_checkpoint,
    resolve_device,
    save_checkpoint,
    with_labels,
)
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.segmentation.families import _regrown_head
from maskloop.segmentation.preprocess import images_to_batch
from maskloop.types import RgbImage, SegmentationTask


def class_logits(checkpoint: Checkpoint, image: RgbImage) -> torch.Tensor:
    batch = images_to_batch([image], checkpoint.preprocessing, checkpoint.device)
    words = {}
    if checkpoint.task_text is not None:
        words["task_inputs"] = checkpoint.task_text.task_inputs(
            SegmentationTask.SEMANTIC, 1, checkpoint.device
        )
        if checkpoint.model.config.is_training:
            words["text_inputs"] = checkpoint.task_text.text_inputs(
                [[]], SegmentationTask.SEMANTIC, checkpoint.device
            )
    with torch.inference_mode():
        return checkpoint.model(pixel_values=batch.pixel_values_bchw, **words).class_queries_logits[0]


@pytest.fixture
def saved(tiny_mask2former: Checkpoint, tmp_path: Path) -> Path:
    return save_checkpoint(tiny_mask2former, tmp_path / "model")


def test_save_checkpoint_loaded_again_is_equal(
    tiny: Checkpoint, tmp_path: Path, make_image: Callable[..., RgbImage]
) -> None:
    again = load_checkpoint(save_checkpoint(tiny, tmp_path / "a" / "b"), device="cpu")
    assert (again.family, again.labels, again.thing_ids) == (tiny.family, tiny.labels, tiny.thing_ids)
    assert again.preprocessing == tiny.preprocessing
    torch.testing.assert_close(class_logits(again, make_image()), class_logits(tiny, make_image()))
    assert not again.model.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_load_checkpoint_half_precision_is_float32(
    tiny_mask2former: Checkpoint, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = save_checkpoint(tiny_mask2former, tmp_path / "half", dtype=dtype)
    stored = load_file(folder / "model.safetensors")
    assert stored["class_predictor.weight"].dtype == dtype
    assert {weight.dtype for weight in load_checkpoint(folder, device="cpu").model.parameters()} == {
        torch.float32
    }
    assert next(tiny_mask2former.model.parameters()).dtype == torch.float32


def test_save_checkpoint_folder_names_no_place(tiny: Checkpoint, tmp_path: Path) -> None:
    folder = load_checkpoint(save_checkpoint(tiny, tmp_path / "first"), device="cpu")
    for path in save_checkpoint(folder, tmp_path / "second").glob("*.json"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_save_checkpoint_replaces_and_leaves_nothing_else(tiny_mask2former: Checkpoint, saved: Path) -> None:
    (saved / "stale.txt").write_text("old")
    save_checkpoint(tiny_mask2former, saved)
    assert not (saved / "stale.txt").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_save_checkpoint_failing_midway_keeps_what_was_there(
    tiny_mask2former: Checkpoint, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint_module, "preprocessing_to_config", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tiny_mask2former, saved)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert load_checkpoint(saved, device="cpu").labels == tiny_mask2former.labels


def test_save_checkpoint_is_read_by_transformers_processors(
    tiny_mask2former: Checkpoint, tiny_oneformer: Checkpoint, tmp_path: Path
) -> None:
    first = Mask2FormerImageProcessorPil.from_pretrained(save_checkpoint(tiny_mask2former, tmp_path / "m"))
    second = OneFormerImageProcessorPil.from_pretrained(save_checkpoint(tiny_oneformer, tmp_path / "o"))
    assert first.size["shortest_edge"] == second.size["shortest_edge"] == 128
    assert second.num_text == tiny_oneformer.task_text.text_count


def test_load_checkpoint_oneformer_drops_text_encoder_unless_training(
    tiny_oneformer: Checkpoint, tmp_path: Path
) -> None:
    folder = save_checkpoint(tiny_oneformer, tmp_path / "one")
    assert load_checkpoint(folder, device="cpu").model.model.text_mapper is None
    again = load_checkpoint(folder, device="cpu", training=True).model.model.text_mapper
    torch.testing.assert_close(
        again.prompt_ctx.weight, tiny_oneformer.model.model.text_mapper.prompt_ctx.weight
    )


def test_load_checkpoint_oneformer_served_only_can_be_trained_again(tmp_path: Path) -> None:
    folder = save_checkpoint(build_tiny_oneformer(("a",), seed=0), tmp_path / "served")
    assert load_checkpoint(folder, device="cpu", training=True).model.model.text_mapper is not None


def test_load_checkpoint_without_thing_ids_counts_all(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    del config["maskloop_thing_ids"]
    (saved / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(saved, device="cpu").thing_ids == {0, 1, 2}


@pytest.mark.parametrize("place", ["class info", "processor"])
def test_load_checkpoint_oneformer_thing_ids_of_foreign_folder(place: str, tmp_path: Path) -> None:
    folder = save_checkpoint(build_tiny_oneformer(("cat", "sky"), seed=0), tmp_path / "foreign")
    for name, change in (
        ("config.json", {"maskloop_thing_ids": None}),
        (
            "preprocessor_config.json",
            {"class_info_file": "ours.json"} if place == "class info" else {"metadata": {"thing_ids": [0]}},
        ),
    ):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | change))
    (folder / "ours.json").write_text(
        json.dumps({"0": {"name": "cat", "isthing": 1}, "1": {"name": "sky", "isthing": 0}})
    )
    assert load_checkpoint(folder, device="cpu").thing_ids == {0}


def test_load_checkpoint_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"got no such folder; set MASKLOOP_MODEL"):
        load_checkpoint(tmp_path / "nowhere", device="cpu")


def test_load_checkpoint_hub_unreachable_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> str:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        ModelLoadError, match=r"got ConnectionError: Name or .*MASKLOOP_MODEL to a local folder"
    ):
        load_checkpoint("facebook/mask2former-swin-tiny-coco-instance", device="cpu")


def test_load_checkpoint_oneformer_without_tokenizer_raises(
    tiny_oneformer: Checkpoint, tmp_path: Path
) -> None:
    folder = save_checkpoint(tiny_oneformer, tmp_path / "mute")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="expected readable files next to the weights"):
        load_checkpoint(folder, device="cpu")


def test_with_labels_kept_rows_are_copied(tiny: Checkpoint, make_image: Callable[..., RgbImage]) -> None:
    before = class_logits(tiny, make_image())
    grown = with_labels(tiny, ["star", "square", "circle"], seed=3)
    after = class_logits(grown, make_image())
    torch.testing.assert_close(after[:, [2, 1, -1]], before[:, [0, 1, -1]])
    assert grown.labels == ("star", "square", "circle")
    assert grown.model.config.num_labels == 3
    assert class_logits(tiny, make_image()).equal(before)


def test_with_labels_new_label_is_a_thing_and_stuff_stays_stuff(tiny_mask2former: Checkpoint) -> None:
    assert with_labels(tiny_mask2former, ["sky", "moon", "circle"], seed=0).thing_ids == {1, 2}


def test_with_labels_added_classes_stay_added_in_the_rounds_that_follow(
    tiny: Checkpoint, tmp_path: Path
) -> None:
    base = set(tiny.labels)
    first = with_labels(tiny, ["circle", "star", "square"], seed=0)
    saved = load_checkpoint(save_checkpoint(first, tmp_path / "first"), device="cpu")
    second = with_labels(saved, ["moon", "square", "star"], seed=0)
    assert not load_checkpoint(save_checkpoint(tiny, tmp_path / "base"), device="cpu").added_ids
    for one, added in ((tiny, set()), (first, {"star"}), (saved, {"star"}), (second, {"moon", "star"})):
        assert {one.labels[index] for index in one.added_ids} == added - base


@pytest.mark.parametrize(
    ("base", "labels", "kept", "added"),
    [
        pytest.param("object", ["nucleus"], True, set(), id="the only label names objects"),
        pytest.param("object", ["object"], True, set(), id="mapped to object"),
        pytest.param("object", ["apple", "pear"], False, {0, 1}, id="two labels"),
        pytest.param("cat", ["dog"], False, {0}, id="a base of one kind of thing"),
    ],
)
def test_with_labels_only_label_of_a_project_gives_objects_a_name(
    base: str, labels: list[str], kept: bool, added: set[int]
) -> None:
    before = build_tiny_mask2former((base,), seed=1)
    after = with_labels(before, labels, seed=0)
    rows = before.model.class_predictor.weight
    assert (
        after.model.class_predictor.weight.shape == rows.shape
        and bool(after.model.class_predictor.weight.equal(rows))
    ) is kept
    assert after.added_ids == added
    assert after.labels == tuple(labels)
    assert after.thing_ids == set(range(len(labels)))


@pytest.mark.parametrize("value", [5, "circle", [None], {"a": 1}], ids=str)
def test_load_checkpoint_unreadable_added_classes_raise(
    tiny_mask2former: Checkpoint, tmp_path: Path, value: object
) -> None:
    config = save_checkpoint(tiny_mask2former, tmp_path / "damaged") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"maskloop_added_ids": value}))
    with pytest.raises(ModelLoadError):
        load_checkpoint(config.parent, device="cpu")


@pytest.mark.parametrize(
    ("observed", "stuff", "undeclared"),
    [
        pytest.param({}, set(), {"grass", "dog"}, id="nothing observed"),
        pytest.param({"grass": True}, {"grass"}, {"dog"}, id="one region an image"),
        pytest.param({"grass": True, "dog": False}, {"grass"}, set(), id="both settled"),
        pytest.param({"circle": True}, set(), {"grass", "dog"}, id="a declared label stays"),
    ],
)
def test_declare_kinds_settles_new_labels_for_good(
    tiny_mask2former: Checkpoint, tmp_path: Path, observed: Any, stuff: set[str], undeclared: set[str]
) -> None:
    learnt = with_labels(tiny_mask2former, ["circle", "grass", "dog"], seed=0)
    folder = save_checkpoint(declare_kinds(learnt, observed), tmp_path / "declared")
    loaded = load_checkpoint(folder, device="cpu")
    assert loaded.stuff_labels(ClassKinds()) == stuff
    assert {loaded.labels[index] for index in loaded.undeclared_ids} == undeclared


@pytest.mark.parametrize("new", [["moon"], ["moon", "sun", "star"]], ids=["one", "several"])
def test_with_labels_of_a_base_with_one_class_new_ones_share_out_its_logit(new: list[str]) -> None:
    """On the mean over seeds; a base with several classes says nothing of a new one."""
    torch.manual_seed(0)
    hidden_qc = torch.randn(5, 16)
    for classes in (1, 2):
        head = torch.nn.Linear(16, classes + 1)
        with torch.no_grad():
            grown = [_regrown_head(head, [None] * len(new), seed)(hidden_qc) for seed in range(2000)]
            shared_q = torch.stack(grown).mean(0)[:, :-1].logsumexp(1)
            expected_q = head(hidden_qc)[:, 0] if classes == 1 else torch.full((5,), math.log(len(new)))
        torch.testing.assert_close(shared_q, expected_q, atol=0.06, rtol=0)


def test_with_labels_same_seed_is_the_same_head(tiny_mask2former: Checkpoint) -> None:
    first, second, third = (
        with_labels(tiny_mask2former, ["moon"], seed=seed).model.class_predictor.weight for seed in (5, 5, 6)
    )
    assert first.equal(second)
    assert not first.equal(third)


def test_with_labels_trains_and_loads(
    tiny: Checkpoint, tmp_path: Path, make_image: Callable[..., RgbImage]
) -> None:
    grown = with_labels(tiny, ["star", "square", "moon", "sun"], seed=3)
    batch = images_to_batch([make_image()], grown.preprocessing, grown.device)
    words = {}
    if grown.task_text is not None:
        words = {
            "task_inputs": grown.task_text.task_inputs(SegmentationTask.INSTANCE, 1, grown.device),
            "text_inputs": grown.task_text.text_inputs([["star"]], SegmentationTask.INSTANCE, grown.device),
        }
    masks = torch.zeros(1, *batch.pixel_values_bchw.shape[-2:])
    masks[:, :20, :20] = 1
    loss = grown.model(
        pixel_values=batch.pixel_values_bchw, mask_labels=[masks], class_labels=[torch.tensor([3])], **words
    ).loss
    assert torch.isfinite(loss).all()
    assert load_checkpoint(save_checkpoint(grown, tmp_path / "grown"), device="cpu").labels == grown.labels


@pytest.mark.parametrize("labels", [[], ["a", "a"]], ids=["none", "twice"])
def test_with_labels_unusable_labels_raise(labels: list[str], tiny_mask2former: Checkpoint) -> None:
    with pytest.raises(ValueError, match="no two alike"):
        with_labels(tiny_mask2former, labels, seed=0)


@pytest.fixture
def fake_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(package.parent)
    yield package / "__init__.py"
    sys.modules.pop("torchvision", None)


def test_check_torchvision_broken_wheel_raises(fake_torchvision: Path) -> None:
    fake_torchvision.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(
        DependencyError, match="torchvision::nms does not exist; run `pip uninstall torchvision`"
    ):
        check_torchvision()


def test_check_torchvision_working_one_passes(fake_torchvision: Path) -> None:
    fake_torchvision.write_text("")
    check_torchvision()


def test_resolve_device_unknown_raises() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("gpu9", "cuda:77"):
        with pytest.raises(ModelLoadError, match="MASKLOOP_DEVICE"):
            resolve_device(name)
