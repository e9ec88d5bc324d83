"""Whether transformers' code is the one that our own was written against: by its text, not its version."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from maskloop.log import log_action

__all__ = ["CHECKED", "TESTED", "fingerprint", "is_replaceable", "matches_tested"]

_LOG = logging.getLogger(__name__)
_READING = threading.Lock()  # one thread loads a model while another predicts; linecache knows no threads
TRIES, WAIT_S = 10, 0.05
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


def fingerprint(parts: Sequence[Any]) -> str:
    """Return 16 hex digits of the source of functions and classes; layout, comments and docs do not count.

    Raises:
        OSError: there is no source to read.
    """
    text = "\n".join(_bare_source(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def matches_tested(what: str, parts: tuple[Any, ...], known: frozenset[str]) -> bool:
    """Return whether these parts of transformers are among the known ones; logs once where they are not.

    Args:
        what: is switched off otherwise, for the log.
        parts: functions and classes that ours stands in for.
        known: their fingerprints in the versions that were tested.
    """
    try:
        with _READING:
            found = _read_again(parts)
    except (OSError, TypeError, SyntaxError, SystemError) as exc:
        found = f"no source ({exc})"
    if found in known:
        return True
    log_action(
        _LOG,
        "acceleration_off",
        level=logging.WARNING,
        part=what,
        reason="transformers' code differs from the code it was written for",
        fingerprint=found,
    )
    return False


def _read_again(parts: tuple[Any, ...]) -> str:
    """Return the fingerprint, also while other threads parse Python code.

    CPython 3.11 counts the depth of all threads' syntax trees in one number, and raises SystemError where
    two meet (python/cpython#106905).
    """
    for left in reversed(range(TRIES)):
        try:
            return fingerprint(parts)
        except SystemError:
            if not left:
                raise
            time.sleep(WAIT_S)
    raise AssertionError("unreachable")


def _bare_source(part: Any) -> str:
    source = inspect.getsource(inspect.unwrap(part) if inspect.isfunction(part) else part)
    kept: list[str] = []
    quoted = False
    for line in (raw.strip() for raw in source.splitlines()):
        quotes = line.count('"""')
        if not quoted and quotes == 0 and line and not line.startswith("#"):
            kept.append(line)
        quoted ^= quotes % 2 == 1
    return "\n".join(kept)


def _named(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return (_SAMPLER, *(prefix + name for name in names))


# part -> (model of transformers, its functions and classes)
CHECKED: dict[str, tuple[str, tuple[str, ...]]] = {
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
TESTED: dict[str, frozenset[str]] = {
    "mask2former sampling": frozenset({"48a8c8ab78e7c6d2"}),
    "oneformer sampling": frozenset({"46a140a3ffc10ffe", "197a5ba2f65ffa3a"}),
    "mask2former": frozenset({"d30f17414a25a9a5", "c0ce2c38e6cea72b", "a3056f107bd75fcd"}),
    "oneformer": frozenset({"d03fd120b2d0dbce", "9941a9f4f8d85e14", "7239fe6a83e93c1b"}),
    "swin": frozenset({"372e752d0651e077", "897ac9e3ed85ed4b"}),
}


@functools.cache
def is_replaceable(part: str) -> bool:
    """Return whether transformers' code of a part is a known one; logs once where it is not."""
    model_type, names = CHECKED[part]
    library = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    return matches_tested(part, tuple(getattr(library, name, None) for name in names), TESTED[part])
