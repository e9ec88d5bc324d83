"""Puts our deformable attention into a model of transformers, in place and on this one object only.

Weights, their names and what is saved stay as they are; deep copies and pickles keep the patch.
"""

from __future__ import annotations

from typing import Any

__all__ = ["accelerate_model", "restore_model"]

FAMILIES = ("mask2former", "oneformer")


def accelerate_model(model: Any) -> int:
    """Let the pixel decoder of a Mask2Former or OneFormer sample by `deformable_attention` on the CPU.

    It gives the same to float32's rounding, in training as well; elsewhere than on the CPU, and for what it
    does not know, the module does what it did before. Other models are left alone, as is one whose code in
    transformers is not the one that was tested (with one warning).

    Args:
        model: of transformers; changed in place. Doing it twice is as once.

    Returns:
        How many modules were changed.
    """
    if getattr(model.config, "model_type", None) not in FAMILIES:
        return 0
    from maskloop.segmentation.fast.attention_modules import fast_classes  # imports transformers' models

    fast = fast_classes(model.config.model_type)
    found = [module for module in model.modules() if type(module) in fast]
    for module in found:
        module.__class__ = fast[type(module)]
    return len(found)


def restore_model(model: Any) -> int:
    """Undo accelerate_model; returns how many modules were changed back."""
    if getattr(model.config, "model_type", None) not in FAMILIES:
        return 0
    from maskloop.segmentation.fast.attention_modules import fast_classes

    plain = {fast: plain for plain, fast in fast_classes(model.config.model_type).items()}
    found = [module for module in model.modules() if type(module) in plain]
    for module in found:
        module.__class__ = plain[type(module)]
    return len(found)
