"""An image is looked at once, whoever asks for it, and again when its content or model changes."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from maskloop.errors import ImageError
from maskloop.interactive import image_features as features_module
from maskloop.interactive.feature_cache import FeatureCache
from maskloop.memory_budget import MemoryBudget
from maskloop.types import PredictionFailure, SegmentationTask
from maskloop_studio.images.image_looks import ImageLooks, LookedImage
from maskloop_studio.images.time_limit import TimeLimit

MODEL = torch.nn.Identity()
FAILED = ImageError("image", expected="one", got="none", remedy="send one")


class _Engine:
    """Runs no model: each image's features are made when `may_go` is set."""

    def __init__(self):
        self.submitted, self.may_go, self.fails = 0, threading.Event(), False
        self._threads = ThreadPoolExecutor(2)
        self.may_go.set()

    def submit(self, images, *, source, task, use_output, is_urgent):
        self.submitted += 1
        future: Future = Future()

        def run():
            self.may_go.wait(20)
            future.set_result([PredictionFailure(error=FAILED) if self.fails else object()])
            if not self.fails:
                use_output(SimpleNamespace(model=MODEL), source)

        self._threads.submit(run)
        return future


@pytest.fixture
def parts(monkeypatch):
    files = {"a": b"first", "b": b"second"}
    monkeypatch.setattr(features_module, "image_features", lambda *_: SimpleNamespace(size_bytes=10))
    fetcher = SimpleNamespace(fetch_many=lambda uris, **_: [files.get(uris[0], FAILED)])
    engine = _Engine()
    looks = ImageLooks(
        fetcher=fetcher,
        engine=engine,
        cache=FeatureCache(1000),
        max_pixels=100,
        files=MemoryBudget(2**20),
        max_file_bytes=2**20,
    )
    return SimpleNamespace(looks=looks, engine=engine, files=files)


def _image(address="a", source="m"):
    return LookedImage(address=address, task_id=1, task=SegmentationTask.INSTANCE, source=source)


def test_look_twice_is_one_forward_pass(parts):
    first, second = (parts.looks.look(_image(), TimeLimit(20)) for _ in range(2))
    assert first is second
    assert parts.engine.submitted == 1


def test_look_while_another_looks_waits_for_it(parts):
    parts.engine.may_go.clear()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(parts.looks.look, _image(), TimeLimit(20)) for _ in range(4)]
        while not parts.engine.submitted:
            pass
        parts.engine.may_go.set()
        assert len({id(one.result()) for one in waiting}) == 1
    assert parts.engine.submitted == 1


def test_look_after_a_prediction_uses_its_features(parts):
    use_output, end = parts.looks.observer(_image(), b"first")
    assert parts.looks.observer(_image(), b"first") is None, "it is being made"
    use_output(SimpleNamespace(model=MODEL), None)
    predicted = Future()
    predicted.set_result([object()])
    end(predicted)
    assert parts.looks.known(_image()) is not None
    assert parts.looks.look(_image(), TimeLimit(20)) is not None
    assert parts.engine.submitted == 0


def test_look_at_what_cannot_be_fetched_or_predicted_names_the_error(parts):
    with pytest.raises(ImageError):
        parts.looks.look(_image("missing"), TimeLimit(20))
    parts.engine.fails = True
    for _ in range(2):  # nothing is kept of a failure
        with pytest.raises(ImageError):
            parts.looks.look(_image(), TimeLimit(20))
    assert parts.engine.submitted == 2


def test_look_after_forget_sees_the_new_content(parts):
    first = parts.looks.look(_image(), TimeLimit(20))
    parts.files["a"] = b"changed"
    assert parts.looks.look(_image(), TimeLimit(20)) is first, "the address is trusted for a while"
    parts.looks.forget(_image())
    assert parts.looks.look(_image(), TimeLimit(20)) is not first


def test_look_with_another_model_is_another_look(parts):
    parts.looks.look(_image(), TimeLimit(20))
    assert parts.looks.known(_image(source="n")) is None
    parts.looks.drop_model("m")
    assert parts.looks.known(_image()) is None


def test_look_limit_that_comes_first_is_no_answer(parts):
    parts.engine.may_go.clear()
    assert parts.looks.look(_image(), TimeLimit(0.2)) is None
    parts.engine.may_go.set()
