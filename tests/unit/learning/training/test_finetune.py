"""Families whose training uses transformers' own loss: MaskFormer and EoMT."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskloop.lab.base_model import made_up_examples
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.lab.tiny_models import TINY, build_tiny_eomt, build_tiny_maskformer
from maskloop.learning.data.augmentation import Augmentation
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.evaluation.evaluate import evaluate_checkpoint
from maskloop.learning.training import finetune as finetune_module
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob, TrainingControl
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.segmentation.engine import Engine
from maskloop.segmentation.postprocess import Thresholds
from maskloop.types import Segment, SegmentationTask

CLASSES = ("disc", "square")


def landscape_examples(first_seed, count):
    """Return images that an EoMT with a square input has to pad."""
    made = [make_image(first_seed + n, size_hw=(96, 128), classes=CLASSES) for n in range(count)]
    return [TrainingExample(image=m.image_hwc, segments=m.segments, key=str(n)) for n, m in enumerate(made)]


def test_finetune_maskformer_loss_falls(tmp_path):
    losses = []
    trained = finetune(
        FinetuneJob(
            base=build_tiny_maskformer(SHAPE_CLASSES, seed=0),
            examples=made_up_examples(0, 4, domain="base"),
            recipe=FinetuneRecipe(steps=30, batch=2, learning_rate=1e-3, warmup=2),
            output_dir=tmp_path,
        ),
        TrainingControl(on_progress=lambda progress: losses.append(progress.loss)),
    )
    assert trained.family == "maskformer"
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("kinds", "objects"),
    [
        pytest.param(ClassKinds(), 2, id="things"),
        pytest.param(ClassKinds(config_stuff=frozenset({"disc"})), 1, id="stuff"),
    ],
)
@pytest.mark.parametrize("labels", [("disc", "square"), ("square",)], ids=["known", "new class"])
def test_finetune_stuff_of_one_image_is_one_object(tmp_path, monkeypatch, kinds, objects, labels):
    runs = []
    monkeypatch.setattr(finetune_module, "train_model", lambda model, run, control: runs.append(run))
    corners = [
        Segment(mask_hw=np.ones((16, 16), bool), offset_yx=(place, place), label="disc") for place in (0, 40)
    ]
    finetune(
        FinetuneJob(
            base=build_tiny_maskformer(labels, seed=0),
            examples=[
                TrainingExample(image=np.zeros((64, 64, 3), np.uint8), segments=tuple(corners), key="a")
            ],
            recipe=FinetuneRecipe(steps=1, batch=1, augmentation=Augmentation(scale=(1.0, 1.0))),
            output_dir=tmp_path,
            kinds=kinds,
        )
    )
    (run,) = runs
    assert len(run.dataset[0].class_ids) == objects


@pytest.fixture(scope="module")
def trained_eomt(tmp_path_factory):
    """An EoMT before and after a fine-tuning, and the losses on the way."""
    base, losses = build_tiny_eomt(CLASSES, seed=0), []
    job = FinetuneJob(
        base=base,
        examples=landscape_examples(0, 32),
        recipe=FinetuneRecipe(
            steps=120,
            batch=4,
            learning_rate=1e-3,
            warmup=20,
            save_every=120,
            threads=1,
            augmentation=Augmentation(scale=(1.0, 1.0)),
        ),
        output_dir=tmp_path_factory.mktemp("eomt"),
    )
    control = TrainingControl(on_progress=lambda progress: losses.append(progress.loss))
    return base, finetune(job, control), losses


def test_finetune_eomt_learns_what_held_out_images_show(trained_eomt):
    base, trained, losses = trained_eomt
    holdout = landscape_examples(1000, 24)
    before, after = (evaluate_checkpoint(model, holdout) for model in (base, trained))
    assert losses[-1] < 0.6 * losses[0]
    assert after.ap50 > before.ap50 + 0.1
    assert after.miou > before.miou + 0.3


def test_finetune_eomt_saved_and_loaded_is_served_the_same(trained_eomt, tmp_path):
    _, trained, _ = trained_eomt
    folder = save_checkpoint(trained, tmp_path / "saved")
    holdout = landscape_examples(1000, 8)
    loaded = load_checkpoint(folder, device="cpu")
    assert evaluate_checkpoint(loaded, holdout).ap50 == pytest.approx(
        evaluate_checkpoint(trained, holdout).ap50
    )
    with Engine(task=SegmentationTask.INSTANCE, thresholds=Thresholds(), device="cpu", max_batch=8) as engine:
        predictions = engine.predict([example.image for example in holdout], source=str(folder))
    assert [prediction.size_hw for prediction in predictions] == [(96, 128)] * 8
    assert {segment.label for prediction in predictions for segment in prediction.segments} <= set(CLASSES)
    assert any(prediction.segments for prediction in predictions)


@pytest.mark.parametrize(
    "change",
    [{}, {"freeze_backbone": True}, {"precision": "bfloat16"}, {"batch": 1}],
    ids=["plain", "frozen", "bfloat16", "one image"],
)
def test_finetune_eomt_recipe_trains_what_it_should(tmp_path, change):
    base = build_tiny_eomt(CLASSES, seed=0)
    recipe = replace(FinetuneRecipe(steps=2, batch=2, warmup=0, threads=1), **change)
    examples = landscape_examples(0, 2)
    trained = finetune(FinetuneJob(base=base, examples=examples, recipe=recipe, output_dir=tmp_path))
    changed = {
        name
        for (name, old), new in zip(base.model.named_parameters(), trained.model.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert all(torch.isfinite(parameter).all() for parameter in trained.model.parameters())
    assert "query.weight" in changed
    encoder = {name for name in changed if name.startswith(("embeddings.", "layers.0.", "layers.1."))}
    assert bool(encoder) is not recipe.freeze_backbone
    assert any(name.startswith("layers.3.") for name in changed)


def test_finetune_eomt_new_class_and_unlabelled_area(tmp_path):
    (example,) = landscape_examples(3, 1)
    marked = replace(
        example, segments=(replace(example.segments[0], label="star"),), ignored=example.segments[1:]
    )
    trained = finetune(
        FinetuneJob(
            base=build_tiny_eomt(CLASSES, seed=0, tiny=replace(TINY, vit_layers=2, vit_query_layers=1)),
            examples=[marked],
            recipe=FinetuneRecipe(steps=2, batch=1, warmup=0, threads=1),
            output_dir=tmp_path,
        )
    )
    assert trained.labels == (*CLASSES, "star")
    assert all(torch.isfinite(parameter).all() for parameter in trained.model.parameters())


def build_tiny_dinov3(labels):
    """Return an EoMT on DINOv3 with the sizes of the tiny EoMT."""
    module = pytest.importorskip("transformers.models.eomt_dinov3.modeling_eomt_dinov3")
    plain = build_tiny_eomt(labels, seed=0)
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_blocks",
        "num_attention_heads",
        "image_size",
        "patch_size",
    )
    names += (
        "num_queries",
        "train_num_points",
        "no_object_weight",
        "class_weight",
        "mask_weight",
        "dice_weight",
    )
    config = module.EomtDinov3Config(
        **{name: getattr(plain.model.config, name) for name in names},
        intermediate_size=128,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = module.EomtDinov3ForUniversalSegmentation(config)
    return replace(plain, family="eomt_dinov3", model=model.eval(), source="tiny-eomt-dinov3")


def test_finetune_eomt_dinov3_loss_falls_and_the_result_loads(tmp_path):
    base, losses = build_tiny_dinov3(CLASSES), []
    recipe = FinetuneRecipe(steps=40, batch=4, learning_rate=1e-3, warmup=5, threads=1)
    trained = finetune(
        FinetuneJob(base=base, examples=landscape_examples(0, 8), recipe=recipe, output_dir=tmp_path),
        TrainingControl(on_progress=lambda progress: losses.append(progress.loss)),
    )
    assert losses[-1] < 0.8 * losses[0]
    loaded = load_checkpoint(save_checkpoint(trained, tmp_path / "saved"), device="cpu")
    assert loaded.family == "eomt_dinov3"
    for parameter, stored in zip(trained.model.parameters(), loaded.model.parameters(), strict=True):
        assert torch.equal(parameter, stored)
