"""Areas to ignore give no gradient, in each family's own loss."""

import pytest
import torch

from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_maskformer, build_tiny_oneformer
from maskloop.learning.losses.ignore_regions import IgnoringLoss, ignoring

BUILDERS = {
    "mask2former": build_tiny_mask2former,
    "oneformer": lambda labels, seed: build_tiny_oneformer(labels, seed=seed, training=True),
    "maskformer": build_tiny_maskformer,
}
CELLS = 16
IGNORED_HW = torch.zeros(64, 64, dtype=torch.bool)
IGNORED_HW[:, 32:] = True  # the right half


@pytest.fixture(params=BUILDERS)
def model(request):
    return BUILDERS[request.param](("disc", "square"), seed=0).model.train()


def gradients(model, mask_logits, class_logits, ignored_hw):
    """Return the loss of one disc in the upper left, and its gradient at masks and classes."""
    disc = torch.zeros(1, 64, 64)
    disc[0, 8:24, 8:24] = 1
    targets = {"mask_labels": [disc], "class_labels": [torch.tensor([0])], "auxiliary_predictions": None}
    if "OneFormer" in type(model.criterion).__name__:
        targets |= {
            "contrastive_queries_logits": None,
            "text_queries": None,
            "calculate_contrastive_loss": False,
        }
    model.criterion.ignored_bhw = ignored_hw[None]
    masks, classes = mask_logits.clone().requires_grad_(), class_logits.clone().requires_grad_()
    torch.manual_seed(0)
    sum(model.criterion(masks, classes, **targets).values()).backward()
    return masks.grad, classes.grad


def make_logits(seed=0, queries=20):
    generator = torch.Generator().manual_seed(seed)
    mask_logits = torch.randn(1, queries, CELLS, CELLS, generator=generator)
    mask_logits[0, 0] = -4
    mask_logits[0, 0, 2:6, 2:6] = 4  # one query has found the disc
    mask_logits[0, 3] = -4
    mask_logits[0, 3, 4:12, 10:14] = 4  # one query looks at what is ignored
    return mask_logits, torch.randn(1, queries, 3, generator=generator)


def test_ignoring_pixels_of_ignored_areas_give_no_gradient(model):
    with ignoring(model):
        masks, _ = gradients(model, *make_logits(), IGNORED_HW)
    assert masks[..., :8].abs().sum() > 0
    assert masks[..., 8:].abs().sum() == 0


def test_ignoring_unmatched_query_there_is_not_pushed_to_nothing(model):
    with ignoring(model):
        _, there = gradients(model, *make_logits(), IGNORED_HW)
        _, nowhere = gradients(model, *make_logits(), torch.zeros_like(IGNORED_HW))
    assert there[0, 3].abs().sum() < 1e-6
    assert nowhere[0, 3].abs().sum() > 1e-3
    assert (there[0].abs().sum(dim=-1) > 1e-3).any()


def test_ignoring_without_areas_equals_the_familys_loss(model):
    plain = gradients(model, *make_logits(), torch.zeros_like(IGNORED_HW))
    with ignoring(model):
        assert isinstance(model.criterion, IgnoringLoss)
        same = gradients(model, *make_logits(), torch.zeros_like(IGNORED_HW))
    assert not isinstance(model.criterion, IgnoringLoss)
    assert all(torch.equal(one, other) for one, other in zip(plain, same, strict=True))


def test_ignoring_everything_still_trains(model):
    with ignoring(model):
        masks, classes = gradients(model, *make_logits(), torch.ones_like(IGNORED_HW))
    assert torch.isfinite(masks).all()
    assert torch.isfinite(classes).all()
