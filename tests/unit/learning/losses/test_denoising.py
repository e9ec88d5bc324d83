"""Denoising queries against a slow plain version: all queries together, kept apart by a mask of attention."""

from contextlib import ExitStack, contextmanager

import pytest
import torch
from tests.unit.learning.losses.test_point_loss import BUILDERS, LABELS, decided_model, make_inputs
from torch.nn import functional

from maskloop.learning.data.index_map import IGNORED, object_planes
from maskloop.learning.losses import accelerated, denoising
from maskloop.learning.losses.denoising import (
    DenoisingLoss,
    flipped_classes,
    group_count,
    own_objects,
    seen_in_group,
)
from maskloop.learning.losses.ignore_regions import ignoring
from maskloop.learning.losses.mask_noise import Noise
from maskloop.segmentation.fast.model_forward import decoder_parts

COUNTS = (3, 2)
GROUPS = 2


@pytest.fixture(params=BUILDERS)
def model(request):
    return decided_model(request.param)


@contextmanager
def taught(model):
    with ignoring(model), accelerated(model), denoising.denoising(model):
        yield


def forward(model, inputs):
    index_bhw = inputs["mask_labels"]
    model.criterion.ignored_bhw = index_bhw == IGNORED if (index_bhw == IGNORED).any() else None
    torch.manual_seed(0)
    return model(**inputs)


def test_own_objects_are_those_of_plain_loops():
    counts, groups = (3, 0, 2), 2
    pairs = own_objects(counts, groups, 4, torch.device("cpu"))
    expected = [
        (image, group * max(counts) + number, number)
        for image, count in enumerate(counts)
        for group in range(groups)
        for number in range(count)
    ]
    for queries, objects in zip(pairs.queries_ln.tolist(), pairs.objects_ln.tolist(), strict=True):
        assert list(zip(pairs.images_n.tolist(), queries, objects, strict=True)) == expected
    assert pairs.queries_ln.shape[0] == 4
    assert pairs.counts == (6, 0, 4)


def test_seen_in_group_is_that_of_plain_loops():
    counts, groups, most = (3, 0, 2), 2, 3
    seen_bqq = seen_in_group(own_objects(counts, groups, 1, torch.device("cpu")), groups * most, len(counts))
    for image, count in enumerate(counts):
        for one in range(groups * most):
            for other in range(groups * most):
                both = one % most < count and other % most < count
                expected = one == other or (both and one // most == other // most)
                assert bool(seen_bqq[image, one, other]) == expected


@pytest.mark.parametrize(("most", "groups"), [(1, 2), (10, 2), (11, 1), (200, 1)])
def test_group_count_many_objects_have_one_group(most, groups):
    assert group_count(most) == groups


def test_flipped_classes_a_fifth_is_random():
    torch.manual_seed(0)
    ids_r = torch.full((20_000,), 2)
    changed = (flipped_classes(ids_r, 4) != ids_r).float().mean()
    assert float(changed) == pytest.approx(0.2 * 3 / 4, abs=0.01)
    assert torch.equal(flipped_classes(torch.zeros_like(ids_r), 1), torch.zeros_like(ids_r))


@pytest.mark.parametrize("counts", [COUNTS, (0, 3), (0, 0)], ids=["objects", "one empty", "all empty"])
def test_denoising_ordinary_queries_are_bit_for_bit_the_same(model, counts):
    inputs = make_inputs(model, counts)
    with ignoring(model), accelerated(model):
        plain = forward(model, inputs)
    with taught(model):
        beside = forward(model, inputs)
    assert torch.equal(plain.masks_queries_logits, beside.masks_queries_logits)
    assert torch.equal(plain.class_queries_logits, beside.class_queries_logits)
    assert bool(beside.loss > plain.loss) == any(counts)


def test_denoising_validation_loss_is_without(model):
    inputs = make_inputs(model, COUNTS)
    model.eval()
    with ignoring(model), accelerated(model):
        plain = forward(model, inputs)
    with taught(model):
        beside = forward(model, inputs)
    assert torch.equal(plain.loss, beside.loss)


def test_denoising_class_embeddings_end_with_the_training(model):
    names = set(model.state_dict())
    with taught(model):
        assert set(model.state_dict()) - names == {"criterion.denoised_classes.weight"}
        forward(model, make_inputs(model, COUNTS)).loss.sum().backward()
        gradient_kc = model.criterion.denoised_classes.weight.grad
        assert gradient_kc.abs().sum() > 0
    assert set(model.state_dict()) == names
    assert not isinstance(model.criterion, DenoisingLoss)


def test_denoising_unknown_loss_is_left_alone_with_a_warning(model, caplog):
    with ignoring(model), denoising.denoising(model):
        assert not isinstance(model.criterion, DenoisingLoss)
    assert "denoising_unavailable" in caplog.text


@pytest.mark.parametrize("ignored", [False, True], ids=["all known", "ignored areas"])
def test_denoising_losses_are_those_of_the_slow_plain_version(model, monkeypatch, ignored):
    inputs = make_inputs(model, COUNTS, ignored=ignored)
    ids = inputs["class_labels"]
    told = [(one + 1) % len(LABELS) for one in ids]  # every query is told a wrong class
    monkeypatch.setattr(denoising, "flipped_classes", lambda ids_r, classes: (ids_r + 1) % classes)
    monkeypatch.setattr(denoising, "draw_noise", _no_noise)
    kept, calls = {}, []
    ours = DenoisingLoss._denoise

    def recording(self, *args):
        kept.update(ours(self, *args))
        kept.update({name: loss.detach().clone() for name, loss in kept.items()})
        kept["pixels"] = args[1].detach()
        return ours(self, *args)

    monkeypatch.setattr(DenoisingLoss, "_denoise", recording)
    with taught(model), _recorded_layers(model, calls):
        points_p2 = torch.rand(50, 2, generator=torch.Generator().manual_seed(2))
        monkeypatch.setattr(
            type(model.criterion),
            "sample_points_using_uncertainty",
            lambda self, rows, *_: points_p2.expand(len(rows), -1, -1),
        )
        forward(model, inputs)
        states = _plain_states(model, calls, inputs["mask_labels"], told)
    expected = _plain_losses(model, states, kept["pixels"], inputs, points_p2)
    for name, value in expected.items():
        torch.testing.assert_close(kept[f"loss_{name}_denoised"].squeeze(), value, rtol=1e-4, atol=1e-5)


def _no_noise(rows, device):
    return Noise(moves_r2=torch.zeros(rows, 2), scales_r=torch.ones(rows), flips_r=torch.zeros(rows))


@contextmanager
def _recorded_layers(model, calls):
    """Keep what each layer of the decoder is called with, as (queries, mask, call with other ones)."""

    def hook(layer, args, kwargs):
        kwargs = dict(kwargs)
        if "output" in kwargs:
            queries_qbc, mask, positions = (
                kwargs.pop(name) for name in ("output", "attention_mask", "query_embeddings")
            )

            def again(queries, mask, positions):
                return layer(output=queries, attention_mask=mask, query_embeddings=positions, **kwargs)[0]
        else:
            queries_qbc, positions, mask = args[0], args[4], kwargs.pop("encoder_attention_mask")

            def again(queries, mask, positions):
                changed = (queries, *args[1:4], positions, *args[5:])
                return layer(*changed, encoder_attention_mask=mask, **kwargs)[0]

        calls.append((queries_qbc.detach(), mask.clone(), positions.detach(), again))

    layers = model.model.transformer_module.decoder.layers
    hooks = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


@torch.no_grad()
def _plain_states(model, calls, index_bhw, told):
    """Return the states (B, M, C) of denoising queries after each layer, of all queries in one pass."""
    calls = list(calls)  # the layers are called again below
    images, most = len(told), max(COUNTS)
    embeddings_kc = model.criterion.denoised_classes.weight
    ordinary, extra = len(calls[0][0]), GROUPS * most
    hidden = torch.zeros(ordinary + extra, images, embeddings_kc.shape[1])
    hidden[:ordinary] = calls[0][0]
    apart = torch.full((images, ordinary + extra, ordinary + extra), float("-inf"))
    apart[:, :ordinary, :ordinary] = 0
    planes = [object_planes(index_hw, count) for index_hw, count in zip(index_bhw, COUNTS, strict=True)]
    for image, count in enumerate(COUNTS):
        for group in range(GROUPS):
            first = ordinary + group * most
            for number in range(count):
                hidden[first + number, image] = embeddings_kc[told[image][number]]
            apart[image, first : first + count, first : first + count] = 0
        apart[image].fill_diagonal_(0)
    heads = model.config.num_attention_heads
    parts = decoder_parts(model)[0].layers
    after = []
    with ExitStack() as stack:
        for layer in parts:
            plain = layer.own.forward

            def masked(*args, plain=plain, **kwargs):
                return plain(*args, **kwargs | {"attention_mask": apart.repeat_interleave(heads, 0)})

            layer.own.forward = masked
            stack.callback(delattr, layer.own, "forward")
        for number, (seen_qbc, mask_aqs, positions_qbc, again) in enumerate(calls):
            torch.testing.assert_close(hidden[:ordinary], seen_qbc, rtol=1e-4, atol=1e-5)
            given = torch.zeros(images, extra, mask_aqs.shape[2], dtype=torch.bool)
            for image, planes_nhw in enumerate(planes):
                size_hw = ((2, 3), (4, 6), (8, 12))[number % 3]
                touched_ns = functional.adaptive_max_pool2d(planes_nhw.float()[None], size_hw)[0].flatten(1)
                for group in range(GROUPS):
                    first = group * most
                    given[image, first : first + COUNTS[image]] = touched_ns == 0
            given &= ~given.all(-1, keepdim=True)  # nothing at all means everything
            both = torch.cat([mask_aqs.bool(), given.repeat_interleave(heads, 0)], dim=1)
            positions = torch.cat([positions_qbc, positions_qbc.new_zeros(extra, *positions_qbc.shape[1:])])
            hidden = again(hidden, both, positions)
            after.append(hidden[ordinary:].transpose(0, 1))
    return after


@torch.no_grad()
def _plain_losses(model, states, pixels_bchw, inputs, points_p2):
    """Return the three losses of one query after the other."""
    decoder, classify = decoder_parts(model)
    grid = (2 * points_p2 - 1)[None, :, None]
    most, total = max(COUNTS), sum(COUNTS) * GROUPS
    sums = {"mask": torch.zeros(()), "dice": torch.zeros(()), "cross_entropy": torch.zeros(())}
    for states_bmc in states:
        for image, (ids, index_hw) in enumerate(
            zip(inputs["class_labels"], inputs["mask_labels"], strict=True)
        ):
            planes_nhw = object_planes(index_hw, len(ids)).float()
            for group in range(GROUPS):
                for number, class_id in enumerate(ids):
                    normed_1c = decoder.norm(states_bmc[image, group * most + number][None])
                    logits_1k = classify(normed_1c)
                    sums["cross_entropy"] += functional.cross_entropy(logits_1k, class_id[None]) / total
                    mask_hw = torch.einsum("c,chw->hw", decoder.to_masks(normed_1c)[0], pixels_bchw[image])
                    mask_hw = _without_ignored(mask_hw, index_hw[2::4, 2::4] == IGNORED)
                    logits_p, truth_p = (
                        functional.grid_sample(one_hw[None, None], grid, align_corners=False).flatten()
                        for one_hw in (mask_hw, planes_nhw[number])
                    )
                    entropy = functional.binary_cross_entropy_with_logits(logits_p, truth_p)
                    shares_p = logits_p.sigmoid()
                    overlap = 2 * (shares_p * truth_p).sum()
                    sums["mask"] += entropy / total
                    sums["dice"] += (1 - (overlap + 1) / (shares_p.sum() + truth_p.sum() + 1)) / total
    return sums


def _without_ignored(mask_hw, ignored_hw):
    """Return a mask with -20 in ignored cells whose neighbours are all ignored."""
    result_hw = mask_hw.clone()
    for row in range(mask_hw.shape[0]):
        for column in range(mask_hw.shape[1]):
            if bool(ignored_hw[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].all()):
                result_hw[row, column] = -20.0
    return result_hw
