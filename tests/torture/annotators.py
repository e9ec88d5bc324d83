"""Simulated people: they annotate, edit, skip, delete and import at a seeded random pace.

Some of what they save cannot be read, until it is mended; some tasks have several images.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from maskloop.errors import MaskloopError
from maskloop_studio.demo.annotator import SimulatedAnnotator, correct_regions
from maskloop_studio.demo.images import DemoImage
from maskloop_studio.formats.label_config import LabelConfig
from maskloop_studio.labelstudio.client import StudioClient

from .studio_view import DAMAGED, StudioApi

WEIGHTS = {
    "annotate": 7.0,
    "edit": 4.0,
    "edit in a burst": 1.0,
    "skip": 1.5,
    "take a skip back": 1.0,
    "skip what was annotated": 0.5,
    "delete annotation": 1.2,
    "delete task": 0.6,
    "delete tasks at once": 0.2,
    "delete annotations at once": 0.3,
    "import tasks": 1.2,
    "import annotated tasks": 0.6,
    "draft": 0.7,
    "save what is unreadable": 1.0,
    "mend what is unreadable": 0.7,
    "retrieve predictions": 0.5,
    "press Start Training": 0.1,
}
BURST = (4, 9)
SEVERAL_SHARE = 0.3  # of tasks with two images
RETRIEVED = 4  # tasks at once
FEW = 6  # unlabelled tasks; then new ones are imported


class Desk:
    """What the people share: which tasks and annotations they believe to be there."""

    def __init__(
        self, project_id: int, backend_id: int, images: Mapping[str, DemoImage], config: LabelConfig
    ) -> None:
        """Args:
        project_id: where they work.
        backend_id: whose training they start.
        images: address in a task's data -> what is really on it.
        config: the project's controls.
        """
        self.project_id = project_id
        self.backend_id = backend_id
        self.images = images
        self.config = config
        self._lock = threading.Lock()
        self._tasks: dict[int, Sequence[str]] = {}  # task -> its images
        self._unreadable: set[int] = set()  # annotations
        self._annotations: dict[int, tuple[int, bool]] = {}  # annotation -> task, skipped
        self._open: set[int | None] = set()  # tasks on somebody's screen

    def add_tasks(self, tasks: Mapping[int, Sequence[str]]) -> None:
        """Remember new tasks and their images."""
        with self._lock:
            self._tasks.update(tasks)

    def add_annotation(
        self, annotation_id: int, task_id: int, *, skipped: bool = False, unreadable: bool = False
    ) -> None:
        """Remember an annotation, or its new state."""
        with self._lock:
            self._annotations[annotation_id] = (task_id, skipped)
            (self._unreadable.add if unreadable else self._unreadable.discard)(annotation_id)

    def forget(self, *, annotation_ids: Sequence[int] = (), task_ids: Sequence[int] = ()) -> None:
        """Forget what is gone."""
        with self._lock:
            for task_id in task_ids:
                self._tasks.pop(task_id, None)
            self._annotations = {
                number: entry
                for number, entry in self._annotations.items()
                if number not in annotation_ids and entry[0] not in task_ids
            }

    def pages(self, task_id: int) -> list[DemoImage]:
        """Return what is on a task's images; nothing where the task is gone."""
        with self._lock:
            return [self.images[uri] for uri in self._tasks.get(task_id, ())]

    def unreadable(self) -> list[tuple[int, int]]:
        """Return (annotation, task) pairs of what cannot be read."""
        with self._lock:
            return sorted(
                (number, task)
                for number, (task, is_skip) in self._annotations.items()
                if number in self._unreadable and not is_skip
            )

    def tasks(self, *, unlabelled: bool) -> list[int]:
        """Return tasks, or only those that nobody has annotated or skipped."""
        with self._lock:
            done = {task_id for task_id, _ in self._annotations.values()} if unlabelled else set()
            return sorted(self._tasks.keys() - done)

    @contextlib.contextmanager
    def taken(self, rng: random.Random) -> Iterator[int | None]:
        """Give somebody an unlabelled task that nobody else has open, as Label Studio's locks do."""
        free = self.tasks(unlabelled=True)
        with self._lock:
            free = [task_id for task_id in free if task_id not in self._open]
            task_id = rng.choice(free) if free else None
            self._open.add(task_id)
        try:
            yield task_id
        finally:
            with self._lock:
                self._open.discard(task_id)

    def annotations(self, *, skipped: bool) -> list[tuple[int, int]]:
        """Return (annotation, task) pairs."""
        with self._lock:
            return sorted(
                (number, task) for number, (task, is_skip) in self._annotations.items() if is_skip is skipped
            )


class Annotator(threading.Thread):
    """One person."""

    def __init__(self, number: int, desk: Desk, url: str, token: str, *, seed: int, mean_s: float) -> None:
        """Args:
        number: which of them.
        desk: what they share.
        url: Label Studio's address.
        token: a token for it.
        seed: of everything they do.
        mean_s: how long they think between two deeds.
        """
        super().__init__(name=f"annotator-{number}", daemon=True)
        self.deeds: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # Label Studio said no, or nothing
        self.broken: BaseException | None = None  # a fault of this harness
        self._desk = desk
        self._rng = random.Random(f"annotator:{seed}:{number}")
        self._mean_s = mean_s
        self._client = StudioClient(url, token)
        self._hand = SimulatedAnnotator(self._client, seed=seed + number)
        self._api = StudioApi(url, token)
        self._ended = threading.Event()

    def stop(self) -> None:
        """Finish the deed in hand and leave."""
        self._ended.set()

    def run(self) -> None:
        """Work until `stop`."""
        with self._api:
            while not self._ended.wait(self._rng.expovariate(1 / self._mean_s)):
                deed = self._choose()
                try:
                    self.deeds[deed] += self._do(deed)
                except (MaskloopError, httpx.HTTPError) as exc:
                    # Somebody else deleted it, or Label Studio's database was busy: what it has is the truth.
                    self.refused[f"{deed}: {_kind(exc)}"] += 1
                except BaseException as exc:
                    self.broken = exc
                    raise
        self._client.close()

    def _choose(self) -> str:
        if len(self._desk.tasks(unlabelled=True)) < FEW:
            return "import tasks"
        return self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]

    def _do(self, deed: str) -> int:
        """Do it; return how many changes that made."""
        deeds: dict[str, Callable[[], int]] = {
            "annotate": self._annotate,
            "edit": lambda: self._edit(1),
            "edit in a burst": lambda: self._edit(self._rng.randint(*BURST)),
            "skip": self._skip,
            "take a skip back": lambda: self._turn(skipped=True),
            "skip what was annotated": lambda: self._turn(skipped=False),
            "delete annotation": self._delete_annotation,
            "delete task": self._delete_task,
            "delete tasks at once": lambda: self._act("delete_tasks"),
            "delete annotations at once": lambda: self._act("delete_tasks_annotations"),
            "import tasks": lambda: self._import(annotated=False),
            "import annotated tasks": lambda: self._import(annotated=True),
            "draft": self._draft,
            "save what is unreadable": self._damage,
            "mend what is unreadable": self._mend,
            "retrieve predictions": self._retrieve,
            "press Start Training": self._train,
        }
        return deeds[deed]()

    def _annotate(self) -> int:
        with self._desk.taken(self._rng) as task_id:
            pages = self._desk.pages(task_id) if task_id else []
            if task_id is None or not pages:
                return 0
            if len(pages) > 1:
                self._create(task_id, self._draw(task_id))
                return 1
            done = self._hand.annotate(
                task_id, pages[0].segments, size_hw=pages[0].size_hw, config=self._desk.config
            )
            self._desk.add_annotation(done.annotation_id, task_id)
            return 1

    def _create(self, task_id: int, result: list[dict[str, Any]], *, unreadable: bool = False) -> None:
        made = self._client.create_annotation(task_id, {"result": result, "lead_time": 1.0})
        self._desk.add_annotation(int(made["id"]), task_id, unreadable=unreadable)

    def _edit(self, times: int) -> int:
        chosen = self._pick(self._desk.annotations(skipped=False))
        if chosen is None:
            return 0
        for _ in range(times):
            self._client.update_annotation(chosen[0], result=self._draw(chosen[1]))
        self._desk.add_annotation(*chosen)
        return times

    def _damage(self) -> int:
        """Make an annotation that cannot be read, or save a good one so."""
        chosen = self._pick(self._desk.annotations(skipped=False))
        if chosen is not None and self._rng.random() < 0.5:
            result = damaged(self._draw(chosen[1]), self._rng)
            self._client.update_annotation(chosen[0], result=result)
            self._desk.add_annotation(*chosen, unreadable=True)
            return 1
        with self._desk.taken(self._rng) as task_id:
            if task_id is None:
                return 0
            self._create(task_id, damaged(self._draw(task_id), self._rng), unreadable=True)
            return 1

    def _mend(self) -> int:
        chosen = self._pick(self._desk.unreadable())
        if chosen is None:
            return 0
        self._client.update_annotation(chosen[0], result=self._draw(chosen[1]))
        self._desk.add_annotation(*chosen)
        return 1

    def _retrieve(self) -> int:
        """Have Label Studio ask for predictions now; those of slow images come later, by a job."""
        tasks = self._desk.tasks(unlabelled=True)
        chosen = self._rng.sample(tasks, k=min(RETRIEVED, len(tasks)))
        if chosen:
            self._api.act(self._desk.project_id, "retrieve_tasks_predictions", chosen)
        return len(chosen)

    def _skip(self) -> int:
        with self._desk.taken(self._rng) as task_id:
            if task_id is None:
                return 0
            made = self._client.create_annotation(task_id, {"result": [], "was_cancelled": True})
            self._desk.add_annotation(int(made["id"]), task_id, skipped=True)
            return 1

    def _turn(self, *, skipped: bool) -> int:
        chosen = self._pick(self._desk.annotations(skipped=skipped))
        if chosen is None:
            return 0
        fields = (
            {"was_cancelled": False, "result": self._draw(chosen[1])} if skipped else {"was_cancelled": True}
        )
        self._client.update_annotation(chosen[0], **fields)
        self._desk.add_annotation(*chosen, skipped=not skipped)
        return 1

    def _delete_annotation(self) -> int:
        chosen = self._pick(self._desk.annotations(skipped=self._rng.random() < 0.2))
        if chosen is None:
            return 0
        self._desk.forget(annotation_ids=[chosen[0]])
        self._client.delete_annotation(chosen[0])
        return 1

    def _delete_task(self) -> int:
        task_id = self._pick(self._desk.tasks(unlabelled=False))
        if task_id is None:
            return 0
        self._desk.forget(task_ids=[task_id])
        self._api.call("DELETE", f"/api/tasks/{task_id}/")
        return 1

    def _act(self, action: str) -> int:
        tasks = self._desk.tasks(unlabelled=False)
        chosen = self._rng.sample(tasks, k=min(3, len(tasks)))
        if not chosen:
            return 0
        if action == "delete_tasks":
            self._desk.forget(task_ids=chosen)
        self._api.act(self._desk.project_id, action, chosen)
        if action == "delete_tasks_annotations":
            for skipped in (False, True):
                gone = [number for number, task in self._desk.annotations(skipped=skipped) if task in chosen]
                self._desk.forget(annotation_ids=gone)
        return len(chosen)

    def _import(self, *, annotated: bool) -> int:
        pages = [self._pages() for _ in range(self._rng.randint(1, 3))]
        tasks: list[dict[str, Any]] = [{"data": {"pages": uris}} for uris in pages]
        if annotated:
            for task, uris in zip(tasks, pages, strict=True):
                task["annotations"] = [{"result": self._truth([self._desk.images[uri] for uri in uris])}]
        made = self._client.import_tasks(self._desk.project_id, tasks)
        self._desk.add_tasks(dict(zip(made, pages, strict=True)))
        if annotated:
            for task_id in made:
                for row in self._client.task_annotations(task_id):
                    self._desk.add_annotation(int(row["id"]), task_id)
        return len(made)

    def _draft(self) -> int:
        task_id = self._pick(self._desk.tasks(unlabelled=True))
        if task_id is None:
            return 0
        body = {"result": self._draw(task_id), "lead_time": 1.0}
        self._api.call("POST", f"/api/tasks/{task_id}/drafts", body)
        return 1

    def _train(self) -> int:
        self._client.start_training(self._desk.backend_id)
        return 1

    def _pages(self) -> list[str]:
        count = 2 if self._rng.random() < SEVERAL_SHARE else 1
        return self._rng.sample(sorted(self._desk.images), k=count)

    def _draw(self, task_id: int) -> list[dict[str, Any]]:
        return self._truth(self._desk.pages(task_id) or [self._desk.images[min(self._desk.images)]])

    def _truth(self, pages: Sequence[DemoImage]) -> list[dict[str, Any]]:
        """Return what is on a task's images, an object more or less, drawn anew."""
        return draw_pages(pages, self._desk.config, self._rng)

    def _pick(self, choices: Sequence[Any]) -> Any:
        return self._rng.choice(choices) if choices else None


def draw_pages(pages: Sequence[DemoImage], config: LabelConfig, rng: random.Random) -> list[dict[str, Any]]:
    """Return regions of what is on a task's images, an object more or less."""
    result = []
    for index, image in enumerate(pages):
        segments = [segment for segment in image.segments if rng.random() < 0.8] or image.segments[:1]
        drawn = correct_regions([], segments, config=config, size_hw=image.size_hw, rng=rng)
        result += [{**region, "item_index": index} for region in drawn]
    return result


def damaged(result: Sequence[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Return regions the first of which nobody can read: its type is unknown, or its mask is cut off."""
    unknown = {"type": "hologramlabels", "value": {"hologramlabels": ["disc"]}}
    cut_off = {
        "type": "brushlabels",
        "from_name": "brush",
        "value": {"format": "rle", "rle": [0, 4, 176, 0, 57], "brushlabels": ["disc"]},
    }
    first, *others = result
    bad = {**first, **rng.choice((unknown, cut_off)), "id": f"{DAMAGED}{rng.randrange(10**6)}"}
    return [bad, *others]


def _kind(exc: Exception) -> str:
    if isinstance(exc, httpx.HTTPStatusError):
        return f"status {exc.response.status_code}"
    return getattr(exc, "got", None) or type(exc).__name__
