"""Boxes teach class and extent, in each family's own loss; compared with plain loops."""

import itertools

import numpy as np
import pytest
import torch

from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_maskformer, build_tiny_oneformer
from maskloop.learning.losses.box_projection import Boxes, box_profiles, projection_losses
from maskloop.learning.losses.ignore_regions import ignoring

BUILDERS = {
    "mask2former": build_tiny_mask2former,
    "oneformer": lambda labels, seed: build_tiny_oneformer(labels, seed=seed, training=True),
    "maskformer": build_tiny_maskformer,
}
CELLS = 16


@pytest.fixture(params=BUILDERS)
def model(request):
    return BUILDERS[request.param](("disc", "square"), seed=0).model.train()


def make_boxes(*rows):
    """Return boxes of left, top, right and bottom in cells, x whole, y whole, class."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Boxes(
        sides_m4=torch.tensor(table[:, :4] / CELLS, dtype=torch.float32),
        whole_m2=torch.tensor(table[:, 4:6].astype(bool)),
        ids_m=torch.tensor(table[:, 6].astype(np.int64)),
    )


def plain_loss(logits_hw, box):
    """Return what one mask loses to one box, cell by cell."""
    shares_hw = 1 / (1 + np.exp(-logits_hw.numpy().astype(np.float64)))
    losses = []
    for axis, (first, last) in enumerate((box[:2].tolist(), box[2:4].tolist()), start=0):
        first, last = (box[0], box[2]) if axis == 0 else (box[1], box[3])
        overlap = ours = theirs = 0.0
        for cell in range(CELLS):
            share = shares_hw[:, cell].max() if axis == 0 else shares_hw[cell].max()
            covered = min(max(min(cell + 1, last) - max(cell, first), 0.0), 1.0)
            wanted = covered if box[4 + axis] else covered * share
            overlap += share * wanted
            ours += share * share
            theirs += wanted * wanted
        losses.append(1 - (2 * overlap + 1e-5) / (ours + theirs + 1e-5))
    return sum(losses) / 2


BOXES = np.array(
    [[2, 3, 9, 12, 1, 1, 0], [2.5, 3.25, 9.5, 12, 1, 1, 1], [0, 3, 5, 12, 1, 0, 0], [1, 0, 5, 16, 0, 1, 1]]
)


@pytest.mark.parametrize("box", BOXES, ids=["whole", "between cells", "cut left", "cut above and below"])
def test_projection_losses_equals_plain_loops(box):
    logits_hw = 3 * torch.randn(CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    boxes = make_boxes(box)
    (found,) = projection_losses(logits_hw[None], boxes.sides_m4, boxes.whole_m2)
    assert float(found) == pytest.approx(plain_loss(logits_hw, box), abs=1e-5)


def test_projection_losses_mask_of_a_disc_in_its_box_is_nothing():
    y, x = np.mgrid[:CELLS, :CELLS] + 0.5
    disc_hw = torch.tensor(np.where((x - 8) ** 2 + (y - 8) ** 2 <= 36, 20.0, -20.0))
    boxes = make_boxes([2, 2, 14, 14, 1, 1, 0], [1, 2, 14, 14, 1, 1, 0])
    exact, larger = projection_losses(disc_hw.expand(2, -1, -1), boxes.sides_m4, boxes.whole_m2)
    assert float(exact) < 1e-4
    assert float(larger) > 0.01


def test_projection_losses_cut_box_asks_only_for_nothing_outside():
    part_hw = torch.full((CELLS, CELLS), -20.0)
    part_hw[6:9, :5] = 20  # less high than the box, up to the cut on the left
    boxes = make_boxes([0, 3, 5, 12, 1, 0, 0], [0, 3, 5, 12, 1, 1, 0], [0, 7, 5, 12, 1, 0, 0])
    cut, whole, beyond = projection_losses(part_hw.expand(3, -1, -1), boxes.sides_m4, boxes.whole_m2)
    assert float(cut) < 1e-4
    assert min(float(whole), float(beyond)) > 0.05


def test_box_profiles_share_of_a_cell():
    (profile,) = box_profiles(torch.tensor([[0.3, 0.7]]), 5)
    assert profile.tolist() == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)


def loss_parts(model, mask_logits, class_logits, boxes):
    """Return the losses of one image with a disc, the rest of it ignored, and the logits' gradients."""
    disc = torch.zeros(1, 64, 64)
    disc[0, 8:24, 8:24] = 1
    targets = {"mask_labels": [disc], "class_labels": [torch.tensor([0])], "auxiliary_predictions": None}
    if "OneFormer" in type(model.criterion).__name__:
        nothing = dict.fromkeys(("contrastive_queries_logits", "text_queries"))
        targets |= nothing | {"calculate_contrastive_loss": False}
    ignored_hw = torch.zeros(64, 64, dtype=torch.bool)
    ignored_hw[:, 32:] = True
    masks, classes = mask_logits.clone().requires_grad_(), class_logits.clone().requires_grad_()
    torch.manual_seed(0)
    with ignoring(model):
        model.criterion.ignored_bhw = ignored_hw[None]
        model.criterion.boxes = None if boxes is None else [boxes]
        parts = model.criterion(masks, classes, **targets)
    sum(parts.values()).backward()
    return parts, masks.grad[0], classes.grad[0]


def make_logits(queries=20):
    generator = torch.Generator().manual_seed(0)
    mask_logits = torch.randn(1, queries, CELLS, CELLS, generator=generator)
    mask_logits[0, 0] = -4
    mask_logits[0, 0, 2:6, 2:6] = 4  # one query has found the disc
    return mask_logits, torch.randn(1, queries, 3, generator=generator)


def test_ignoring_loss_boxes_take_the_cheapest_free_queries(model):
    """The loss is that of the best pairs of all, tried one after the other."""
    mask_logits, class_logits = make_logits()
    rows = BOXES[:2]
    parts, _, _ = loss_parts(model, mask_logits, class_logits, make_boxes(*rows))
    losses = np.array([[plain_loss(one, row) for row in rows] for one in mask_logits[0]])
    likely = class_logits[0].softmax(-1).numpy()[:, rows[:, 6].astype(int)]
    matcher = model.criterion.matcher
    costs = matcher.cost_dice * losses - matcher.cost_class * likely
    pairs = itertools.permutations(range(1, len(costs)), 2)  # query 0 has the disc
    one, other = min(pairs, key=lambda pair: costs[pair[0], 0] + costs[pair[1], 1])
    expected = matcher.cost_dice * (losses[one, 0] + losses[other, 1]) / 3  # one mask, two boxes
    assert float(parts["loss_box"].detach()) == pytest.approx(expected, rel=1e-4)


def test_ignoring_loss_box_teaches_class_and_extent_of_one_query(model):
    mask_logits, class_logits = make_logits()
    mask_logits[0, 1:] -= 6
    mask_logits[0, 5, 4:12, 10:14] = 4  # lies in the box, inside the ignored area
    box = make_boxes([9, 3, 15, 13, 1, 1, 1])
    _, masks, classes = loss_parts(model, mask_logits, class_logits, box)
    _, without, excused = loss_parts(model, mask_logits, class_logits, make_boxes())
    assert classes[5, 1] < -1e-3  # up to the class of the box
    assert excused[5].abs().sum() < 1e-6
    assert masks[5, :, 9].sum() < 0  # a column of the box that it does not reach
    assert without[5].abs().sum() == 0
    # the other queries of the ignored area get nothing
    assert [one for one in range(20) if masks[one, :, 9:].abs().sum() > 0] == [5]


def test_ignoring_loss_no_boxes_equals_none(model):
    logits = make_logits()
    parts, masks, classes = loss_parts(model, *logits, make_boxes())
    assert float(parts["loss_box"].detach()) == 0
    _, same_masks, same_classes = loss_parts(model, *logits, None)
    assert torch.equal(masks, same_masks)
    assert torch.equal(classes, same_classes)
