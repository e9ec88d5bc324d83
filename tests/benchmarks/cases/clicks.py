"""Clicks: the time of an answer with Swin-T at 800x1088 against the first look, and how good answers are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..harness.case import Budget, Case, Result, Spread
from .forward import random_model

if TYPE_CHECKING:
    from maskloop.interactive.image_features import ImageFeatures

__all__ = ["CASES"]

SIZE_HW = (800, 1088)
AIM_MS = {"query": 10.0, "all": 50.0, "box": 50.0}  # at the 95th percentile
BOX_SIDES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
CLICKS, QUICK_CLICKS = 60, 6
OBJECTS, QUICK_OBJECTS = 60, 3


def run(budget: Budget) -> list[Result]:
    """Return the time of a click by each tier after the first look, then the rows of made-up images."""
    import torch

    from maskloop.interactive.answer import TIERS, find_answer
    from maskloop.interactive.prompt import Prompt

    looked, features, look = _first_look()
    generator = torch.Generator().manual_seed(0)
    count = QUICK_CLICKS if budget.quick else CLICKS
    places = torch.rand(count, 3, 2, generator=generator).tolist()
    results = []
    for name, tiers, snap in (
        ("query", ("query",), False),
        ("embedding", ("embedding",), False),
        ("click query", ("click_query",), False),
        ("all", TIERS, True),
    ):
        results.append(_times(name, _timed_clicks(features, places, tiers, snap=snap), looked, features))
    few = places[: QUICK_CLICKS if budget.quick else CLICKS // 3]
    with _looking(look):  # as the server does for a prelabelling
        beside = _timed_clicks(features, few, TIERS, snap=True)
    results.append(_times("all, beside first looks", beside, looked, features))
    boxes = _Measured()
    for number, points in enumerate(places):
        side, (x, y) = BOX_SIDES[number % len(BOX_SIDES)], points[0]
        left, top = x * (1 - side), y * (1 - side)
        prompt = Prompt(box_xyxy=(left, top, left + side, top + side))
        with boxes.one():
            find_answer(features, prompt)
    return [*results, _times("box", boxes, looked, features), _quality(budget)]


@dataclass
class _Measured:
    """Milliseconds of answers: by the clock, of the processor, and of the processor for negative clicks."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    @contextmanager
    def one(self) -> Iterator[None]:
        started, used = time.perf_counter(), time.thread_time()
        yield
        self.wall.append(1e3 * (time.perf_counter() - started))
        self.cpu.append(1e3 * (time.thread_time() - used))


def _timed_clicks(features: ImageFeatures, places: Any, tiers: Any, *, snap: bool) -> _Measured:
    from maskloop.interactive.answer import find_answer
    from maskloop.interactive.prompt import Click, Prompt

    measured = _Measured()
    fresh = replace(features)  # without the answers that other tiers have left
    for points in places:
        clicks = [Click(x=x, y=y, is_positive=number < 2) for number, (x, y) in enumerate(points)]
        for count in range(1, len(clicks) + 1):  # as they come: the last one is beside the object
            with measured.one():
                find_answer(fresh, Prompt(clicks=tuple(clicks[:count])), tiers=tiers, snap=snap)
        measured.beside.append(measured.cpu[-1])
    return measured


@contextmanager
def _looking(look: Callable[[], object]) -> Iterator[None]:
    """Look at images in another thread, one after the other."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            look()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _times(name: str, measured: _Measured, looked: float, features: ImageFeatures) -> Result:
    return Result(
        name=f"clicks/swin-t {SIZE_HW[0]}x{SIZE_HW[1]} {name}",
        unit="ms",
        ours=Spread.of(measured.wall),
        reference=Spread.of([looked]),
        reference_name="first look",
        aim=None,
        notes={
            "p95_ms": _p95(measured.wall),
            "p50_cpu_ms": Spread.of(measured.cpu).median,
            "p95_cpu_ms": _p95(measured.cpu),
            "p50_cpu_ms_beside": Spread.of(measured.beside).median if measured.beside else None,
            "aim_p95_ms": AIM_MS.get(name),
            "features_mb": features.size_bytes / 2**20,
        },
    )


def _first_look() -> tuple[float, ImageFeatures, Callable[[], object]]:
    """Return the milliseconds of a forward pass with its features, these, and another such pass."""
    import torch

    from maskloop.interactive.image_features import image_features
    from maskloop.segmentation.checkpoint import Checkpoint
    from maskloop.segmentation.click_queries import fitting_click_queries
    from maskloop.segmentation.fast.forward import ForwardPlan
    from maskloop.segmentation.predict import forward_batch, prepare_image
    from maskloop.segmentation.preprocess import Preprocessing
    from maskloop.segmentation.test_time_views import ViewPlan
    from maskloop.types import SegmentationTask

    model = random_model("mask2former", "swin-t", torch.device("cpu"))
    checkpoint = Checkpoint(
        model=model,
        family="mask2former",
        labels=tuple(f"class {number}" for number in range(80)),
        thing_ids=frozenset(range(80)),
        preprocessing=Preprocessing(),
        task_text=None,
        source="random",
        device=torch.device("cpu"),
        plan=ForwardPlan(precision="float32"),
        click_queries=fitting_click_queries(model, seed=0),
    )
    image: Any = torch.randint(0, 255, (*SIZE_HW, 3), dtype=torch.uint8).numpy()
    options: Any = {"for_selection": False, "plan": ViewPlan()}
    views = [prepare_image(checkpoint, image, **options)]

    def look() -> ImageFeatures:
        (raws,) = forward_batch(
            checkpoint, views, task=SegmentationTask.INSTANCE, keep_output=True, **options
        )
        return image_features(checkpoint, raws[0])

    started = time.perf_counter()
    features = look()
    return 1e3 * (time.perf_counter() - started), features, look


def _quality(budget: Budget) -> Result:
    from maskloop.lab.base_model import made_up_examples
    from maskloop.segmentation.checkpoint import load_checkpoint
    from maskloop.settings import BASE_MODEL

    from ..click_trials import run_trials, targets_of, ways
    from ..clicks import SEED

    objects = QUICK_OBJECTS if budget.quick else OBJECTS
    checkpoint = load_checkpoint(BASE_MODEL, device="cpu")
    targets = targets_of(checkpoint, made_up_examples(SEED, -(-objects // 3), domain="shifted"), objects)
    tallies = run_trials(targets, ways(), clicks=5 if budget.quick else 20)
    rows = [
        {"set": "made-up-shifted", "model": BASE_MODEL.name, "way": way, **tally.row()}
        for way, tally in tallies.items()
    ]
    all_ious, old_ious = ([row[0] for row in tallies[way].ious] for way in ("all", "filter"))
    assert tallies["all"].disobeyed == 0, "a negative click is inside an answer"
    return Result(
        name="clicks/made-up shifted, IoU after one click",
        unit="IoU",
        ours=Spread.of(all_ious),
        reference=Spread.of(old_ious),
        reference_name="finished prediction",
        better="more",
        same=f"all {tallies['all'].negatives} negative clicks are obeyed",
        tables={"clicks": rows},
    )


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


CASES = [Case(name="clicks", summary="answers to clicks: their time and how good they are", run=run)]
