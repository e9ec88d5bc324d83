import pytest
from torch import nn

from maskloop.lab.tiny_models import (
    build_tiny_eomt,
    build_tiny_mask2former,
    build_tiny_maskformer,
    build_tiny_oneformer,
)
from maskloop.learning.training.recipe import FinetuneRecipe

RECIPE = FinetuneRecipe(learning_rate=1e-3, backbone_factor=0.1, weight_decay=0.05)


@pytest.fixture(
    params=[build_tiny_mask2former, build_tiny_oneformer, build_tiny_maskformer, build_tiny_eomt],
    ids=["mask2former", "oneformer", "maskformer", "eomt"],
)
def model(request):
    extra = {"training": True} if request.param is build_tiny_oneformer else {}
    return request.param(("disc",), seed=0, **extra).model


@pytest.fixture(scope="module")
def trainer():
    """Return the module: every collection would pay for the seconds that transformers' Trainer takes."""
    from maskloop.learning.training import trainer

    return trainer


def groups_of(trainer, model, recipe):
    """Return name -> (rate, decay)."""
    found = {}
    for group in trainer.parameter_groups(model, recipe):
        found |= {id(parameter): (group["lr"], group["weight_decay"]) for parameter in group["params"]}
    return {name: found[id(one)] for name, one in model.named_parameters() if id(one) in found}


def test_parameter_groups_hold_every_weight_once(trainer, model):
    grouped = [id(one) for group in trainer.parameter_groups(model, RECIPE) for one in group["params"]]
    assert sorted(grouped) == sorted(id(one) for one in model.parameters() if one.requires_grad)


def is_backbone(name):
    # the tiny EoMT has 4 layers, of which the last 2 see the queries
    return "pixel_level_module.encoder." in name or name.startswith(("embeddings.", "layers.0.", "layers.1."))


def test_parameter_groups_backbone_learns_slower(trainer, model):
    rates = {name: rate for name, (rate, _) in groups_of(trainer, model, RECIPE).items()}
    backbone = {name for name in rates if is_backbone(name)}
    assert {rates[name] for name in backbone} == {0.1 * 1e-3}
    assert {rates[name] for name in rates.keys() - backbone} == {1e-3}


def test_parameter_groups_norms_biases_and_embeddings_do_not_decay(trainer, model):
    decays = {name: decay for name, (_, decay) in groups_of(trainer, model, RECIPE).items()}
    norms = {
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d | nn.Embedding)
    }
    still = [name for name in decays if name.endswith("bias") or name in norms]
    assert {decays[name] for name in still} == {0.0}
    assert set(decays.values()) == {0.0, 0.05}


def test_prepared_for_training_freezes_the_backbone_until_its_end(trainer, model):
    model.train()
    with trainer.prepared_for_training(model, FinetuneRecipe(freeze_backbone=True)):
        model.train()
        assert not any(
            module.training for part in trainer.backbone_modules(model) for module in part.modules()
        )
        assert not any(is_backbone(name) for name in groups_of(trainer, model, RECIPE))
    model.train()
    assert all(part.training for part in trainer.backbone_modules(model))
    assert any(is_backbone(name) for name in groups_of(trainer, model, RECIPE))
