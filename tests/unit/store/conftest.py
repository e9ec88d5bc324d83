"""Annotations and masks for tests of the store."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.database import Store
from maskloop.types import EditCounts, Segment

SAVED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def make_snapshot() -> Callable[..., AnnotationSnapshot]:
    def make(*, later_s: float = 0, read_s: float = 60, **changes: object) -> AnnotationSnapshot:
        values: dict[str, object] = {
            "annotation_id": 70,
            "project_id": 1,
            "task_id": 7,
            "updated_at": SAVED + timedelta(seconds=later_s),
            "state": "submitted",
            "content": {"result": [{"id": "r", "value": {}}], "lead_time": 3.5, "ground_truth": True},
            "label_config": "<View/>",
            "split": "train",
            "read_at": SAVED + timedelta(seconds=read_s),
        }
        return AnnotationSnapshot(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_masks(make_segment: Callable[..., Segment]) -> Callable[..., DerivedMasks]:
    def make(**changes: object) -> DerivedMasks:
        values: dict[str, object] = {
            "image_key": "0" * 64,
            "image_uri": "/data/upload/1/a.png",
            "size_hw": (32, 48),
            "segments": (make_segment(),),
            "edits": EditCounts(kept=1, added=2),
            "model_version": "maskloop-1-v1",
        }
        return DerivedMasks(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def keep(
    store: Store, make_snapshot: Callable[..., AnnotationSnapshot], make_masks: Callable[..., DerivedMasks]
):
    """Keep an annotation with its masks, and return its version."""

    def do(**changes: object) -> int:
        version_id = store.annotations.save(make_snapshot(**changes)).version_id
        assert version_id is not None
        store.corrections.save(version_id, make_masks())
        return version_id

    return do
