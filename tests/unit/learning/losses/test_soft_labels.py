"""Shares and votes of annotators in the loss of each family, against plain versions."""

import pytest
import torch
from tests.unit.learning.losses.test_hard_negatives import BUILDERS, PIXELS, family_loss, make_logits
from tests.unit.learning.losses.test_point_loss import decided_model, make_inputs
from torch.nn import functional

from maskloop.learning.data.index_map import object_planes
from maskloop.learning.losses import accelerated
from maskloop.learning.losses.denoising import denoising
from maskloop.learning.losses.ignore_regions import ignoring
from maskloop.learning.losses.point_sampling import object_labels, row_labels
from maskloop.learning.losses.soft_labels import SoftLabels, votes_loss


@pytest.fixture(params=BUILDERS)
def model(request):
    return BUILDERS[request.param](("disc", "square"), seed=0).model.train()


def soft_labels(votes, shares_hw=None):
    """Return the soft labels of one image with so many votes for each class of each object."""
    if shares_hw is None:
        shares_hw = torch.full((PIXELS, PIXELS), 255)
    votes_nk = torch.tensor(votes, dtype=torch.float32)
    return SoftLabels(
        shares_bhw=shares_hw[None].to(torch.uint8), votes_bnk=votes_nk[None], counts=(len(votes),)
    )


def losses_of(model, soft):
    """Return the family's losses of one disc and one square, and the gradients of masks and classes."""
    planes = torch.zeros(2, PIXELS, PIXELS)
    planes[0, 8:24, 8:24] = planes[1, 16:48, 40:56] = 1
    if soft is not None:
        planes = soft.soften(planes, 0)
    parts, of_masks, of_classes = family_loss(model, planes, soft=soft)
    return parts, of_masks[0], of_classes


def same_points_of_each(*shape, device=None):
    """Return points as `torch.rand` does, the same of each object, however many there are."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.empty(shape[1:]).uniform_(generator=generator)
    return numbers.expand(shape).clone()


def test_ignoring_certain_labels_change_nothing(model):
    found, masks, classes = losses_of(model, soft_labels([[1, 0], [0, 1]]))
    plain, plain_masks, plain_classes = losses_of(model, None)
    for name, loss in plain.items():
        torch.testing.assert_close(found[name], loss)
    torch.testing.assert_close(masks, plain_masks)
    torch.testing.assert_close(classes, plain_classes)


def test_ignoring_objects_weigh_as_many_annotators_as_drew_them(model, monkeypatch):
    monkeypatch.setattr(torch, "rand", same_points_of_each)
    found, masks, classes = losses_of(model, soft_labels([[0.25, 0], [0, 0.25]]))
    plain, plain_masks, plain_classes = losses_of(model, None)
    for name in ("loss_mask", "loss_dice"):
        if name in plain:
            torch.testing.assert_close(found[name], 0.25 * plain[name])
    torch.testing.assert_close(masks, 0.25 * plain_masks)
    ratios = (classes / plain_classes).mean(1)
    matched = plain_masks.abs().sum((1, 2)) > 0
    assert int(matched.sum()) == 2
    torch.testing.assert_close(ratios, torch.where(matched, 0.25, 1.0), rtol=1e-4, atol=0)
    _, one_masks, _ = losses_of(model, soft_labels([[1, 0], [0, 0.5]]))
    norms = one_masks.norm(dim=(1, 2)) / plain_masks.norm(dim=(1, 2))
    assert sorted(norms[matched].tolist()) == [pytest.approx(0.5, rel=1e-4), pytest.approx(1.0, rel=1e-4)]


def test_ignoring_classes_are_learnt_as_the_annotators_voted(model):
    votes = [[0.5, 0.25], [0.0, 0.75]]
    found, masks, _ = losses_of(model, soft_labels(votes))
    logits = make_logits()[1][0].double()
    queries = masks.abs().sum((1, 2)).nonzero().flatten().tolist()
    likely = logits.log_softmax(1)
    weights = 2 + 0.1 * (len(logits) - 2)

    def total(first, second):
        others = [one for one in range(len(logits)) if one not in (first, second)]
        of_objects = sum(
            -vote * likely[query, class_id]
            for query, row in ((first, votes[0]), (second, votes[1]))
            for class_id, vote in enumerate(row)
        )
        return float(of_objects - 0.1 * likely[others, 2].sum()) / weights

    of_class = float(found["loss_cross_entropy"]) / getattr(model.criterion, "class_weight", 1.0)
    assert of_class in [pytest.approx(total(*pair), rel=1e-4) for pair in (queries, queries[::-1])]


def random_soft(inputs, classes=3, seed=0):
    """Return shares in blocks as the inputs have objects, and votes of any sum up to 1."""
    generator = torch.Generator().manual_seed(seed)
    images, height, width = inputs["mask_labels"].shape
    blocks = torch.randint(0, 256, (images, height // 4, width // 4), generator=generator)
    counts = tuple(map(len, inputs["class_labels"]))
    votes_bnk = torch.rand(images, max(counts), classes, generator=generator) / classes
    return SoftLabels(
        shares_bhw=blocks.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8),
        votes_bnk=votes_bnk,
        counts=counts,
    )


def test_point_labels_are_those_of_soft_planes():
    inputs = make_inputs(decided_model("mask2former"), (3, 3), ignored=True)
    index_bhw, soft = inputs["mask_labels"], random_soft(inputs)
    points_bp2 = torch.rand(2, 500, 2, generator=torch.Generator().manual_seed(0))
    planes_bnhw = torch.stack(
        [soft.soften(object_planes(index_hw, 3), image) for image, index_hw in enumerate(index_bhw)]
    )
    expected = functional.grid_sample(planes_bnhw, (2 * points_bp2 - 1)[:, :, None], align_corners=False)[
        ..., 0
    ]
    labels_bnp = object_labels(index_bhw, points_bp2, 3, soft.shares_bhw)
    torch.testing.assert_close(labels_bnp, expected, rtol=0, atol=1e-5)
    images, objects = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    rows = row_labels(index_bhw, images, objects, points_bp2[images], soft.shares_bhw)
    torch.testing.assert_close(rows, expected[images, objects], rtol=0, atol=1e-5)


def test_votes_loss_is_that_of_plain_loops():
    generator = torch.Generator().manual_seed(0)
    logits, votes = torch.randn(2, 4, 4, generator=generator), torch.rand(2, 4, 3, generator=generator)
    weights = torch.tensor([1.0, 2.0, 0.5, 0.1])
    found = votes_loss(logits, votes, weights)
    for row in range(2):
        for column in range(4):
            likely = logits[row, column].softmax(0).log()
            expected = -sum(weights[k] * votes[row, column, k] * likely[k] for k in range(3))
            assert float(found[row, column]) == pytest.approx(float(expected), rel=1e-5)


def test_harden_keeps_pixels_of_half_the_annotators_and_more():
    index_bhw = torch.tensor([[[2, 2, 2, -1, 0]]], dtype=torch.int16)
    shares_bhw = torch.tensor([[[85, 128, 255, 0, 0]]], dtype=torch.uint8)
    soft = SoftLabels(shares_bhw=shares_bhw, votes_bnk=torch.ones(1, 2, 1), counts=(2,))
    assert soft.harden(index_bhw).tolist() == [[[0, 2, 2, -1, 0]]]


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_denoising_objects_without_votes_teach_nothing(family):
    model = decided_model(family)
    inputs = make_inputs(model, (3, 2))
    nobody = random_soft(inputs)
    nobody = SoftLabels(shares_bhw=nobody.shares_bhw, votes_bnk=0 * nobody.votes_bnk, counts=nobody.counts)
    with ignoring(model), accelerated(model), denoising(model):
        for soft, expected in ((nobody, False), (random_soft(inputs), True)):
            model.criterion.soft = soft
            found = losses_by_name(model, inputs)
            names = [name for name in found if name.endswith("_denoised")]
            assert len(names) == 3
            assert all((float(found[name].detach()) > 0) is expected for name in names)


def losses_by_name(model, inputs):
    kept = {}
    plain = model.criterion.forward

    def forward(*args, **kwargs):
        kept.update(plain(*args, **kwargs))
        return dict(kept)

    model.criterion.forward = forward
    try:
        model(**inputs)
    finally:
        del model.criterion.forward
    return kept
