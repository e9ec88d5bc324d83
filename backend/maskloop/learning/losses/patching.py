"""Which parts of a model are replaced in a training; other families keep transformers' own loss.

The module of the same name in `segmentation.fast` replaces parts for prediction.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from maskloop.learning.losses.heads import pointwise
from maskloop.learning.losses.text_cache import unique_texts
from maskloop.segmentation.fast.patching import accelerate_model, restore_model
from maskloop.segmentation.fast.source_check import matches_tested

__all__ = ["accelerated"]

# digests of the code in transformers 5.17 to 5.23, with two ways to treat costs that are not finite
_KNOWN = {
    "mask2former": frozenset({"0e4863f3db14d80b", "e1275552e07e0b2e"}),
    "oneformer": frozenset({"1b01e9a2248e4fd1", "e5eaf2cc7b972c3f"}),
}


@contextmanager
def accelerated(model: Any) -> Iterator[None]:
    """Replace parts of a Mask2Former or OneFormer by faster ones while the context lasts.

    A model of another family, or one whose code in transformers is unknown, keeps transformers' own loss.
    To be entered inside `ignoring`, whose loss it extends.
    """
    with ExitStack() as parts:
        if accelerate_model(model):
            parts.callback(restore_model, model)
        family = model.config.model_type
        if family in _KNOWN and matches_tested(f"{family}'s loss", replaced_parts(family), _KNOWN[family]):
            parts.enter_context(pointwise(model))
            parts.enter_context(unique_texts(model))
        yield


@functools.cache
def replaced_parts(family: str) -> tuple[Any, ...]:
    """Return the code of transformers that the loss and prediction heads of a family replace or rely on."""
    if family == "mask2former":
        from transformers.models.mask2former import modeling_mask2former as mask2former

        return (
            mask2former.sample_point,
            mask2former.dice_loss,
            mask2former.sigmoid_cross_entropy_loss,
            mask2former.pair_wise_dice_loss,
            mask2former.pair_wise_sigmoid_cross_entropy_loss,
            mask2former.Mask2FormerHungarianMatcher,
            mask2former.Mask2FormerLoss,
            mask2former.Mask2FormerMaskPredictor,
            mask2former.Mask2FormerForUniversalSegmentation.get_loss_dict,
            mask2former.Mask2FormerForUniversalSegmentation.get_auxiliary_logits,
        )
    from transformers.models.oneformer import modeling_oneformer as oneformer

    return (
        oneformer.sample_point,
        oneformer.dice_loss,
        oneformer.sigmoid_cross_entropy_loss,
        oneformer.pair_wise_dice_loss,
        oneformer.pair_wise_sigmoid_cross_entropy_loss,
        oneformer.OneFormerHungarianMatcher,
        oneformer.OneFormerLoss,
        oneformer.OneFormerTransformerDecoder.forward_prediction_heads,
        oneformer.OneFormerTransformerDecoder._get_aux_predictions,
        oneformer.OneFormerForUniversalSegmentation.get_loss_dict,
        oneformer.OneFormerTextTransformerLayer,
        oneformer.OneFormerTextEncoder,
        oneformer.OneFormerTextMapper,
    )
