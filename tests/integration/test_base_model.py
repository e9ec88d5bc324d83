import pytest
import torch

from maskloop.lab.base_model import build_base_model, made_up_examples
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER

MAX_BYTES = 4 * 10**6


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_build_base_model_same_seed_gives_the_same_files(tmp_path, family):
    for name in "ab":
        metrics = build_base_model(tmp_path / name, family=family, seed=3, steps=2, holdout_images=2)
    assert {domain: item.images for domain, item in metrics.items()} == {"base": 2, "shifted": 2}
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert first == second
    assert f"--family {family} --seed 3 --steps 2" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize(
    ("folder", "least_ap50"), [(BASE_MODEL, 0.6), (BASE_ONEFORMER, 0.1)], ids=["mask2former", "oneformer"]
)
def test_shipped_base_model_segments_made_up_images(folder, least_ap50):
    checkpoint = load_checkpoint(folder, device="cpu")
    assert checkpoint.labels == SHAPE_CLASSES
    assert all(parameter.dtype != torch.float16 for parameter in checkpoint.model.parameters())
    metrics = evaluate_checkpoint(checkpoint, made_up_examples(20_000_000, 40, domain="base"))
    assert metrics.ap50 > least_ap50


@pytest.mark.parametrize("folder", [BASE_MODEL, BASE_ONEFORMER], ids=["mask2former", "oneformer"])
def test_shipped_base_model_is_small_and_has_a_card(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    card = (folder / "README.md").read_text()
    assert "maskloop base-model build" in card
    assert "license: apache-2.0" in card
