"""Drift that is injected into made-up images is told within a hundred of them, by the shipped model."""

import pytest
from tests.benchmarks.drift import CHANGES, Scene, familiar

from maskloop.segmentation.checkpoint import load_checkpoint
from maskloop.settings import Settings


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(Settings().model, device="cpu")


@pytest.fixture(scope="module")
def scene(checkpoint):
    return Scene.look(checkpoint, first=700_000)


@pytest.mark.parametrize("change", CHANGES)
def test_injected_change_is_told_within_a_hundred(checkpoint, scene, change):
    told = [after for after in scene.told_after(checkpoint, change, 0).values() if after is not None]
    assert told, "no signal"
    assert 0 < min(told) <= 100


def test_without_a_change_nothing_is_told(checkpoint, scene, monkeypatch):
    monkeypatch.setitem(CHANGES, "none", familiar)
    assert scene.told_after(checkpoint, "none", 0) == {"images": None, "scores": None}
