"""What differs between the families of models whose heads have one form: classes and masks per query."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from torch import nn

from maskloop.errors import ModelLoadError
from maskloop.segmentation.preprocess import Preprocessing

__all__ = [
    "EOMT",
    "FAMILY_NAMES",
    "Family",
    "can_grow_queries",
    "family_of",
    "fit_preprocessing",
    "model_class",
    "patch_grid",
    "processor_name",
    "regrow_classes",
    "regrow_queries",
    "settle_model",
]

Family: TypeAlias = Literal["mask2former", "oneformer", "maskformer", "eomt", "eomt_dinov3"]
EOMT: frozenset[Family] = frozenset({"eomt", "eomt_dinov3"})  # a plain ViT whose input is one square
FAMILY_NAMES: dict[Family, str] = {
    "mask2former": "Mask2Former",
    "oneformer": "OneFormer",
    "maskformer": "MaskFormer",
    "eomt": "EoMT",
    "eomt_dinov3": "EoMT on DINOv3",
}

# Both warn at every start that a ResNet or ConvNeXt "may not be compatible"; they are
for _name in ("mask2former", "maskformer"):
    logging.getLogger(f"transformers.models.{_name}.configuration_{_name}").setLevel(logging.ERROR)


def family_of(config: Mapping[str, Any], source: str | Path) -> Family:
    """Return the family that a `config.json` names.

    Raises:
        ModelLoadError: none of these.
    """
    kind = config.get("model_type")
    if kind in get_args(Family):
        return cast(Family, kind)
    raise ModelLoadError(
        f"model {source}",
        expected="a Mask2Former, OneFormer, MaskFormer or EoMT checkpoint",
        got=f"model_type {kind!r}",
        remedy="set MASKLOOP_MODEL to a checkpoint of one of these families",
    )


def model_class(family: Family) -> Any:
    """Return transformers' class of a family; our own backbones are registered with transformers as well.

    Raises:
        ModelLoadError: the installed transformers is older than the family.
    """
    import transformers

    importlib.import_module("maskloop.segmentation.efficientnet_lite")  # registers itself

    names: dict[Family, str] = {
        "mask2former": "Mask2FormerForUniversalSegmentation",
        "oneformer": "OneFormerForUniversalSegmentation",
        "maskformer": "MaskFormerForInstanceSegmentation",
        "eomt": "EomtForUniversalSegmentation",
        "eomt_dinov3": "EomtDinov3ForUniversalSegmentation",
    }
    found = getattr(transformers, names[family], None)
    if found is None:
        raise ModelLoadError(
            f"model_type {family!r}",
            expected=f"a transformers that has {names[family]}",
            got=f"transformers {transformers.__version__}",
            remedy="pip install --upgrade transformers",
        )
    return found


def processor_name(family: Family) -> str:
    """Return the `image_processor_type` of this family's `preprocessor_config.json`."""
    return f"{'Eomt' if family in EOMT else FAMILY_NAMES[family]}ImageProcessor"


def fit_preprocessing(preprocessing: Preprocessing, family: Family, config: Any) -> Preprocessing:
    """Return the preprocessing with what the model itself demands.

    EoMT has a position for each patch of one square, so every image is fitted into that square, its aspect
    kept, and padded to it with black: before normalisation, as its own processor does. Where that processor
    would cut an image into overlapping squares (`do_split_image`), the whole image is shown at once instead:
    an object keeps one query, at less resolution.

    Args:
        preprocessing: as read from `preprocessor_config.json`.
        family: of the model.
        config: the model's.

    Source:
        `resize_and_pad_imgs_instance_panoptic` of tue-mps/eomt, training/lightning_module.py (Kerssies
        et al., "Your ViT is Secretly an Image Segmentation Model", CVPR 2025).
    """
    if family not in EOMT:
        return preprocessing
    square_hw = (_side(config.image_size), _side(config.image_size))
    patch = _side(config.patch_size)
    return replace(
        preprocessing,
        shortest_edge=None,
        longest_edge=None,
        box_hw=square_hw,
        pad_hw=square_hw,
        size_divisor=patch,
        mask_stride=max(1, patch >> int(config.num_upscale_blocks)),
    )


def patch_grid(family: Family, config: Any) -> tuple[int, int] | None:
    """Return how many rows and columns of patches the model's tokens are; None where features are maps."""
    if family not in EOMT:
        return None
    side = _side(config.image_size) // _side(config.patch_size)
    return side, side


def settle_model(model: Any, family: Family) -> None:
    """Change in place what keeps a loaded model from running, or from giving the same twice."""
    if family == "maskformer" and model.config.use_auxiliary_loss:
        model.config.output_hidden_states = True  # its forward pass takes them for granted and fails without
    if family in EOMT:
        # of a mask annealing broken off midway it would draw queries at random, in eval mode too
        model.attn_mask_probs.round_()


def regrow_classes(model: Any, family: Family, kept_ids: Sequence[int | None], seed: int) -> None:
    """Change the model's classes in place.

    Args:
        model: its class head and its loss are changed; not its config.
        family: of the model.
        kept_ids: for each new class the id of the old one whose row is copied, None for a row drawn afresh;
            where the model knows one class only, such a row is that class's, moved at random.
        seed: for the rows drawn afresh.
    """
    owner, attribute = _class_head(model, family)
    setattr(owner, attribute, _regrown_head(getattr(owner, attribute), kept_ids, seed))
    criterion = model.criterion
    weight = torch.ones(len(kept_ids) + 1, device=criterion.empty_weight.device)
    weight[-1] = criterion.eos_coef
    criterion.empty_weight = weight
    setattr(criterion, "num_classes" if family == "oneformer" else "num_labels", len(kept_ids))


def can_grow_queries(family: Family) -> bool:
    """Return whether a family's queries are nothing but learnt embeddings, so that there may be more of them.

    OneFormer compares each query with a text, MaskFormer stores queries with another model, and EoMT's are
    part of its backbone.
    """
    return family == "mask2former"


def regrow_queries(model: Any, count: int, seed: int) -> None:
    """Give a Mask2Former more queries, in place: copies of its own in turn, moved by a tenth of their spread.

    Args:
        model: its queries and its config are changed.
        count: of queries; at least as many as it has.
        seed: for the moves, without which a copy would learn what its original learns.
    """
    module = model.model.transformer_module
    generator = torch.Generator().manual_seed(seed)
    for name in ("queries_embedder", "queries_features"):
        old_nc = getattr(module, name).weight.detach()
        known = len(old_nc)
        if count < known:
            raise ValueError(f"regrow_queries: expected at least {known} queries, got {count}")
        grown_nc = old_nc[torch.arange(count) % known].clone()
        moves_nc = torch.randn(grown_nc[known:].shape, generator=generator).to(grown_nc)
        grown_nc[known:] += 0.1 * old_nc.std() * moves_nc
        setattr(module, name, nn.Embedding.from_pretrained(grown_nc, freeze=False))  # type: ignore[no-untyped-call]
    model.config.num_queries = count


def _side(size: int | Sequence[int]) -> int:
    """Return the side of a square that a config gives as one number or as two equal ones."""
    sides = {int(size)} if isinstance(size, int | float) else {int(side) for side in size}
    if len(sides) != 1:
        raise ValueError(f"expected the side of a square, got {size}")
    return sides.pop()


def _class_head(model: Any, family: Family) -> tuple[nn.Module, str]:
    if family == "oneformer":
        return model.model.transformer_module.decoder, "class_embed"
    return model, "class_predictor"


def _regrown_head(head: nn.Linear, kept_ids: Sequence[int | None], seed: int) -> nn.Linear:
    grown = nn.Linear(head.in_features, len(kept_ids) + 1, device=head.weight.device, dtype=head.weight.dtype)
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(head.in_features)
    with torch.no_grad():
        fresh = torch.empty(grown.weight.shape).uniform_(-bound, bound, generator=generator)
        grown.weight.copy_(fresh)
        grown.bias.zero_()
        if head.out_features == 2:
            # the only class says that there is an object; new ones share that out
            grown.weight.add_(head.weight[0])
            grown.bias.add_(head.bias[0] - math.log(max(1, list(kept_ids).count(None))))
        for new, old in enumerate([*kept_ids, head.out_features - 1]):
            if old is not None:
                grown.weight[new] = head.weight[old]
                grown.bias[new] = head.bias[old]
    return grown
