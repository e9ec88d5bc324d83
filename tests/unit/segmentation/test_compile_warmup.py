"""Served models are compiled before they take over and beside requests, never by a request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
import torch

from maskloop.segmentation.compile_warmup import uncompiled
from maskloop.segmentation.engine import Engine
from maskloop.segmentation.fast import compiled
from maskloop.segmentation.fast.compiled import graph_count, is_settled
from maskloop.segmentation.fast.forward import CompileMode
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.segmentation.preprocess import padded_size, resized_size
from maskloop.types import Prediction, RgbImage, SegmentationTask

WAIT_S = 120.0  # far above what anything here takes; only a hang reaches it


class Tracer:
    """Stands in for the compiler: runs graphs as they were traced, and notes which thread asked for them."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.opened = threading.Event()
        self.opened.set()

    def __call__(self, graph: Any, _inputs: list[Any]) -> Any:
        assert self.opened.wait(WAIT_S)
        self.threads.append(threading.current_thread().name)
        return graph.forward


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    tracer = Tracer()
    monkeypatch.setattr(compiled, "_backend", tracer)
    yield tracer
    tracer.opened.set()


def make_engine(mode: CompileMode = "on") -> Engine:
    return Engine(
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds(score=0.01),
        max_batch=4,
        device="cpu",
        compile_mode=mode,
    )


def settle(engine: Engine) -> None:
    """Wait for all that is being compiled."""
    jobs: list[Future[None]] = []
    with engine._warmup._lock:
        for pending in engine._warmup._pending.values():
            jobs.extend(pending.values())
    assert not wait(jobs, timeout=WAIT_S).not_done


def boxes(answers: list[Any]) -> list[tuple[str, float, tuple[int, ...]]]:
    found = []
    for answer in answers:
        assert isinstance(answer, Prediction)
        found += [
            (segment.label, round(segment.score, 4), tuple(segment.box_yxyx)) for segment in answer.segments
        ]
    return found


def test_load_next_model_is_compiled_for_what_was_asked_before_it_answers(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage], tracer: Tracer
) -> None:
    image = make_image(64, 64)
    with make_engine() as engine:
        cat, dog = (str(cat_dog_folders[name]) for name in ("cat", "dog"))
        engine.load(cat)
        engine.predict([image], source=cat)
        settle(engine)
        checkpoint = engine.load(dog)
        size_hw = padded_size(resized_size((64, 64), checkpoint.preprocessing), checkpoint.preprocessing)
        assert is_settled(checkpoint.model, (1, *size_hw), torch.float32)
        traces = len(tracer.threads)
        answers = engine.predict([image], source=dog)
        assert len(tracer.threads) == traces
        plain = predict_images(
            uncompiled(checkpoint),
            [image],
            task=SegmentationTask.INSTANCE,
            thresholds=Thresholds(score=0.01),
        )
        assert boxes(answers) == boxes(plain)
    assert set(tracer.threads) == {"maskloop-compile"}


def test_load_first_model_serves_while_it_is_compiled(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage], tracer: Tracer
) -> None:
    tracer.opened.clear()
    source = str(cat_dog_folders["cat"])
    with make_engine() as engine:
        checkpoint = engine.load(source)
        assert len(boxes(engine.predict([make_image()], source=source))) > 0
        assert graph_count(checkpoint.model) == 0
        tracer.opened.set()
        settle(engine)
        assert graph_count(checkpoint.model) == 1


def test_predict_shape_that_comes_again_is_compiled_beside(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage], tracer: Tracer
) -> None:
    source = str(cat_dog_folders["cat"])
    with make_engine() as engine:
        checkpoint = engine.load(source)
        settle(engine)
        tall = make_image(90, 45)
        first = engine.predict([tall], source=source)
        settle(engine)
        assert graph_count(checkpoint.model) == 1  # the usual shape alone
        engine.predict([tall], source=source)
        settle(engine)
        assert graph_count(checkpoint.model) == 2
        assert boxes(engine.predict([tall], source=source)) == boxes(first)
    assert set(tracer.threads) == {"maskloop-compile"}


def test_load_compile_off_compiles_nothing(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage], tracer: Tracer
) -> None:
    with make_engine("off") as engine:
        for source in map(str, cat_dog_folders.values()):
            assert not engine.load(source).plan.compiled
            engine.predict([make_image()] * 2, source=source)
        assert engine._warmup._thread is None
    assert tracer.threads == []


def test_load_compiler_fails_serves_all_the_same(
    cat_dog_folders: dict[str, Path],
    make_image: Callable[..., RgbImage],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no compiler here")

    monkeypatch.setattr(compiled, "_backend", broken)
    source = str(cat_dog_folders["cat"])
    with make_engine() as engine:
        checkpoint = engine.load(source)
        settle(engine)
        for _ in range(3):
            assert len(boxes(engine.predict([make_image()], source=source))) > 0
        assert graph_count(checkpoint.model) == 0
    warned = [record for record in caplog.records if getattr(record, "action", "") == "compile_off"]
    assert len(warned) == 1
