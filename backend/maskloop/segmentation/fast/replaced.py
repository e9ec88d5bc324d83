"""What of transformers our code stands in for, and the fingerprints of the versions it was tested against."""

from __future__ import annotations

import functools
import importlib

from maskloop.segmentation.fast.source_check import is_known

__all__ = ["KNOWN", "NAMES", "is_replaceable"]

_DECODERS = (
    "SinePositionEmbedding",
    "PixelDecoderEncoderMultiscaleDeformableAttention",
    "PixelDecoderEncoderLayer",
    "PixelDecoderEncoderOnly",
    "PixelDecoder",
    "PixelLevelModule",
    "Attention",
    "TransformerModule",
    "Model",
    "ForUniversalSegmentation",
)
_OWN = {
    "mask2former": ("MaskedAttentionDecoderLayer", "MaskedAttentionDecoder", "MaskPredictor"),
    "oneformer": (
        "TransformerDecoderSelfAttentionLayer",
        "TransformerDecoderCrossAttentionLayer",
        "TransformerDecoderFFNLayer",
        "TransformerDecoderLayer",
        "TransformerDecoderQueryTransformerDecoder",
        "TransformerDecoderQueryTransformerDecoderLayer",
        "TransformerDecoderQueryTransformer",
        "TransformerDecoder",
        "TaskModel",
    ),
}
_SAMPLER = "multi_scale_deformable_attention"


def _named(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return (_SAMPLER, *(prefix + name for name in names))


# part -> (model of transformers, its functions and classes)
NAMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mask2former sampling": ("mask2former", _named("Mask2Former", _DECODERS[1:2])),
    "oneformer sampling": ("oneformer", _named("OneFormer", _DECODERS[1:2])),
    "mask2former": ("mask2former", _named("Mask2Former", _DECODERS + _OWN["mask2former"])),
    "oneformer": ("oneformer", _named("OneFormer", _DECODERS + _OWN["oneformer"])),
    "swin": (
        "swin",
        (
            "SwinLayer",
            "SwinAttention",
            "SwinRelativePositionBias",
            "SwinPatchMerging",
            "SwinStage",
            "SwinEncoder",
            "SwinModel",
            "SwinBackbone",
            "eager_attention_forward",
            "window_partition",
            "window_reverse",
        ),
    ),
}

# of transformers 5.17 to 5.23, whose differences are none to an inference
KNOWN: dict[str, frozenset[str]] = {
    "mask2former sampling": frozenset({"48a8c8ab78e7c6d2"}),
    "oneformer sampling": frozenset({"46a140a3ffc10ffe", "197a5ba2f65ffa3a"}),
    "mask2former": frozenset({"d30f17414a25a9a5", "c0ce2c38e6cea72b", "a3056f107bd75fcd"}),
    "oneformer": frozenset({"d03fd120b2d0dbce", "9941a9f4f8d85e14", "7239fe6a83e93c1b"}),
    "swin": frozenset({"372e752d0651e077", "897ac9e3ed85ed4b"}),
}


@functools.cache
def is_replaceable(part: str) -> bool:
    """Return whether transformers' code of a part is a known one; says so once where it is not."""
    model_type, names = NAMES[part]
    library = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    return is_known(part, tuple(getattr(library, name, None) for name in names), KNOWN[part])
