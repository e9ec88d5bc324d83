"""Releases by mode, and the versions that pruning keeps."""

from dataclasses import replace
from pathlib import Path

import pytest

from maskloop.learning.registry import CHALLENGER, CHAMPION, SHADOW
from maskloop.learning.registry.history import PromotionStep
from maskloop.learning.registry.promotion import Release, prunable_versions, prune, release
from maskloop.testing.memory import MemoryRegistry
from maskloop.types import ModelVersion, PromotionMode

NAME = "maskloop-1"


@pytest.fixture
def registry(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    made = MemoryRegistry(tmp_path / "registry")
    for number in range(1, 9):
        made.register(NAME, folder, labels=("disc",), metrics=None, parent=number - 1 or None)
    made.promote(NAME, 1)
    return made


def _release(registry, mode, *, better=True):
    version = registry.get(NAME, 2)
    return release(version, better=better, reason="because", mode=PromotionMode(mode), registry=registry)


@pytest.mark.parametrize(
    ("mode", "better", "became", "champion", "waiting"),
    [
        pytest.param("auto", True, Release.PROMOTED, 2, (None, None), id="auto"),
        pytest.param("trial", True, Release.PROMOTED, 2, (None, None), id="trial"),
        pytest.param("manual", True, Release.WAITING, 1, (2, None), id="manual"),
        pytest.param("shadow", True, Release.SHADOW, 1, (None, 2), id="shadow"),
        *(
            pytest.param(mode, False, Release.REFUSED, 1, (None, None), id=f"{mode}, not better")
            for mode in PromotionMode
        ),
    ],
)
def test_release_by_mode(registry, mode, better, became, champion, waiting):
    for _ in range(2):  # again after a kill
        assert _release(registry, mode, better=better) is became
        assert registry.alias(NAME, CHAMPION) == champion
        assert (registry.alias(NAME, CHALLENGER), registry.alias(NAME, SHADOW)) == waiting
    assert len(registry.history(NAME)) == champion


@pytest.mark.parametrize("mode", list(PromotionMode))
def test_release_that_a_person_has_to_decide_waits(registry, mode):
    version = registry.get(NAME, 2)
    for _ in range(2):
        found = release(version, better=False, ask=True, reason="r", mode=mode, registry=registry)
        assert found is Release.WAITING
    assert (registry.alias(NAME, CHAMPION), registry.alias(NAME, CHALLENGER)) == (1, 2)


def test_release_again_after_a_rollback_keeps_the_rollback(registry):
    _release(registry, "auto")
    registry.rollback(NAME)
    assert _release(registry, "auto") is Release.PROMOTED
    assert registry.alias(NAME, CHAMPION) == 1


def test_release_again_after_a_kill_between_note_and_alias_promotes(registry):
    registry._steps[NAME].append(PromotionStep.now(2, 1, "promotion", "because"))
    assert _release(registry, "auto") is Release.PROMOTED
    assert registry.alias(NAME, CHAMPION) == 2


def make_versions(count=20, **parents):
    made = ModelVersion(name=NAME, number=1, path=Path("none"), labels=("disc",))
    numbers = range(1, count + 1)
    return [replace(made, number=number, parent=parents.get(f"v{number}")) for number in numbers]


@pytest.mark.parametrize(
    ("line", "needed", "kept"),
    [
        pytest.param((), (), {19, 20}, id="newest only"),
        pytest.param((1,), (), {1, 19, 20}, id="champion"),
        pytest.param((5,), (), {2, 5, 19, 20}, id="champion and its parent"),
        pytest.param((1, 2, 3, 4, 6, 7), (), {3, 4, 6, 7, 19, 20}, id="three rollbacks"),
        pytest.param((1,), (9, 11), {1, 9, 11, 19, 20}, id="displayed or waiting"),
    ],
)
def test_prunable_versions_keeps_champion_and_rollbacks(line, needed, kept):
    prunable = prunable_versions(make_versions(v5=2), line, keep=2, needed=needed)
    assert {version.number for version in prunable} == set(range(1, 21)) - kept


def test_prune_keeps_waiting_and_displayed_versions(registry):
    registry.promote(NAME, 7)
    registry.set_alias(NAME, SHADOW, 3)
    assert prune(NAME, registry, keep=1, shown=(f"{NAME}-v4",)) == (f"{NAME}-v2", f"{NAME}-v5")
    assert [version.number for version in registry.versions(NAME)] == [1, 3, 4, 6, 7, 8]
    assert prune(NAME, registry, keep=1, shown=(f"{NAME}-v4",)) == ()
    assert registry.rollback(NAME).number == 1
