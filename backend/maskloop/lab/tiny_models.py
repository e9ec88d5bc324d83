"""Tiny checkpoints with random weights: they run in milliseconds and train in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from maskloop.segmentation.checkpoint import Checkpoint, Family
from maskloop.segmentation.families import fit_preprocessing, settle_model
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.segmentation.task_text import TaskText

__all__ = [
    "TINY",
    "Backbone",
    "Tiny",
    "build_tiny_eomt",
    "build_tiny_mask2former",
    "build_tiny_maskformer",
    "build_tiny_oneformer",
]

Backbone: TypeAlias = Literal["resnet", "swin", "convnext", "efficientnet"]
STAGES = ("stage1", "stage2", "stage3", "stage4")  # strides 4, 8, 16, 32
# Frequent words become single tokens; all others are spelled letter by letter
TOKEN_WORDS = ("the", "task", "is", "instance", "semantic", "panoptic", "photo", "with", "a", "an")


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """All sizes of the tiny checkpoints: 0.89 million parameters for Mask2Former on ResNet."""

    shortest_edge: int = 128  # pixels
    longest_edge: int = 256
    queries: int = 20
    hidden: int = 64  # width of pixel decoder, decoder and masks
    feedforward: int = 128
    heads: int = 4
    encoder_layers: int = 1
    decoder_layers: int = 4
    loss_points: int = 1024  # sampled per mask
    no_object_weight: float = 0.1
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    resnet_stem: int = 32
    resnet_sizes: tuple[int, ...] = (32, 64, 128, 128)
    resnet_depths: tuple[int, ...] = (1, 1, 1, 1)
    swin_embed: int = 24
    swin_depths: tuple[int, ...] = (1, 1, 2, 1)
    swin_heads: tuple[int, ...] = (1, 2, 4, 8)
    swin_window: int = 4
    convnext_sizes: tuple[int, ...] = (24, 48, 96, 96)
    convnext_depths: tuple[int, ...] = (1, 1, 2, 1)
    vit_layers: int = 4
    vit_query_layers: int = 2  # the last ones, which see the queries
    vit_patch: int = 16  # pixels
    task_tokens: int = 16
    text_tokens: int = 32
    text_width: int = 64
    text_layers: int = 1
    text_context: int = 4  # learned texts


TINY = Tiny()


def build_tiny_mask2former(
    labels: Sequence[str],
    *,
    seed: int,
    thing_ids: Iterable[int] | None = None,
    backbone: Backbone = "resnet",
    tiny: Tiny = TINY,
) -> Checkpoint:
    """Return a Mask2Former with random weights on the CPU.

    Args:
        labels: class names in the order of their ids.
        seed: of the weights; torch's own generator is left as it was.
        thing_ids: classes whose objects are counted; all by default.
        backbone: "resnet" learns fast on few images, "swin" has the form of most published checkpoints,
            "efficientnet" may get ImageNet weights (`backbones.imagenet`).
        tiny: other sizes.
    """
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig(
        backbone_config=_backbone(backbone, tiny),
        feature_size=tiny.hidden,
        mask_feature_size=tiny.hidden,
        encoder_layers=tiny.encoder_layers,
        **_shared_sizes(labels, tiny),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Mask2FormerForUniversalSegmentation(config)
        _initialise(model)
    return _to_checkpoint(model, "mask2former", labels, thing_ids, tiny)


def build_tiny_oneformer(
    labels: Sequence[str],
    *,
    seed: int,
    thing_ids: Iterable[int] | None = None,
    training: bool = False,
    backbone: Backbone = "resnet",
    tiny: Tiny = TINY,
) -> Checkpoint:
    """Return a OneFormer with random weights on the CPU, with a tokenizer that spells.

    Args:
        labels: class names in the order of their ids.
        seed: of the weights; torch's own generator is left as it was.
        thing_ids: classes whose objects are counted; all by default.
        training: with the text encoder that its loss needs.
        backbone: as for Mask2Former.
        tiny: other sizes.
    """
    from transformers import OneFormerConfig, OneFormerForUniversalSegmentation

    tokenizer = _spelling_tokenizer()
    config = OneFormerConfig(
        backbone_config=_backbone(backbone, tiny),
        conv_dim=tiny.hidden,
        mask_dim=tiny.hidden,
        encoder_layers=tiny.encoder_layers,
        dropout=0.0,
        task_seq_len=tiny.task_tokens,
        text_encoder_context_length=tiny.text_tokens,
        text_encoder_width=tiny.text_width,
        text_encoder_num_layers=tiny.text_layers,
        text_encoder_vocab_size=len(tokenizer),
        text_encoder_n_ctx=tiny.text_context,
        is_training=training,
        **_shared_sizes(labels, tiny),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OneFormerForUniversalSegmentation(config)
        _initialise(model)
    text = TaskText(
        tokenizer=tokenizer,
        task_length=tiny.task_tokens,
        text_length=tiny.text_tokens,
        text_count=tiny.queries - tiny.text_context,
    )
    return _to_checkpoint(model, "oneformer", labels, thing_ids, tiny, task_text=text)


def build_tiny_maskformer(
    labels: Sequence[str],
    *,
    seed: int,
    thing_ids: Iterable[int] | None = None,
    backbone: Backbone = "resnet",
    tiny: Tiny = TINY,
) -> Checkpoint:
    """Return a MaskFormer with random weights on the CPU; arguments as for Mask2Former."""
    from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation

    decoder = {
        "model_type": "detr",
        "d_model": tiny.hidden,
        "num_queries": tiny.queries,
        "dropout": 0.0,
        "encoder_layers": 0,
        "decoder_layers": tiny.decoder_layers,
        "encoder_attention_heads": tiny.heads,
        "decoder_attention_heads": tiny.heads,
        "encoder_ffn_dim": tiny.feedforward,
        "decoder_ffn_dim": tiny.feedforward,
    }
    config = MaskFormerConfig(
        backbone_config=_backbone(backbone, tiny),
        decoder_config=decoder,
        fpn_feature_size=tiny.hidden,
        mask_feature_size=tiny.hidden,
        use_auxiliary_loss=True,
        no_object_weight=tiny.no_object_weight,
        **_names(labels),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskFormerForInstanceSegmentation(config)
        _initialise(model)
    return _to_checkpoint(model, "maskformer", labels, thing_ids, tiny)


def build_tiny_eomt(
    labels: Sequence[str], *, seed: int, thing_ids: Iterable[int] | None = None, tiny: Tiny = TINY
) -> Checkpoint:
    """Return an EoMT with random weights on the CPU; arguments as for Mask2Former, its input is a square."""
    from transformers import EomtConfig, EomtForUniversalSegmentation

    config = EomtConfig(
        hidden_size=tiny.hidden,
        num_hidden_layers=tiny.vit_layers,
        num_blocks=tiny.vit_query_layers,
        num_attention_heads=tiny.heads,
        mlp_ratio=tiny.feedforward // tiny.hidden,
        image_size=tiny.shortest_edge,
        patch_size=tiny.vit_patch,
        num_register_tokens=1,
        **_loss_sizes(tiny),
        **_names(labels),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EomtForUniversalSegmentation(config)
        _initialise(model)
    return _to_checkpoint(model, "eomt", labels, thing_ids, tiny)


def _to_checkpoint(
    model: Any,
    family: Family,
    labels: Sequence[str],
    thing_ids: Iterable[int] | None,
    tiny: Tiny,
    *,
    task_text: TaskText | None = None,
) -> Checkpoint:
    settle_model(model, family)
    edges = Preprocessing(shortest_edge=tiny.shortest_edge, longest_edge=tiny.longest_edge)
    return Checkpoint(
        model=model.eval(),
        family=family,
        labels=tuple(labels),
        thing_ids=frozenset(range(len(labels)) if thing_ids is None else thing_ids),
        preprocessing=fit_preprocessing(edges, family, model.config),
        task_text=task_text,
        source=f"tiny-{family}",
        device=torch.device("cpu"),
    )


def _shared_sizes(labels: Sequence[str], tiny: Tiny) -> dict[str, Any]:
    return {
        "hidden_dim": tiny.hidden,
        "encoder_feedforward_dim": tiny.feedforward,
        "dim_feedforward": tiny.feedforward,
        "decoder_layers": tiny.decoder_layers,
        "num_attention_heads": tiny.heads,
        **_loss_sizes(tiny),
        **_names(labels),
    }


def _loss_sizes(tiny: Tiny) -> dict[str, Any]:
    return {
        "num_queries": tiny.queries,
        "train_num_points": tiny.loss_points,
        "no_object_weight": tiny.no_object_weight,
        "class_weight": tiny.class_weight,
        "mask_weight": tiny.mask_weight,
        "dice_weight": tiny.dice_weight,
    }


def _names(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _backbone(kind: Backbone, tiny: Tiny) -> Any:
    from transformers import ConvNextConfig, ResNetConfig, SwinConfig

    stages: dict[str, Any] = {"out_features": list(STAGES)}
    if kind == "resnet":
        return ResNetConfig(
            embedding_size=tiny.resnet_stem,
            hidden_sizes=list(tiny.resnet_sizes),
            depths=list(tiny.resnet_depths),
            layer_type="basic",
            **stages,
        )
    if kind == "efficientnet":
        from maskloop.segmentation.efficientnet_lite import EfficientNetLiteConfig

        return EfficientNetLiteConfig(**stages)
    if kind == "convnext":
        return ConvNextConfig(
            hidden_sizes=list(tiny.convnext_sizes), depths=list(tiny.convnext_depths), **stages
        )
    return SwinConfig(
        image_size=tiny.shortest_edge,
        embed_dim=tiny.swin_embed,
        depths=list(tiny.swin_depths),
        num_heads=list(tiny.swin_heads),
        window_size=tiny.swin_window,
        drop_path_rate=0.0,
        **stages,
    )


def _initialise(model: nn.Module) -> None:
    """Draw the weights as the original code does; transformers' own start learns worse on a tiny model."""
    deformable = [
        name for name, _ in model.named_modules() if name.endswith(("sampling_offsets", "attention_weights"))
    ]
    for name, module in model.named_modules():
        if name in deformable:  # starts as a fixed star of points, which is what it has to start from
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.xavier_uniform_(module.in_proj_weight)
            nn.init.zeros_(module.in_proj_bias)


def _spelling_tokenizer() -> Any:
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
    merges: list[tuple[str, str]] = []
    for word in TOKEN_WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        joined = parts[0]
        for part in parts[1:]:
            if (joined, part) not in merges:
                merges.append((joined, part))
            joined += part
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges)]
    # the end must be the largest id: OneFormer's text encoder finds it by argmax
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges)  # type: ignore[arg-type]  # pairs, as its BPE takes them
