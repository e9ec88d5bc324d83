import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from maskloop.learning.data.snapshot import ManifestEntry, SnapshotManifest
from maskloop.learning.registry.model_card import SNAPSHOT_FILE
from maskloop.learning.unseen import learnt_images, newest_unseen
from maskloop.types import ModelVersion


def learnt_entry(task: int, image_key: str, split: str = "train") -> ManifestEntry:
    """Return what a version's snapshot has of an annotated task."""
    return ManifestEntry(
        project_id=1,
        task_id=task,
        annotation_id=task,
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
        image_key=image_key,
        split=split,  # type: ignore[arg-type]
    )


@pytest.fixture
def versions(tmp_path: Path) -> list[ModelVersion]:
    """Return the base, one that learnt task 1, and its child, which learnt task 2; task 9 is held out."""
    made = []
    for number, train, holdout in ((1, [], []), (2, [1], []), (3, [2], [9])):
        path = tmp_path / str(number)
        path.mkdir()
        entries = tuple(
            learnt_entry(task, f"key {task}", split)
            for split, tasks in (("train", train), ("holdout", holdout))
            for task in tasks
        )
        if entries:
            SnapshotManifest(entries=entries).write(path / SNAPSHOT_FILE)
        made.append(
            ModelVersion(
                name="m",
                number=number,
                path=path,
                labels=("disc",),
                parent=number - 1 if number > 1 else None,
            )
        )
    return made


@pytest.mark.parametrize(
    ("task", "key", "number"),
    [
        pytest.param(5, "key 5", 3, id="nobody learnt it"),
        pytest.param(2, "key 2", 2, id="the newest learnt it"),
        pytest.param(1, "key 1", 1, id="the parent learnt it"),
        pytest.param(9, "key 9", 3, id="held out"),
        pytest.param(7, "key 2", 2, id="the same image in another task"),
    ],
)
def test_newest_unseen_has_not_learnt_the_image(
    versions: list[ModelVersion], task: int, key: str, number: int
):
    found = newest_unseen(task, key, versions=versions, learnt=learnt_images(versions), classes=["disc"])
    assert found is not None
    assert found.number == number


def test_newest_unseen_version_without_the_classes_says_nothing(versions: list[ModelVersion]):
    others = [dataclasses.replace(one, labels=("tree",)) for one in versions]
    assert newest_unseen(5, "k", versions=others, learnt=learnt_images(others), classes=["disc"]) is None
