"""The cheaper loss is the families' own, values and gradients; it steps aside where theirs has changed."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from tests.same_points import same_points
from torch.nn import functional

from maskloop.lab.tiny_models import build_tiny_mask2former, build_tiny_maskformer, build_tiny_oneformer
from maskloop.learning.data.index_map import IGNORED, object_planes
from maskloop.learning.losses import accelerated, point_loss
from maskloop.learning.losses import patching as switch
from maskloop.learning.losses.box_projection import Boxes
from maskloop.learning.losses.hard_negatives import DeletedRegions
from maskloop.learning.losses.heads import pointwise
from maskloop.learning.losses.hungarian import assign
from maskloop.learning.losses.ignore_regions import ignoring
from maskloop.learning.losses.point_loss import PointwiseLoss
from maskloop.learning.losses.point_sampling import object_labels, row_labels
from maskloop.learning.losses.soft_labels import SoftLabels

LABELS = ("disc", "square", "ring")
BUILDERS = {
    "mask2former": build_tiny_mask2former,
    "oneformer": lambda labels, seed: build_tiny_oneformer(labels, seed=seed, training=True),
}


def decided_model(family):
    """Return a tiny model in training mode whose masks differ: a fresh one's are all alike."""
    made = BUILDERS[family](LABELS, seed=0).model.train()
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(params=BUILDERS)
def model(request):
    return decided_model(request.param)


def make_boxes(counts, seed=0):
    """Return random boxes of each image, of which some are cut."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for count in counts:
        corners = (
            torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        )  # (M, first and last, x and y)
        made.append(
            Boxes(
                sides_m4=corners.flatten(1),
                whole_m2=torch.rand(count, 2, generator=generator) < 0.7,
                ids_m=torch.randint(len(LABELS), (count,), generator=generator),
            )
        )
    return made


def make_inputs(model, counts, *, ignored=False, seed=0):
    """Return a batch as the collator makes it, of blocks of 4 pixels."""
    generator = torch.Generator().manual_seed(seed)
    index_bhw = torch.zeros(len(counts), 64, 96, dtype=torch.int16)
    for image, count in enumerate(counts):
        blocks = torch.randint(-1 if ignored else 0, count + 1, (16, 24), generator=generator)
        index_bhw[image] = blocks.repeat_interleave(4, 0).repeat_interleave(4, 1)
    if ignored:
        index_bhw[:, :, 64:] = IGNORED
    inputs = {
        "pixel_values": torch.randn(len(counts), 3, 64, 96, generator=generator),
        "mask_labels": index_bhw,
        "class_labels": [torch.randint(len(LABELS), (count,), generator=generator) for count in counts],
    }
    config = model.config
    if config.model_type == "oneformer":
        texts = config.num_queries - config.text_encoder_n_ctx, config.text_encoder_context_length
        task = torch.randint(1, 50, (len(counts), config.task_seq_len), generator=generator)
        inputs["task_inputs"] = task.float()
        inputs["text_inputs"] = torch.randint(1, 50, (len(counts), *texts), generator=generator)
        inputs["text_inputs"][:, 3:] = inputs["text_inputs"][0, 3]  # the filler
    return inputs


def make_deleted(model, inputs):
    """Return two regions of each image but the last: the model's largest mask there, and a corner of it."""
    without_labels = {name: value for name, value in inputs.items() if not name.endswith("_labels")}
    with torch.no_grad():
        masks_bqhw = model(**without_labels).masks_queries_logits > 0
    largest_b = masks_bqhw.sum((2, 3)).argmax(1)
    index_bhw = torch.stack([one[place] for one, place in zip(masks_bqhw, largest_b, strict=True)]).short()
    index_bhw = index_bhw.repeat_interleave(4, 1).repeat_interleave(4, 2)
    index_bhw[:, :8, :8] *= 2
    index_bhw[-1] = 0
    return DeletedRegions(index_bhw=index_bhw, counts=(*[2] * (len(index_bhw) - 1), 0))


def make_soft(inputs):
    """Return shares in blocks, and votes that two of three annotators gave, for several classes."""
    generator = torch.Generator().manual_seed(5)
    index_bhw, counts = inputs["mask_labels"], tuple(map(len, inputs["class_labels"]))
    blocks = torch.randint(0, 256, (len(index_bhw), 32, 48), generator=generator)
    votes_bnk = torch.rand(len(index_bhw), max(counts), len(LABELS), generator=generator)
    return SoftLabels(
        shares_bhw=blocks.repeat_interleave(2, 1).repeat_interleave(2, 2).to(torch.uint8),
        # one weight, since the families' own losses draw the points of each weight apart
        votes_bnk=votes_bnk / votes_bnk.sum(2, keepdim=True) * 0.5,
        counts=counts,
    )


def loss_and_gradient(model, inputs, *, fast, seed=0, boxes=None, deleted=None, soft=None):
    """Return the loss and the gradient of all weights in one row."""
    index_bhw, class_ids = inputs["mask_labels"], inputs["class_labels"]
    counts = [len(ids) for ids in class_ids]
    if not fast:
        planes = [object_planes(index_hw, count) for index_hw, count in zip(index_bhw, counts, strict=True)]
        if soft is not None:
            planes = [soft.soften(one, image) for image, one in enumerate(planes)]
        inputs = inputs | {"mask_labels": planes}
    model.zero_grad(set_to_none=True)
    with ExitStack() as stack:
        stack.enter_context(ignoring(model))
        if fast:
            stack.enter_context(accelerated(model))
        stack.enter_context(same_points(model, counts, seed=seed, pointwise=fast))
        model.criterion.ignored_bhw = index_bhw == IGNORED if (index_bhw == IGNORED).any() else None
        model.criterion.boxes = boxes
        model.criterion.deleted, model.criterion.deleted_weight = deleted, 5.0
        model.criterion.soft = soft
        loss = model(**inputs).loss.sum()
    loss.backward()
    gradients = [
        one.grad.flatten() if one.grad is not None else one.new_zeros(one.numel())
        for one in model.parameters()
    ]
    return loss.detach(), torch.cat(gradients)


@pytest.mark.parametrize(
    ("counts", "ignored", "boxes", "deleted", "soft"),
    [
        pytest.param((3, 2), False, None, False, False, id="objects"),
        pytest.param((3, 0), False, None, False, False, id="one empty"),
        pytest.param((0, 0), False, None, False, False, id="all empty"),
        pytest.param((30, 2), False, None, False, False, id="more than queries"),
        pytest.param((3, 2), True, None, False, False, id="ignored areas"),
        pytest.param((0, 1), True, None, False, False, id="empty and ignored"),
        pytest.param((3, 2), True, (2, 3), False, False, id="boxes"),
        pytest.param((3, 0), True, (0, 4), False, False, id="boxes only in one"),
        pytest.param((3, 2), False, None, True, False, id="deleted regions"),
        pytest.param((3, 2), False, None, False, True, id="several annotators"),
        pytest.param((3, 0), True, (0, 4), False, True, id="several annotators, boxes, one empty"),
        pytest.param((3, 2), True, (2, 3), True, True, id="all together"),
    ],
)
def test_accelerated_loss_and_gradient_are_the_family_s_own(model, counts, ignored, boxes, deleted, soft):
    losses, gradients = [], []
    for seed in range(3):
        inputs = make_inputs(model, counts, ignored=ignored, seed=seed)
        of_images = None if boxes is None else make_boxes(boxes, seed)
        further = {
            "seed": seed,
            "boxes": of_images,
            "deleted": make_deleted(model, inputs) if deleted else None,
            "soft": make_soft(inputs) if soft else None,
        }
        loss, gradient = loss_and_gradient(model, inputs, fast=False, **further)
        ours, our_gradient = loss_and_gradient(model, inputs, fast=True, **further)
        losses.append(float((ours / loss - 1).abs()))
        gradients.append(float((our_gradient - gradient).norm() / gradient.norm()))
    # a tie that rounding decides turns one bit of an attention mask or takes another point, now and then
    assert np.median(losses) < 1e-5
    assert np.median(gradients) < 1e-4
    assert max(losses) < 1e-3
    assert max(gradients) < 2e-2


def test_accelerated_deleted_regions_raise_the_loss(model):
    inputs = make_inputs(model, (3, 2))
    plain, _ = loss_and_gradient(model, inputs, fast=True)
    weighed, _ = loss_and_gradient(model, inputs, fast=True, deleted=make_deleted(model, inputs))
    assert weighed > plain * 1.001


def test_pointwise_many_objects_are_drawn_in_groups_of_layers(model, monkeypatch):
    inputs = make_inputs(model, (3, 2))
    monkeypatch.setattr(point_loss, "_MAX_ROWS", 5)
    with ignoring(model), pointwise(model):
        losses = model(**inputs).loss
    assert torch.isfinite(losses)


def test_pointwise_without_labels_and_afterwards_the_model_gives_masks(model):
    inputs = make_inputs(model, (2,))
    without_labels = {
        name: value for name, value in inputs.items() if name not in ("mask_labels", "class_labels")
    }
    plain = model.eval()(**without_labels).masks_queries_logits
    with ignoring(model), pointwise(model):
        model(**inputs)
        within = model(**without_labels).masks_queries_logits
    assert torch.equal(model(**without_labels).masks_queries_logits, plain)
    assert torch.equal(within, plain)
    assert not isinstance(model.criterion, PointwiseLoss)


def test_pointwise_costs_that_are_not_finite_are_the_last_choice(model):
    inputs = make_inputs(model, (2, 1))
    with torch.no_grad():
        model.model.transformer_module.queries_embedder.weight[0] = torch.nan
    with ignoring(model), pointwise(model):
        model(**inputs)  # no error from the assignment


def test_accelerated_unknown_code_stays_as_it_is_with_one_warning(model, monkeypatch, caplog):
    family = model.config.model_type
    switch.matches_tested.cache_clear()
    monkeypatch.setitem(switch._KNOWN, family, frozenset({"something else"}))
    for _ in range(2):
        with ignoring(model), accelerated(model):
            assert not isinstance(model.criterion, PointwiseLoss)
    switch.matches_tested.cache_clear()
    assert caplog.text.count(f'part="{family}\'s loss"') == 1


def test_accelerated_known_code_is_replaced(model):
    with ignoring(model), accelerated(model):
        assert isinstance(model.criterion, PointwiseLoss)
    assert not isinstance(model.criterion, PointwiseLoss)


def test_accelerated_maskformer_is_left_alone():
    model = build_tiny_maskformer(LABELS, seed=0).model
    with ignoring(model), accelerated(model):
        assert not isinstance(model.criterion, PointwiseLoss)


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 5), (32, 48)], ids=["one pixel", "odd", "even"])
def test_object_labels_are_those_of_grid_sample(size_hw):
    generator = torch.Generator().manual_seed(0)
    index_bhw = torch.randint(-1, 4, (2, *size_hw), generator=generator).to(torch.int16)
    points_bp2 = torch.rand(2, 500, 2, generator=generator)
    points_bp2[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.0]])
    planes_bnhw = torch.stack([object_planes(index_hw, 3) for index_hw in index_bhw])
    expected = functional.grid_sample(planes_bnhw, (2 * points_bp2 - 1)[:, :, None], align_corners=False)[
        ..., 0
    ]
    torch.testing.assert_close(object_labels(index_bhw, points_bp2, 3), expected, rtol=0, atol=1e-5)
    images, objects = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    rows = row_labels(index_bhw, images, objects, points_bp2[images])
    torch.testing.assert_close(rows, expected[images, objects], rtol=0, atol=1e-5)


def test_assign_costs_not_finite_are_taken_last():
    costs = torch.tensor([[3.0, 1.0], [float("nan"), 0.0], [2.0, float("inf")]]).expand(2, 1, 3, 2)
    matching = assign(costs, [2])
    assert matching.queries_ln.tolist() == [[1, 2]] * 2
    assert matching.objects_ln.tolist() == [[1, 0]] * 2
    assert matching.images_n.tolist() == [0, 0]


def test_assign_padding_of_an_image_is_not_looked_at():
    costs = torch.from_numpy(np.random.default_rng(0).random((2, 3, 4, 6), dtype=np.float32))
    matching = assign(costs, [2, 0, 6])
    assert matching.counts == (2, 0, 4)
    assert matching.images_n.tolist() == [0, 0, 2, 2, 2, 2]
    assert int(matching.objects_ln[:, :2].max()) <= 1
