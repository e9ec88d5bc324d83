"""Queries that find a deleted region again weigh more in the class loss; compared with plain loops."""

import math

import numpy as np
import pytest
import torch

from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_maskformer, build_tiny_oneformer
from maskloop.learning.losses.hard_negatives import DeletedRegions, covers_deleted
from maskloop.learning.losses.ignore_regions import ignoring

BUILDERS = {
    "mask2former": build_tiny_mask2former,
    "oneformer": lambda labels, seed: build_tiny_oneformer(labels, seed=seed, training=True),
    "maskformer": build_tiny_maskformer,
}
CELLS, PIXELS = 16, 64
DISC, THERE, BESIDE, ON_DISC = 0, 3, 5, 7  # queries


@pytest.fixture(params=BUILDERS)
def model(request):
    return BUILDERS[request.param](("disc", "square"), seed=0).model.train()


def regions(*boxes):
    """Return one image's deleted regions, given as top, left, bottom and right in pixels."""
    index_hw = torch.zeros(PIXELS, PIXELS, dtype=torch.int16)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        index_hw[top:bottom, left:right] = number
    return DeletedRegions(index_bhw=index_hw[None], counts=(len(boxes),))


def make_logits(queries=20):
    """Return mask logits: one query has the disc, one a region beside it, one half of that region."""
    generator = torch.Generator().manual_seed(0)
    mask_logits = torch.randn(1, queries, CELLS, CELLS, generator=generator) - 6
    mask_logits[0, (DISC, ON_DISC), 2:6, 2:6] = 4
    mask_logits[0, THERE, 4:12, 10:14] = 4
    mask_logits[0, BESIDE, 9:16, 10:14] = 4  # 12 of 48 cells are common: IoU .25
    return mask_logits, torch.randn(1, queries, 3, generator=generator)


DELETED = (16, 40, 48, 56)  # what THERE covers, in pixels


def family_loss(model, planes_nhw, **given):
    """Return the parts of a family's loss of objects, one a class, and the gradients of masks and classes.

    What else is given is an attribute of the loss meanwhile.
    """
    targets = {
        "mask_labels": [planes_nhw],
        "class_labels": [torch.arange(len(planes_nhw))],
        "auxiliary_predictions": None,
    }
    if "OneFormer" in type(model.criterion).__name__:
        nothing = dict.fromkeys(("contrastive_queries_logits", "text_queries"))
        targets |= nothing | {"calculate_contrastive_loss": False}
    masks, classes = (one.clone().requires_grad_() for one in make_logits())
    torch.manual_seed(0)
    with ignoring(model):
        for name, value in given.items():
            setattr(model.criterion, name, value)
        parts = model.criterion(masks, classes, **targets)
        sum(parts.values()).backward()
    return {name: one.detach() for name, one in parts.items()}, masks.grad, classes.grad[0]


def class_loss(model, deleted, *, weight=4.0, ignored_hw=None):
    """Return the class loss with a disc in the upper left, its gradient, and the masks' gradient."""
    disc = torch.zeros(1, PIXELS, PIXELS)
    disc[0, 8:24, 8:24] = 1
    ignored_bhw = None if ignored_hw is None else ignored_hw[None]
    parts, of_masks, of_classes = family_loss(
        model, disc, deleted=deleted, deleted_weight=weight, ignored_bhw=ignored_bhw
    )
    assert model.criterion.__class__.__name__.startswith(("Mask2Former", "OneFormer", "MaskFormer"))
    return float(parts["loss_cross_entropy"]), of_classes, of_masks


def plain_class_loss(matched, hard, weight):
    """Return the weighted cross-entropy query by query; only `matched` has an object, a disc."""
    logits = make_logits()[1][0].double().numpy()
    total = weights = 0.0
    for query, row in enumerate(logits):
        target, of_class = (0, 1.0) if query == matched else (2, 0.1)
        unlikely = math.log(sum(math.exp(one) for one in row)) - row[target]
        total += of_class * unlikely * (weight if query in hard else 1)
        weights += of_class
    return total / weights


def matched_query(model):
    """Return which of the two queries on the disc is matched with it."""
    likely = make_logits()[1][0].softmax(-1)[:, 0]
    return DISC if likely[DISC] > likely[ON_DISC] else ON_DISC


def test_hard_negatives_weigh_more_in_the_class_loss_and_nowhere_else(model):
    found, classes, masks = class_loss(model, regions(DELETED))
    _, plain_classes, plain_masks = class_loss(model, None)
    assert found == pytest.approx(plain_class_loss(matched_query(model), {THERE}, 4.0), rel=1e-5)
    ratios = (classes / plain_classes).mean(-1)
    expected = torch.ones(20)
    expected[THERE] = 4
    torch.testing.assert_close(ratios, expected, rtol=1e-4, atol=0)
    assert torch.equal(masks, plain_masks)


def test_hard_negatives_query_with_an_object_is_none(model):
    """A deleted region that lies where the disc is: its query is right, only the other one is not."""
    found, _, _ = class_loss(model, regions((8, 8, 24, 24)))
    matched = matched_query(model)
    other = ON_DISC if matched == DISC else DISC
    assert found == pytest.approx(plain_class_loss(matched, {other}, 4.0), rel=1e-5)


@pytest.mark.parametrize(
    ("deleted", "weight"),
    [
        pytest.param(None, 4.0, id="none"),
        pytest.param(regions(), 4.0, id="no region"),
        pytest.param(regions((60, 60, 62, 62)), 4.0, id="smaller than a cell"),
        pytest.param(regions(DELETED), 1.0, id="no weight of its own"),
    ],
)
def test_hard_negatives_nothing_to_weigh_equals_the_familys_loss(model, deleted, weight):
    found, classes, masks = class_loss(model, deleted, weight=weight)
    plain, plain_classes, plain_masks = class_loss(model, None)
    assert found == plain
    assert torch.equal(classes, plain_classes)
    assert torch.equal(masks, plain_masks)


def test_hard_negatives_ignored_area_is_none(model):
    """What is excused stays excused, also where an index map says that a region was deleted there."""
    ignored_hw = torch.zeros(PIXELS, PIXELS, dtype=torch.bool)
    ignored_hw[:, 32:] = True
    found, classes, _ = class_loss(model, regions(DELETED), ignored_hw=ignored_hw)
    plain, _, _ = class_loss(model, None, ignored_hw=ignored_hw)
    assert classes[THERE].abs().sum() < 1e-6
    assert found == pytest.approx(plain, rel=1e-6)


def test_covers_deleted_equals_sets_of_cells():
    rng = np.random.default_rng(0)
    masks = rng.random((40, 6, 8)) < rng.random((40, 1, 1))
    cells = rng.random((5, 6, 8)) < 0.5
    masks[0], cells[0] = False, False
    masks[1:4] = cells[1:4] ^ (rng.random((3, 6, 8)) < 0.2)

    def iou(one, other):
        first, second = (set(zip(*np.nonzero(each), strict=True)) for each in (one, other))
        return len(first & second) / max(len(first | second), 1)

    expected = [any(iou(mask, region) >= 0.5 for region in cells) for mask in masks]
    found = covers_deleted(torch.from_numpy(np.where(masks, 0.5, -0.5)), torch.from_numpy(cells))
    assert found.tolist() == expected
    assert 3 <= sum(expected) < 40


def test_deleted_regions_cells_are_those_mostly_inside():
    deleted = regions((0, 0, 8, 7), (30, 30, 40, 40))
    rows = deleted.cells(0, (16, 16))
    index_hw = deleted.index_bhw[0].numpy()
    for number, row in enumerate(rows, start=1):
        for y, x in np.ndindex(16, 16):
            share = np.mean(index_hw[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] == number)
            assert bool(row[y, x]) == (share > 0.5)
