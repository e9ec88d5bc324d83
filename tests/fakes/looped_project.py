"""A project that the loop has worked on, by real repositories, trainings and registry; no Label Studio."""

from __future__ import annotations

import base64
import dataclasses
import io
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import insert

from maskloop.errors import StoreError
from maskloop.lab.synthetic.shapes import SHAPE_CLASSES, make_image
from maskloop.settings import Settings
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.database import Store
from maskloop.store.jobs import JobKind
from maskloop.store.reviews import StoredSuspicion
from maskloop.store.scores import Arranged, ScoredTask
from maskloop.store.sessions import Sessions, now
from maskloop.store.tables import AnnotationRow, JobRow, MasksRow, ScoredRow, TrainingRow, VersionRow
from maskloop.testing import MemoryQueue, MemoryRegistry
from maskloop.types import EditCounts
from maskloop_studio.runtime.tasks import work_on
from maskloop_studio.services import Services

PROJECT = 7
TITLE = "<b>Shapes</b> & \"more\" <script>alert('title')</script>"
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    + "".join(f'<Label value="{label}"/>' for label in SHAPE_CLASSES)
    + "</BrushLabels></View>"
)


class StandingStudio:
    """What the loop reads of Label Studio while it trains, and what pages read: titles and tasks."""

    def __init__(self, title: str = TITLE) -> None:
        self.title = title
        self.images: dict[int, str] = {}  # task -> address

    def project(self, project_id: int) -> Any:
        return SimpleNamespace(
            id=project_id, title=self.title, label_config=CONFIG, model_version="", raw={}, task_count=20
        )

    find_project = project

    def update_project(self, project_id: int, **fields: Any) -> None:
        pass

    def task(self, task_id: int, *, project_id: int | None = None) -> Any:
        if task_id not in self.images:
            return None
        return SimpleNamespace(id=task_id, project_id=project_id, data={"image": self.images[task_id]})

    def close(self) -> None:
        pass


def make_services(settings: Settings, **changes: object) -> Services:
    """Return services on SQLite, a queue and a registry in memory, and a Label Studio that stands still."""
    quick = {"train_steps": 2, "train_batch": 1, "train_after": 5, "label_studio_url": "http://studio.test"}
    services = Services(settings.model_copy(update=quick | changes))
    services.queue = MemoryQueue()
    services.registry = MemoryRegistry(settings.home / "registry")
    services.client = StandingStudio()  # type: ignore[assignment]
    return services


def png(seed: int, size: int) -> bytes:
    """Return the made-up image of a seed as a file."""
    file = io.BytesIO()
    Image.fromarray(make_image(seed, size_hw=(size, size), domain="shifted").image_hwc).save(file, "PNG")
    return file.getvalue()


def annotate(
    services: Services,
    seed: int,
    *,
    split: str = "train",
    model_version: str | None = None,
    size: int = 48,
    second: bool = False,
    boxes: bool = False,
) -> int:
    """Store a made-up image and its true segments as an annotation of task `seed`; return the version.

    With `second` it is another annotator's, who has drawn all objects but one; with `boxes` all are boxes.
    """
    made = make_image(seed, size_hw=(size, size), domain="shifted")
    key = services.image_cache.put(png(seed, size))
    at = now() - timedelta(hours=seed % 50)
    saved = services.store.annotations.save(
        AnnotationSnapshot(
            annotation_id=(5000 if second else 1000) + seed,
            project_id=PROJECT,
            task_id=seed,
            updated_at=at,
            state="submitted",
            content={
                "result": [{"id": f"r{seed}"}],
                "lead_time": 12.0 + seed,
                "completed_by": 9 if second else 1 + seed % 2,
            },
            label_config=CONFIG,
            split=split,
            read_at=now(),
        )
    )
    assert saved.version_id is not None
    edits = EditCounts(kept=2, changed=2, nudged=1, redrawn=1, removed=1, added=1)
    services.store.corrections.save(
        saved.version_id,
        DerivedMasks(
            image_key=key,
            image_uri=f"/data/upload/{PROJECT}/{seed}.png",
            size_hw=(size, size),
            segments=tuple(
                dataclasses.replace(one, is_box=boxes)
                for one in (made.segments[:-1] if second else made.segments)
            ),
            edits=edits,
            model_version=model_version,
            label_edits={SHAPE_CLASSES[0]: edits},
        ),
    )
    return saved.version_id


def train(services: Services, reason: str) -> int:
    """Run a whole training job in this process and return its number."""
    number = services.store.jobs.request(JobKind.TRAINING, PROJECT, reason)
    status = work_on(number, services)
    assert status == "done", services.store.jobs.get(number)
    return number


def run_loop(services: Services, *, trainings: int = 2, images: int = 4, size: int = 48) -> list[int]:
    """Connect the project, annotate and train in turns, and leave new work; return the trainings."""
    services.store.projects.save(PROJECT, CONFIG)
    for seed in range(100, 106):
        annotate(services, seed, split="holdout", size=size)
    made = []
    for turn in range(trainings):
        for seed in range(turn * images, (turn + 1) * images):
            annotate(services, seed, model_version=f"maskloop-{PROJECT}-v{turn + 1}", size=size)
        made.append(train(services, "maskloop train"))
    annotate(services, 50, model_version=f"maskloop-{PROJECT}-v{trainings + 1}", size=size)
    name = f"maskloop-{PROJECT}"
    # How the gate judges two steps of training differs with the recipe: the last version serves, none waits.
    services.registry.promote(name, services.registry.newest(name, limit=1)[0].number)
    champion = services.registry.champion(name)
    assert champion is not None
    tasks = [
        ScoredTask(task_id=task, confidence=0.3, signals={"entropy": 0.75, "missing": 0.5})
        for task in (201, 202)
    ]
    for task in (201, 202):
        address = "data:image/png;base64," + base64.b64encode(png(task, size)).decode()
        services.client.images[task] = address  # type: ignore[attr-defined]
    services.store.scores.add(PROJECT, champion.tag, tasks)
    places = [
        Arranged(task_id=201, score=0.2, cluster=4, queue=0, at_random=False),
        Arranged(task_id=202, score=0.1, cluster=None, queue=0, at_random=True),
    ]
    services.store.scores.arrange(PROJECT, champion.tag, places)
    return made


def add_curation(services: Services) -> tuple[int, ...]:
    """Give the project a review, a task that two people drew, and alike images; return the suspicions."""
    version = annotate(services, 60)
    annotate(services, 60, second=True)
    (correction,) = services.store.corrections.at([version])
    suspicions = [
        StoredSuspicion(
            task_id=60,
            annotation_id=1060,
            version_id=version,
            view="",
            image_index=0,
            image_key=correction.image_key,
            kind=kind,
            score=score,
            segment=correction.segments[0],
            missing=kind == "overlooked",
            features={"iou": 0.5},
        )
        for kind, score in (("wrong class", 0.25), ("overlooked", 0.75))
    ]
    tag = f"maskloop-{PROJECT}-v{services.registry.newest(f'maskloop-{PROJECT}', limit=1)[0].number}"
    embeddings = np.eye(4, 8, dtype=np.float16)[[0, 0, 1, 2]] + np.float16(0.01)
    services.store.scores.add(
        PROJECT,
        tag,
        [
            ScoredTask(task_id=300 + index, confidence=0.5, signals={}, embedding_d=one)
            for index, one in enumerate(embeddings)
        ],
    )
    for task in range(300, 304):
        picture = png(max(task, 301), 48)  # the first two are one
        address = "data:image/png;base64," + base64.b64encode(picture).decode()
        services.client.images[task] = address  # type: ignore[attr-defined]
    return services.store.reviews.replace_open(PROJECT, suspicions)


def fill_rows(store: Store, *, versions: int, tasks: int) -> None:
    """Give the project trainings and annotated tasks, as rows: the repositories would take minutes."""
    at = now()
    outcome = {"decision": {"before": 0.5, "after": 0.6, "interval": [-0.1, 0.2]}, "holdout_images": 9}
    with store.overview._sessions.write() as session:
        session.execute(
            insert(JobRow),
            [
                {
                    "job_id": 10_000 + n,
                    "kind": "training",
                    "project_id": PROJECT,
                    "action": "r",
                    "subject_ids": [],
                }
                | {
                    "status": "done",
                    "due_at": at,
                    "created_at": at,
                    "outcome": outcome | {"version": f"maskloop-{PROJECT}-v{n}"},
                }
                for n in range(1, versions + 1)
            ],
        )
        session.execute(
            insert(TrainingRow),
            [{"training_id": 10_001, "project_id": PROJECT, "through_version": tasks // 2}],
        )
        numbers = range(1, tasks + 1)
        shared = {"project_id": PROJECT, "state": "submitted"}
        session.execute(
            insert(AnnotationRow),
            [
                shared
                | {"annotation_id": n, "task_id": n, "split": "holdout" if n % 5 == 0 else "train"}
                | {"version_id": n, "updated_at": at - timedelta(minutes=n)}
                for n in numbers
            ],
        )
        version = shared | {"content": "{}", "label_config": "x", "lead_time_s": 9.0, "ground_truth": False}
        session.execute(
            insert(VersionRow),
            [
                version
                | {"version_id": n, "annotation_id": n, "task_id": n, "digest": str(n), "updated_at": at}
                | {"annotator": 1, "taken_at": at}
                for n in numbers
            ],
        )
        masks = {
            "image_key": "0" * 64,
            "image_uri": "",
            "height": 8,
            "width": 8,
            "segments": "[]",
            "view": "",
        }
        edits = {"kept": 2, "changed": 1, "added": 1, "removed": 0}
        session.execute(
            insert(MasksRow),
            [
                masks
                | edits
                | {
                    "version_id": n,
                    "image_index": 0,
                    "model_version": f"maskloop-{PROJECT}-v{1 + n % versions}",
                }
                | {"label_edits": {"disc": edits | {"nudged": 1}}, "boxes": 0, "reader_version": 1}
                for n in numbers
            ],
        )
        session.execute(
            insert(ScoredRow),
            [
                {
                    "project_id": PROJECT,
                    "model_version": f"maskloop-{PROJECT}-v1",
                    "task_id": tasks + n,
                    "confidence": 0.5,
                }
                | {"signals": {"margin": 0.5}, "score": n / tasks, "labelled": False, "pushed": True}
                | {"at_random": False}
                for n in numbers
            ],
        )


def take_database_away(monkeypatch: Any) -> None:
    """Let the database answer nothing from now on, with markup in what it says."""

    def away(*_arguments: object, **_options: object) -> None:
        raise StoreError("database, read", expected="an answer", got="<b>none</b>", remedy="check it")

    for method in ("read", "write"):
        monkeypatch.setattr(Sessions, method, away)
