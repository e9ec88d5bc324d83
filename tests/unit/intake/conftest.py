"""A Label Studio in memory for the intake: one project, its tasks and annotations, and images."""

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from maskloop.store.images import ImageCache
from maskloop.store.jobs import JobKind, NewEvent
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.formats import encode_brush
from maskloop_studio.intake.annotations import take_event
from maskloop_studio.intake.parts import IntakeParts
from maskloop_studio.labelstudio.models import Presence, ProjectState, StudioTask, to_project

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="disc"/></BrushLabels><Choices name="state" toName="image"><Choice value="unusable"/>'
    "</Choices></View>"
)
HEIGHT, WIDTH = 20, 40
SAVED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def box_mask(left=4, top=6):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[top : top + 5, left : left + 8] = True
    return mask


def brush(label="disc", *, mask=None, to_name="image", from_name="brush", **changes):
    """A brush region as Label Studio's front end saves it."""
    return {
        "id": "r1",
        "type": "brushlabels",
        "from_name": from_name,
        "to_name": to_name,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {
            "format": "rle",
            "rle": encode_brush(box_mask() if mask is None else mask),
            "brushlabels": [label],
        },
    } | changes


def unreadable():
    """A region whose area cannot be known."""
    return brush(value={"format": "rle", "rle": [1, 2, 3], "brushlabels": ["disc"]})


def choice():
    value = {"choices": ["unusable"]}
    return {"id": "c", "type": "choices", "from_name": "state", "to_name": "image", "value": value}


@dataclass
class IntakeStudio:
    config: str = CONFIG
    annotations: dict = field(default_factory=dict)
    data: dict = field(default_factory=lambda: {"image": "a.png"})
    requests: int = 0
    missing: bool = False
    deleted_tasks: set = field(default_factory=set)
    model_version: str = ""

    def annotate(self, result, *, number=70, task=7, later_s=0):
        at = (SAVED + timedelta(seconds=later_s)).isoformat()
        row = {"id": number, "project": 1, "task": task, "updated_at": at, "was_cancelled": False}
        self.annotations[number] = row | {"result": result}

    def project_state(self, project_id):
        if self.missing:
            return ProjectState(presence=Presence.MISSING)
        project = to_project(
            {"id": project_id, "label_config": self.config, "model_version": self.model_version}
        )
        return ProjectState(presence=Presence.PRESENT, project=project)

    def annotation(self, number):
        self.requests += 1
        return self.annotations.get(number)

    def task(self, task_id, *, project_id):
        if task_id in self.deleted_tasks:
            return None
        return StudioTask(
            id=task_id,
            project_id=project_id,
            data=self.data,
            is_labeled=True,
            total_predictions=0,
            updated_at=SAVED.isoformat(),
        )


class Images:
    """Every address is an image of its own, of one size."""

    def fetch(self, address, *, task_id):
        picture = Image.new("RGB", (WIDTH, HEIGHT), (len(address), ord(address[0]), 0))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()


@pytest.fixture
def studio():
    return IntakeStudio()


@pytest.fixture
def parts(studio, store, settings, tmp_path):
    store.projects.save(1, studio.config)
    return IntakeParts(
        settings=settings,
        store=store,
        queue=MemoryQueue(),
        client=studio,
        fetcher=Images(),
        image_cache=ImageCache(tmp_path / "images", min_free_bytes=0, max_bytes=10**9),
    )


@pytest.fixture
def take(parts):
    """Work on an event about annotations, as a worker does."""

    def do(*numbers, action="ANNOTATION_UPDATED", parts=parts):
        store, key = parts.store, f"{action}:{numbers}:{len(parts.store.jobs.find(limit=10_000))}"
        event = NewEvent(key=key, action=action, project_id=1, subject_ids=numbers)
        (job_id,) = store.jobs.add_events([event])
        job = store.jobs.claim(job_id, "worker")
        assert job.kind is JobKind.EVENT
        take_event(job, SimpleNamespace(progress=lambda *_: None, owner="worker"), parts)
        store.jobs.finish(job_id, "worker")

    return do
