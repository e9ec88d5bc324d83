"""Tiny models: their size, their seed, their words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskloop.lab.tiny_models import (
    TINY,
    build_tiny_eomt,
    build_tiny_mask2former,
    build_tiny_maskformer,
    build_tiny_oneformer,
)
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.types import SegmentationTask

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny_oneformer() -> Checkpoint:
    return build_tiny_oneformer(("circle", "square"), seed=2, training=True)


def test_build_tiny_mask2former_size_is_as_documented() -> None:
    checkpoint = build_tiny_mask2former(("a", "b", "c"), seed=0)
    count = sum(weight.numel() for weight in checkpoint.model.parameters())
    assert 0.85e6 < count < 0.95e6
    assert checkpoint.model.config.num_queries == 20


@pytest.mark.parametrize(
    "build",
    [build_tiny_mask2former, build_tiny_oneformer, build_tiny_maskformer, build_tiny_eomt],
    ids=["mask2former", "oneformer", "maskformer", "eomt"],
)
def test_build_tiny_seed_decides_the_weights_and_leaves_torch_alone(build) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, second, third = (build(("a",), seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert all(first[name].equal(second[name]) for name in first)
    assert not all(first[name].equal(third[name]) for name in first)


@pytest.mark.parametrize("backbone", ["resnet", "swin"])
def test_build_tiny_mask2former_a_few_steps_lower_the_loss(backbone: str) -> None:
    checkpoint = build_tiny_mask2former(("a",), seed=0, backbone=backbone, tiny=replace(TINY, queries=8))
    assert_learns(checkpoint)


@pytest.mark.parametrize("build", [build_tiny_maskformer, build_tiny_eomt], ids=["maskformer", "eomt"])
def test_build_tiny_further_family_a_few_steps_lower_the_loss(build) -> None:
    assert_learns(build(("a",), seed=0, tiny=replace(TINY, queries=8, shortest_edge=64)))


def assert_learns(checkpoint: Checkpoint) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(1, 64, 64)
    masks[:, 16:40, 20:50] = 1
    pixels = torch.randn(1, 3, 64, 64, generator=generator) * 0.1 + masks[None] * 2
    model = checkpoint.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    torch.manual_seed(0)
    for _ in range(12):
        loss = model(pixel_values=pixels, mask_labels=[masks], class_labels=[torch.tensor([0])]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_build_tiny_oneformer_end_of_text_is_the_largest_id(tiny_oneformer: Checkpoint) -> None:
    tokenizer = tiny_oneformer.task_text.tokenizer
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert tiny_oneformer.model.config.text_encoder_vocab_size == len(tokenizer)


@pytest.mark.parametrize("text", ["the task is panoptic", "a photo with a zebra crossing", "Größe 7!"])
def test_build_tiny_oneformer_tokenizer_spells_any_text(text: str, tiny_oneformer: Checkpoint) -> None:
    tokenizer = tiny_oneformer.task_text.tokenizer
    ids = tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1  # it also stands for what is unknown
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text.lower().replace(" ", "")


def test_task_inputs_differ_by_task_and_end_within_their_length(tiny_oneformer: Checkpoint) -> None:
    text = tiny_oneformer.task_text
    rows = [text.task_inputs(task, 2, CPU) for task in SegmentationTask]
    assert all(ids.shape == (2, TINY.task_tokens) and (ids[0] == ids[1]).all() for ids in rows)
    assert len({tuple(ids[0].tolist()) for ids in rows}) == 3
    assert all(ids[0].max() == text.tokenizer.eos_token_id for ids in rows)


def test_text_inputs_name_objects_then_fill_up(tiny_oneformer: Checkpoint) -> None:
    text = tiny_oneformer.task_text
    ids = text.text_inputs([["circle", "square"], [], ["circle"] * 99], SegmentationTask.INSTANCE, CPU)
    assert ids.shape == (3, text.text_count, TINY.text_tokens)
    circle, filler = ids[0, 0], ids[1, 0]
    assert not circle.equal(ids[0, 1])
    assert (ids[0, 2:] == filler).all()
    assert (ids[2] == circle).all()


def test_text_inputs_long_name_still_ends(tiny_oneformer: Checkpoint) -> None:
    text = tiny_oneformer.task_text
    ids = text.text_inputs([["x" * 500]], SegmentationTask.SEMANTIC, CPU)
    assert (ids == text.tokenizer.eos_token_id).sum(dim=2).eq(1).all()
