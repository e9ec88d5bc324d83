"""Which forward passes may run at a time, and on how many cores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskloop.segmentation import forward_turns
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.fast.graphs import GraphCounts
from maskloop.segmentation.forward_turns import ForwardTurns
from maskloop.segmentation.precision_check import PrecisionChecks


@pytest.fixture
def checkpoint(cat_dog_folders: dict[str, Path]) -> Checkpoint:
    return load_checkpoint(cat_dog_folders["cat"], device="cpu")


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)


def turns(max_batch: int | None = 1) -> ForwardTurns:
    return ForwardTurns(max_batch=max_batch, precision=PrecisionChecks(bfloat16_cpu=True))


def test_two_run_at_a_time_and_a_third_waits(checkpoint):
    found = turns()
    assert found.begin(checkpoint, others_wait=True) == 2
    assert found.may_begin(checkpoint)
    assert found.begin(checkpoint, others_wait=True) == 2
    assert not found.may_begin(checkpoint)
    found.end(checkpoint)
    assert found.may_begin(checkpoint)


def test_a_lone_one_has_all_cores_and_one_that_comes_meanwhile_half(checkpoint):
    found = turns()
    assert found.begin(checkpoint, others_wait=False) is None
    assert found.may_begin(checkpoint)
    assert found.begin(checkpoint, others_wait=False) == 2


COUNTS = GraphCounts(by_graph=0, on_trial=0, slower=0, off=None)


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        (None, True),
        (COUNTS, True),
        (replace(COUNTS, slower=2), True),
        (replace(COUNTS, on_trial=1), False),
        (replace(COUNTS, by_graph=1), False),
        (replace(COUNTS, by_graph=1, off="it failed"), True),
    ],
    ids=["no graph", "rare shapes", "torch is as fast", "on trial", "by OpenVINO", "switched off"],
)
def test_openvino_and_its_trial_run_alone(checkpoint, monkeypatch, counts, shares):
    monkeypatch.setattr(forward_turns, "graph_counts", lambda _: counts)
    found = turns()
    assert found.begin(checkpoint, others_wait=True) == (2 if shares else None)
    assert found.may_begin(checkpoint) is shares


@pytest.mark.parametrize("what", ["batches", "one thread", "compiled", "bfloat16 on trial"])
def test_others_run_alone(checkpoint, monkeypatch, what):
    found = turns(max_batch=4 if what == "batches" else 1)
    if what == "one thread":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    elif what == "compiled":
        checkpoint = replace(checkpoint, plan=replace(checkpoint.plan, compiled=True))
    elif what == "bfloat16 on trial":
        monkeypatch.setattr(found._precision, "rival", lambda one: one)
    assert found.begin(checkpoint, others_wait=True) is None
    assert not found.may_begin(checkpoint)


def test_a_model_that_shares_waits_for_one_that_does_not(checkpoint, monkeypatch):
    other = replace(checkpoint, plan=replace(checkpoint.plan, compiled=True))
    found = turns()
    found.begin(other, others_wait=True)
    assert not found.may_begin(checkpoint)
    found.end(other)
    found.begin(checkpoint, others_wait=True)
    assert not found.may_begin(other)
