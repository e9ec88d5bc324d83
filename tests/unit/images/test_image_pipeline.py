"""Images of one request: in order, few at once, and never waited for beyond the request's limit."""

import dataclasses
import hashlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from maskloop.errors import ImageError
from maskloop.memory_budget import MemoryBudget
from maskloop.store.holdout import content_position
from maskloop.types import Prediction, PredictionFailure
from maskloop_studio.images.image_pipeline import FETCHES_AT_ONCE, PREPARED_BYTES, ImageInput, ImagePipeline
from maskloop_studio.images.time_limit import TimeLimit

MOST_FILE = 1_000_000
NO_IMAGE = ImageError("image", expected="an image", got="none", remedy="upload it")


class FakeFetcher:
    """Gives an address's text as the image; an address in `blocked` waits for its event."""

    def __init__(self):
        self.blocked = {}
        self.seen = []

    def fetch_many(self, uris, *, task_ids, limit):
        (uri,) = uris
        self.seen.append(uri)
        if uri in self.blocked:
            self.blocked[uri].wait(60)
        return [NO_IMAGE if uri == "broken" else str(uri).encode()]


class FakeEngine:
    """Answers at once, or never where `answers` says so: such an image is in the model's hands."""

    max_batch = 1

    def __init__(self, answers=lambda number: True, *, started=False):
        self._answers, self._started = answers, started
        self.futures = []

    def submit(self, images, **_others):
        future = Future()
        number = len(self.futures)
        self.futures.append(future)
        if self._answers(number):
            future.set_result([f"prediction {number}"])
        elif self._started:
            future.set_running_or_notify_cancel()  # the model has it: it cannot be cancelled
        return future


def _inputs(*uris):
    return [
        ImageInput(uri=uri, task_id=number, task=None, thresholds=None) for number, uri in enumerate(uris)
    ]


def _pipeline(engine=None, fetcher=None):
    return ImagePipeline(fetcher=fetcher or FakeFetcher(), engine=engine or FakeEngine(), max_pixels=100)


def _use(index, result):
    return index, type(result)


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_predict_and_use_every_image_in_order(count):
    results = _pipeline().predict_and_use(_inputs(*"a" * count), _use, source="m")
    assert results == [(index, str) for index in range(count)]


@pytest.mark.parametrize(("below", "shown"), [(0.0, 3), (1.0, 0), ("between", 1)])
def test_predict_blind_images_have_no_segment(below, shown, make_segment):
    uris = ("a", "b", "c")
    places = sorted(content_position(hashlib.sha256(uri.encode()).hexdigest()) for uri in uris)
    below = places[2] if below == "between" else below
    found = Prediction(segments=(make_segment(),), size_hw=(32, 48), confidence=0.5)
    engine = FakeEngine()
    engine.submit = lambda images, **_: _done([found])
    pipeline = dataclasses.replace(_pipeline(engine), blind_below=below)
    results = pipeline.predict(_inputs(*uris), source="m")
    assert sum(bool(result.segments) for result in results) == shown
    assert {result.confidence for result in results} == {0.5}  # the order of tasks is that of the model


def _done(results):
    future = Future()
    future.set_result(results)
    return future


def test_predict_broken_image_stays_with_its_place():
    first, second, third = _pipeline().predict(_inputs("a", "broken", "b"), source="m")
    assert isinstance(second, PredictionFailure)
    assert second.error is NO_IMAGE
    assert {type(first), type(third)} == {str}


@pytest.mark.parametrize("started", [False, True], ids=["waits for the model", "in the model"])
@pytest.mark.parametrize("done", [0, 1, 7, 19])
def test_deadline_gives_what_is_done_and_nothing_else(started, done):
    engine = FakeEngine(lambda number: number < done, started=started)
    results = _pipeline(engine).predict_and_use(_inputs(*"a" * 20), _use, source="m", limit=TimeLimit(0.3))
    assert sum(result is not None for result in results) == done
    assert len(results) == 20
    waiting = engine.futures[done:]
    assert all(future.cancelled() for future in waiting) is not started


def test_deadline_comes_while_an_image_host_hangs():
    fetcher, go_on = FakeFetcher(), threading.Event()
    fetcher.blocked["slow"] = go_on
    try:
        results = _pipeline(fetcher=fetcher).predict_and_use(
            _inputs("slow", "a", "b"), _use, source="m", limit=TimeLimit(0.3)
        )
    finally:
        go_on.set()
    assert [result is not None for result in results] == [False, True, True]


def test_client_gone_ends_the_work():
    engine, limit = FakeEngine(lambda _: False), TimeLimit()
    ended = threading.Thread(
        target=lambda: _pipeline(engine).predict_and_use(_inputs(*"a" * 9), _use, source="m", limit=limit)
    )
    ended.start()
    while not engine.futures:
        time.sleep(0.01)
    limit.end()
    ended.join(30)
    assert not ended.is_alive()
    assert all(future.cancelled() for future in engine.futures)


def test_late_result_is_not_used():
    engine, used = FakeEngine(lambda _: False, started=True), []
    _pipeline(engine).predict_and_use(
        _inputs("a"), lambda index, _: used.append(index), source="m", limit=TimeLimit(0.1)
    )
    engine.futures[0].set_result(["late"])
    assert used == []


def test_use_that_raises_ends_the_request():
    def use(_index, _result):
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        _pipeline().predict_and_use(_inputs("a"), use, source="m")


def test_few_images_are_fetched_at_once():
    fetcher, go_on = FakeFetcher(), threading.Event()
    fetcher.blocked["slow"] = go_on
    limit = TimeLimit()
    thread = threading.Thread(
        target=lambda: _pipeline(fetcher=fetcher).predict_and_use(
            _inputs(*["slow"] * 100), _use, source="m", limit=limit
        )
    )
    thread.start()
    while len(fetcher.seen) < FETCHES_AT_ONCE:
        time.sleep(0.01)
    time.sleep(0.05)
    seen = len(fetcher.seen)
    limit.end()
    go_on.set()
    thread.join(30)
    assert seen == FETCHES_AT_ONCE


def test_predict_and_use_files_of_all_requests_stay_within_the_memory():
    room, lock = MemoryBudget(2 * (MOST_FILE + PREPARED_BYTES)), threading.Lock()
    fetching = most = 0

    class Counting(FakeFetcher):
        def fetch_many(self, uris, *, task_ids, limit):
            nonlocal fetching, most
            with lock:
                fetching += 1
                most = max(most, fetching)
            time.sleep(0.01)
            with lock:
                fetching -= 1
            return super().fetch_many(uris, task_ids=task_ids, limit=limit)

    pipeline = ImagePipeline(
        fetcher=Counting(), engine=FakeEngine(), max_pixels=100, max_file_bytes=MOST_FILE, memory=room
    )
    with ThreadPoolExecutor(4) as pool:
        uris = [str(number) for number in range(12)]
        found = list(pool.map(lambda _: pipeline.predict(_inputs(*uris), source="m"), range(4)))
    assert [len(results) for results in found] == [12] * 4
    assert most <= 2
    assert room.held_bytes == 0


def test_predict_and_use_no_memory_free_ends_at_the_limit():
    room = MemoryBudget(100)
    room.acquire(100)
    pipeline = ImagePipeline(
        fetcher=FakeFetcher(), engine=FakeEngine(), max_pixels=100, max_file_bytes=100, memory=room
    )
    limit = TimeLimit(0.2)
    assert pipeline.predict_and_use(_inputs("a"), lambda _, result: result, source="m", limit=limit) == [None]


@pytest.mark.parametrize("client_gone", [False, True], ids=["deadline", "client gone"])
def test_predict_and_use_a_fetch_under_way_is_abandoned_at_the_limit(client_gone):
    begun, limits = threading.Event(), []

    class Waiting(FakeFetcher):
        def fetch_many(self, uris, *, task_ids, limit):
            limits.append(limit)
            begun.set()
            limit.sleep(60)
            return [NO_IMAGE]

    limit = TimeLimit(None if client_gone else 0.05)
    pipeline = ImagePipeline(fetcher=Waiting(), engine=FakeEngine(), max_pixels=100)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(
            pipeline.predict_and_use, _inputs("a"), lambda _, one: one, source="m", limit=limit
        )
        assert begun.wait(30)
        if client_gone:
            limit.end()
        assert found.result(30) == [None]
    assert limits[0].is_cancelled
