"""The engine under many threads, swaps, failures, and at its end."""

from __future__ import annotations

import gc
import io
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskloop.errors import ImageError, MaskloopError, ModelLoadError
from maskloop.masks import paste_segment, segment_iou
from maskloop.memory_budget import MemoryBudget
from maskloop.segmentation import batch_size
from maskloop.segmentation import engine as engine_module
from maskloop.segmentation import model_cache as shelf_module
from maskloop.segmentation.engine import Engine, EngineClosedError
from maskloop.segmentation.failures import InferenceError
from maskloop.segmentation.image import EncodedImage
from maskloop.segmentation.postprocess import Thresholds
from maskloop.segmentation.predict import predict_images
from maskloop.types import Prediction, PredictionFailure, RgbImage, SegmentationTask

WAIT_S = 30.0  # far above what anything here takes; only a hang reaches it


def make_engine(keep: int = 2, max_batch: int | None = 4, helpers: int | None = None) -> Engine:
    return Engine(
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds(score=0.01),
        max_batch=max_batch,
        device="cpu",
        keep=keep,
        helpers=helpers,
    )


class Gate:
    """Holds the inference thread back until opened, and writes down each batch and whose thresholds count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.entered = threading.Event(), threading.Event()
        self.batches: list[tuple[str, int]] = []
        self.tasks: list[SegmentationTask] = []
        self.cores: list[int] = []
        self.thresholds: list[Thresholds] = []
        forward, finish = engine_module.forward_batch, engine_module.postprocess_image

        def held_forward(checkpoint, ready, *, task, **options):
            self.batches.append((checkpoint.labels[0], len(ready)))
            self.tasks.append(task)
            self.cores.append(torch.get_num_threads())
            self.entered.set()
            assert self.opened.wait(WAIT_S)
            return forward(checkpoint, ready, task=task, **options)

        def noted_finish(checkpoint, raws, *, thresholds, **options):
            self.thresholds.append(thresholds)
            return finish(checkpoint, raws, thresholds=thresholds, **options)

        monkeypatch.setattr(engine_module, "forward_batch", held_forward)
        monkeypatch.setattr(engine_module, "postprocess_image", noted_finish)

    def open_when_ready(self, engine: Engine, count: int) -> None:
        """Open once so many images wait behind the gate, so that batches do not depend on timing."""
        deadline = time.monotonic() + WAIT_S
        while engine.ready < count and time.monotonic() < deadline:
            time.sleep(0.005)
        self.opened.set()


@pytest.fixture
def four_cores() -> Iterator[None]:
    """Let every thread that begins now have four threads, also where there are fewer cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()


def labels_of(answers: list) -> set[str]:
    return {segment.label for answer in answers for segment in answer.segments}


def test_predict_constant_swaps_every_request_is_answered_by_the_model_it_named(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    images = [make_image(40, 40 + 10 * index, index) for index in range(3)]

    def client(number: int) -> list[tuple[str, int, set[str]]]:
        seen = []
        for step in range(6):
            name = ("cat", "dog")[(number + step) % 2]
            wanted = images[: 1 + (number + step) % 3]
            answers = engine.predict(wanted, source=str(cat_dog_folders[name]))
            assert [str(answer) for answer in answers if isinstance(answer, MaskloopError)] == []
            assert [answer.size_hw for answer in answers] == [image.shape[:2] for image in wanted]
            seen.append((name, len(answers), labels_of(answers)))
        return seen

    with make_engine(keep=1) as engine, ThreadPoolExecutor(6) as pool:
        for seen in [
            future.result(WAIT_S) for future in [pool.submit(client, number) for number in range(6)]
        ]:
            assert len(seen) == 6
            assert all(found == {name} for name, _, found in seen)
        assert len(engine.held) == 1
        assert engine.queued == 0


def test_predict_swap_while_in_flight_request_keeps_its_model(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    cat, dog = (str(cat_dog_folders[name]) for name in ("cat", "dog"))
    with make_engine(keep=1) as engine:
        flying = engine.submit([make_image()], source=cat)
        assert gate.entered.wait(WAIT_S)
        waiting = engine.submit([make_image()], source=cat)
        engine.load(dog)
        after = engine.submit([make_image()], source=dog)
        assert set(engine.held) == {cat, dog}
        gate.opened.set()
        assert [labels_of(future.result(WAIT_S)) for future in (flying, waiting, after)] == [
            {"cat"},
            {"cat"},
            {"dog"},
        ]
    assert engine.held == ()


def test_submit_waiting_requests_of_one_model_share_a_batch(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    with make_engine() as engine:
        futures = [engine.submit([make_image()], source=str(cat_dog_folders["cat"]))]
        assert gate.entered.wait(WAIT_S)
        for name in ("cat", "dog", "cat", "cat", "cat", "cat"):
            futures.append(engine.submit([make_image()], source=str(cat_dog_folders[name])))
        gate.open_when_ready(engine, 6)
        assert all(isinstance(future.result(WAIT_S)[0], Prediction) for future in futures)
    assert gate.batches == [("cat", 1), ("cat", 4), ("dog", 1), ("cat", 1)]


def test_submit_urgent_image_goes_first_and_takes_nothing_along_that_can_wait(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    source = str(cat_dog_folders["cat"])
    with make_engine() as engine:
        futures = [engine.submit([make_image()], source=source)]
        assert gate.entered.wait(WAIT_S)
        for is_urgent in (False, True, False, True):
            futures.append(engine.submit([make_image()], source=source, is_urgent=is_urgent))
        done: list[int] = []
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: done.append(number))
        gate.open_when_ready(engine, 4)
        assert all(isinstance(future.result(WAIT_S)[0], Prediction) for future in futures)
    assert gate.batches == [("cat", 1), ("cat", 2), ("cat", 2)]
    assert sorted(done[1:3]) == [2, 4]


def test_submit_only_equal_tasks_share_a_batch_and_thresholds_stay_their_own(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    instance, panoptic = SegmentationTask.INSTANCE, SegmentationTask.PANOPTIC
    strict, same = (Thresholds(score=0.9, score_of_label={"cat": 0.2}) for _ in range(2))
    asked = [(None, None), (panoptic, None), (None, strict), (instance, None), (None, same), (panoptic, same)]
    with make_engine() as engine:
        futures = [engine.submit([make_image()], source=str(cat_dog_folders["cat"]))]
        assert gate.entered.wait(WAIT_S)
        for task, thresholds in asked:
            futures.append(
                engine.submit(
                    [make_image()], source=str(cat_dog_folders["cat"]), task=task, thresholds=thresholds
                )
            )
        gate.open_when_ready(engine, len(asked))
        assert all(isinstance(future.result(WAIT_S)[0], Prediction) for future in futures)
    assert [count for _, count in gate.batches] == [1, 4, 2]
    assert gate.tasks[1:] == [instance, panoptic]
    default = Thresholds(score=0.01)
    assert gate.thresholds[1:] == [default, strict, default, strict, default, strict]


@pytest.mark.parametrize(
    ("parameters", "sizes", "at_a_time"),
    [(10**12, [1, 8, 1], 1), (1, [1] * 10, 2)],
    ids=["small", "large"],
)
@pytest.mark.usefixtures("four_cores")
def test_submit_batch_not_set_follows_the_model(
    gate: Gate,
    cat_dog_folders: dict[str, Path],
    make_image: Callable[..., RgbImage],
    monkeypatch: pytest.MonkeyPatch,
    parameters: int,
    sizes: list[int],
    at_a_time: int,
) -> None:
    monkeypatch.setattr(batch_size, "CACHED_PARAMETERS", parameters)
    source = str(cat_dog_folders["cat"])
    with make_engine(max_batch=None) as engine:
        futures = [engine.submit([make_image()], source=source)]
        assert gate.entered.wait(WAIT_S)
        futures += [engine.submit([make_image()], source=source) for _ in range(9)]
        gate.open_when_ready(engine, 10 - at_a_time)
        assert all(isinstance(future.result(WAIT_S)[0], Prediction) for future in futures)
    assert [count for _, count in gate.batches] == sizes


@pytest.mark.usefixtures("four_cores")
def test_submit_two_that_wait_share_the_cores_and_a_lone_one_has_all(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    source = str(cat_dog_folders["cat"])
    with make_engine(max_batch=1) as engine:
        gate.opened.set()
        alone = engine.submit([make_image()], source=source)
        assert isinstance(alone.result(WAIT_S)[0], Prediction)
        assert gate.cores == [4]

        gate.opened.clear()
        many = engine.submit([make_image() for _ in range(7)], source=source)
        deadline = time.monotonic() + WAIT_S
        while len(gate.cores) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        gate.open_when_ready(engine, 5)  # no third one has begun
        assert all(isinstance(one, Prediction) for one in many.result(WAIT_S))
    # the first may have begun before the next was ready, the last when no other waited
    assert set(gate.cores[1:]) <= {2, 4}
    assert gate.cores.count(2) >= 5


@pytest.mark.usefixtures("four_cores")
def test_submit_images_in_the_model_together_have_the_answers_they_have_alone(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    source = str(cat_dog_folders["cat"])
    images = [make_image(40 + 8 * (index % 3), 64, index) for index in range(12)]
    with make_engine(max_batch=1) as engine:
        together = engine.predict(images, source=source)
        alone = [engine.predict([image], source=source)[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert one.segments
        assert [segment.label for segment in one.segments] == [segment.label for segment in other.segments]
        for ours, theirs in zip(one.segments, other.segments, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            assert segment_iou(ours, theirs) > 0.99


def test_submit_only_equal_sizes_share_a_batch(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    source = str(cat_dog_folders["cat"])
    sizes = [(60, 90), (90, 60), (120, 180), (90, 60)]  # the third is resized to the size of the first
    with make_engine() as engine:
        futures = [engine.submit([make_image()], source=source)]
        assert gate.entered.wait(WAIT_S)
        futures += [engine.submit([make_image(*size)], source=source) for size in sizes]
        gate.open_when_ready(engine, len(sizes))
        answers = [future.result(WAIT_S)[0] for future in futures[1:]]
    assert [count for _, count in gate.batches] == [1, 2, 2]
    assert [answer.size_hw for answer in answers] == sizes


@pytest.mark.parametrize(("max_batch", "tolerance"), [(1, 0.0), (4, 1e-3)], ids=["alone", "in company"])
@pytest.mark.parametrize("for_selection", [False, True])
def test_predict_many_equals_predict_images_of_one(
    for_selection: bool,
    max_batch: int,
    tolerance: float,
    cat_dog_folders: dict[str, Path],
    make_image: Callable[..., RgbImage],
) -> None:
    source = str(cat_dog_folders["cat"])
    images = [make_image(40 + 20 * (seed % 3), 90, seed) for seed in range(9)]
    with make_engine(max_batch=max_batch) as engine:
        answers = engine.predict(
            [partial(np.copy, image) for image in images], source=source, for_selection=for_selection
        )
        checkpoint = engine.load(source)
    for image, answer in zip(images, answers, strict=True):
        (alone,) = predict_images(
            checkpoint,
            [image],
            task=SegmentationTask.INSTANCE,
            thresholds=Thresholds(score=0.01),
            for_selection=for_selection,
        )
        assert isinstance(answer, Prediction)
        assert answer.size_hw == alone.size_hw
        assert answer.confidence == pytest.approx(alone.confidence, abs=tolerance, rel=0)
        assert [one.label for one in answer.segments] == [one.label for one in alone.segments]
        for one, other in zip(answer.segments, alone.segments, strict=True):
            assert one.score == pytest.approx(other.score, abs=tolerance, rel=0)
            differ = paste_segment(one, alone.size_hw) != paste_segment(other, alone.size_hw)
            assert differ.mean() <= 10 * tolerance
        if for_selection:
            assert answer.selection_inputs.embedding_d == pytest.approx(
                alone.selection_inputs.embedding_d, abs=tolerance, rel=0
            )


def test_predict_sources_are_asked_by_few_threads_and_their_errors_are_their_own(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def decode(number: int) -> RgbImage:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        if number == 3:
            raise OSError("gone")
        return make_image()

    with make_engine(helpers=2) as engine:
        answers = engine.predict(
            [partial(decode, number) for number in range(8)], source=str(cat_dog_folders["cat"])
        )
    assert most <= 2
    assert [type(answer) for answer in answers] == [Prediction] * 3 + [PredictionFailure] + [Prediction] * 4
    assert isinstance(answers[3].error, InferenceError)


def test_predict_thresholds_of_a_request_are_its_own(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    source = str(cat_dog_folders["cat"])
    with make_engine() as engine:
        (usual,) = engine.predict([make_image()], source=source)
        (never,) = engine.predict(
            [make_image()], source=source, thresholds=Thresholds(score_of_label={"cat": 1.0})
        )
        (again,) = engine.predict([make_image()], source=source)
    assert len(usual.segments) == len(again.segments) > len(never.segments) == 0


def test_predict_bad_image_fails_alone(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    with make_engine() as engine:
        images = [make_image(), np.zeros((0, 4, 3), np.uint8), make_image(), np.zeros((4, 4), np.uint8)]
        first, second, third, fourth = engine.predict(images, source=str(cat_dog_folders["cat"]))
    assert isinstance(first, Prediction)
    assert isinstance(third, Prediction)
    assert [type(failure.error) for failure in (second, fourth)] == [ImageError, ImageError]


def test_predict_failing_model_is_an_error_of_the_image_and_the_thread_lives(
    cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_module.forward_batch

    def fail_on_dark(checkpoint, ready, **options):
        if any(views[0].pixels_chw.max() == 0 for views in ready):
            raise RuntimeError("out of memory")
        return real(checkpoint, ready, **options)

    monkeypatch.setattr(engine_module, "forward_batch", fail_on_dark)
    dark, source = np.zeros((8, 8, 3), np.uint8), str(cat_dog_folders["cat"])
    with make_engine() as engine:
        first, second = engine.predict([dark, make_image()], source=source)
        assert isinstance(first.error, InferenceError)
        assert "got RuntimeError: out of memory" in str(first.error)
        assert isinstance(second, Prediction)
        assert isinstance(engine.predict([make_image()], source=source)[0], Prediction)


def test_load_missing_model_raises_and_keeps_the_others(
    tmp_path: Path, cat_dog_folders: dict[str, Path]
) -> None:
    cat = str(cat_dog_folders["cat"])
    with make_engine(keep=1) as engine:
        engine.load(cat)
        for _ in range(2):
            with pytest.raises(ModelLoadError):
                engine.load(str(tmp_path / "nowhere"))
        assert engine.held == (cat,)


def test_load_one_after_the_other_holds_two_at_most(
    cat_dog_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref] = []
    most, real = 0, shelf_module.load_checkpoint

    def counted(source, **options):
        nonlocal most
        loaded = real(source, **options)
        gc.collect()
        alive.append(weakref.ref(loaded.model))
        most = max(most, sum(model() is not None for model in alive))
        return loaded

    monkeypatch.setattr(shelf_module, "load_checkpoint", counted)
    sources = [tmp_path / str(number) for number in range(6)]
    for source in sources:
        source.symlink_to(cat_dog_folders["cat"])
    with make_engine(keep=2) as engine, ThreadPoolExecutor(3) as pool:
        for source in sources[:3]:
            engine.predict([np.zeros((8, 8, 3), np.uint8)], source=str(source))
            assert engine.held[-1] == str(source)
        assert list(pool.map(lambda source: engine.load(str(source)).labels, sources[3:])) == [("cat",)] * 3
        assert len(engine.held) == 2
    assert (len(alive), most) == (6, 2)


def test_load_from_many_threads_loads_once(
    cat_dog_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [], shelf_module.load_checkpoint

    def counted(source, **options):
        calls.append(source)
        return real(source, **options)

    monkeypatch.setattr(shelf_module, "load_checkpoint", counted)
    with make_engine() as engine, ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(engine.load, [str(cat_dog_folders["cat"])] * 8))
    assert len(calls) == 1
    assert all(checkpoint is loaded[0] for checkpoint in loaded)


def test_submit_cancelled_while_waiting_costs_nothing(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    source = str(cat_dog_folders["cat"])
    with make_engine() as engine:
        engine.submit([make_image()], source=source)
        assert gate.entered.wait(WAIT_S)
        dropped = engine.submit([make_image()] * 3, source=source)
        assert dropped.cancel()
        kept = engine.submit([make_image()], source=source)
        gate.open_when_ready(engine, 1)
        assert labels_of(kept.result(WAIT_S)) == {"cat"}
    assert gate.batches == [("cat", 1), ("cat", 1)]


def test_submit_no_images_is_answered_at_once(cat_dog_folders: dict[str, Path]) -> None:
    with make_engine() as engine:
        assert engine.submit([], source=str(cat_dog_folders["cat"])).result(0) == []


def test_close_answers_what_is_queued_then_refuses(
    gate: Gate, cat_dog_folders: dict[str, Path], make_image: Callable[..., RgbImage]
) -> None:
    source, engine = str(cat_dog_folders["cat"]), make_engine(max_batch=2)
    futures = [engine.submit([make_image(seed=index)], source=source) for index in range(5)]
    closer = threading.Thread(target=engine.close)
    closer.start()
    gate.opened.set()
    closer.join(WAIT_S)
    assert all(isinstance(future.result(0)[0], Prediction) for future in futures)
    engine.close()
    for refused in (engine.predict, engine.submit):
        with pytest.raises(EngineClosedError, match="expected an open engine, got a closed one"):
            refused([make_image()], source=source)


@pytest.mark.parametrize("option", ["keep", "max_batch"])
def test_engine_without_room_raises(option: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make_engine(**{option: 0})


def test_engine_image_larger_than_its_memory_is_refused(cat_dog_folders):
    png = io.BytesIO()
    Image.new("L", (400, 300)).save(png, "PNG")
    with Engine(
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds(score=0.01),
        max_batch=1,
        device="cpu",
        memory=MemoryBudget(2**20),
    ) as engine:
        (result,) = engine.predict(
            [EncodedImage(data=png.getvalue(), max_pixels=10**8)], source=str(cat_dog_folders["cat"])
        )
    assert isinstance(result, PredictionFailure)
    assert "raise MASKLOOP_MEMORY_MB" in str(result.error)


def test_engine_images_are_decoded_within_its_memory(cat_dog_folders, monkeypatch):
    memory, lock, decoded = MemoryBudget(2 * 300 * 400 * 12), threading.Lock(), []
    png = io.BytesIO()
    Image.new("L", (400, 300)).save(png, "PNG")
    prepare = engine_module.prepare_image

    def noted(*args, **options):
        with lock:
            decoded.append(memory.held_bytes)
        time.sleep(0.01)
        return prepare(*args, **options)

    monkeypatch.setattr(engine_module, "prepare_image", noted)
    with Engine(
        task=SegmentationTask.INSTANCE,
        thresholds=Thresholds(score=0.01),
        max_batch=4,
        device="cpu",
        helpers=6,
        memory=memory,
    ) as engine:
        images = [EncodedImage(data=png.getvalue(), max_pixels=10**8)] * 12
        results = engine.predict(images, source=str(cat_dog_folders["cat"]))
    assert all(isinstance(result, Prediction) for result in results)
    assert 300 * 400 * 12 <= max(decoded) <= memory.total_bytes
    assert memory.held_bytes == 0


def test_engine_failed_image_is_not_kept_by_its_error(cat_dog_folders):
    png = io.BytesIO()
    Image.effect_noise((400, 300), 64).save(png, "PNG")
    cut = EncodedImage(data=png.getvalue()[:2000], max_pixels=10**8)
    with make_engine() as engine:
        (result,) = engine.predict([cut], source=str(cat_dog_folders["cat"]))
    assert isinstance(result, PredictionFailure)
    error: BaseException | None = result.error
    while error is not None:
        assert error.__traceback__ is None
        error = error.__cause__ or error.__context__
