"""What MaskFormer and EoMT need beyond what all families share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtImageProcessorPil,
    MaskFormerImageProcessorPil,
)

from maskloop.errors import ModelLoadError
from maskloop.lab.tiny_models import build_tiny_eomt, build_tiny_maskformer
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.families import FAMILY_NAMES, family_of, processor_name
from maskloop.segmentation.predict import predict_images
from maskloop.segmentation.preprocess import images_to_batch
from maskloop.types import RgbImage, SegmentationTask


def class_logits(checkpoint: Checkpoint, image: RgbImage) -> Tensor:
    batch = images_to_batch([image], checkpoint.preprocessing, checkpoint.device)
    with torch.inference_mode():
        return checkpoint.model(pixel_values=batch.pixel_values_bchw).class_queries_logits[0]


def test_family_of_unknown_model_names_all_families() -> None:
    assert [family_of({"model_type": family}, "x") for family in FAMILY_NAMES] == list(FAMILY_NAMES)
    for config in ({"model_type": "sam"}, {}, {"model_type": ["eomt"]}):
        with pytest.raises(ModelLoadError, match="expected a Mask2Former, OneFormer, MaskFormer or EoMT"):
            family_of(config, "x")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_processor_name_is_one_that_transformers_has(family: str) -> None:
    import transformers

    assert hasattr(transformers, f"{processor_name(family)}Pil")


def test_save_checkpoint_of_further_families_is_read_by_their_processors(tmp_path: Path) -> None:
    maskformer = save_checkpoint(build_tiny_maskformer(("a",), seed=0), tmp_path / "m")
    eomt = save_checkpoint(build_tiny_eomt(("a",), seed=0), tmp_path / "e")
    assert MaskFormerImageProcessorPil.from_pretrained(maskformer).size["shortest_edge"] == 128
    processor = EomtImageProcessorPil.from_pretrained(eomt)
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (128, 128)
    assert (processor.do_pad, processor.do_split_image) == (True, False)


@pytest.mark.parametrize(
    "processor",
    [
        {"size": {"shortest_edge": 640, "longest_edge": 640}, "do_pad": True},
        {"size": {"shortest_edge": 512, "longest_edge": None}, "do_split_image": True},
        None,
    ],
    ids=["padded", "split", "no file"],
)
def test_load_checkpoint_eomt_input_is_the_models_own_square(processor: dict | None, tmp_path: Path) -> None:
    folder = save_checkpoint(build_tiny_eomt(("a",), seed=0), tmp_path / "eomt")
    path = folder / "preprocessor_config.json"
    path.unlink() if processor is None else path.write_text(json.dumps(processor))
    found = load_checkpoint(folder, device="cpu").preprocessing
    assert (found.shortest_edge, found.box_hw, found.pad_hw) == (None, (128, 128), (128, 128))
    assert (found.size_divisor, found.mask_stride) == (16, 4)


def test_load_checkpoint_eomt_of_unfinished_annealing_says_the_same_twice(
    tmp_path: Path, make_image: Callable[..., RgbImage]
) -> None:
    built = build_tiny_eomt(("a",), seed=0)
    built.model.attn_mask_probs.copy_(torch.tensor([0.9, 0.4]))
    loaded = load_checkpoint(save_checkpoint(built, tmp_path / "eomt"), device="cpu")
    assert loaded.model.attn_mask_probs.tolist() == [1.0, 0.0]
    assert class_logits(loaded, make_image()).equal(class_logits(loaded, make_image()))


def test_load_checkpoint_eomt_on_dinov3_predicts_and_saves(
    tmp_path: Path, make_image: Callable[..., RgbImage]
) -> None:
    torch.manual_seed(0)
    config = EomtDinov3Config(
        hidden_size=32,
        num_hidden_layers=3,
        num_blocks=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        num_queries=5,
        id2label={1: "cat", 2: "sky"},
        label2id={"cat": 1, "sky": 2},
    )
    EomtDinov3ForUniversalSegmentation(config).save_pretrained(tmp_path / "theirs")
    EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}).save_pretrained(tmp_path / "theirs")
    loaded = load_checkpoint(tmp_path / "theirs", device="cpu")
    assert (loaded.family, loaded.labels, loaded.warnings) == ("eomt_dinov3", ("cat", "sky"), ())
    again = load_checkpoint(save_checkpoint(loaded, tmp_path / "again"), device="cpu")
    assert class_logits(again, make_image()).equal(class_logits(loaded, make_image()))
    (found,) = predict_images(again, [make_image()], task=SegmentationTask.INSTANCE, for_selection=True)
    assert found.selection_inputs is not None


def test_load_checkpoint_maskformer_with_auxiliary_loss_of_old_config_runs(
    tmp_path: Path, make_image: Callable[..., RgbImage]
) -> None:
    folder = save_checkpoint(build_tiny_maskformer(("a",), seed=0), tmp_path / "maskformer")
    config = json.loads((folder / "config.json").read_text())
    assert config["use_auxiliary_loss"]
    config.pop("output_hidden_states", None)
    (folder / "config.json").write_text(json.dumps(config))
    assert class_logits(load_checkpoint(folder, device="cpu"), make_image()).shape == (20, 2)
