"""Looks at images without a model, by an engine that waits where a test says so."""

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
from maskloop_studio.images.crop_looks import LookedImage
from maskloop_studio.images.image_looks import ImageLooks

MODEL = torch.nn.Identity()
FAILED = ImageError("image", expected="one", got="none", remedy="send one")


class HeldEngine:
    """Runs no model: features are made when `may_go` is set, those of crops when `crops_may_go` is."""

    def __init__(self):
        self.submitted, self.fails, self.starts_at_once = 0, False, True
        self.may_go, self.crops_may_go = threading.Event(), threading.Event()
        self.windows, self.urgent, self.futures = [], [], []
        self._threads = ThreadPoolExecutor(8)
        self.may_go.set()
        self.crops_may_go.set()

    def submit(self, images, *, source, task, use_output, is_urgent=False):
        self.submitted += 1
        window = images[0].window
        gate = self.may_go if window is None else self.crops_may_go
        future: Future = Future()
        self.windows.append(window)
        self.urgent.append(is_urgent)
        self.futures.append(future)

        def run():
            if not self.starts_at_once:
                gate.wait(20)
            if future.set_running_or_notify_cancel():  # from here on nothing cancels it
                gate.wait(20)
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
    engine, memory, cache = HeldEngine(), MemoryBudget(2**20), FeatureCache(1000)
    looks = ImageLooks(
        fetcher=fetcher, engine=engine, cache=cache, max_pixels=100, files=memory, max_file_bytes=2**16
    )
    yield SimpleNamespace(
        looks=looks, engine=engine, files=files, fetcher=fetcher, memory=memory, cache=cache
    )
    engine.may_go.set()
    engine.crops_may_go.set()


@pytest.fixture
def make_looked():
    def make(address="a", source="m"):
        return LookedImage(address=address, task_id=1, task=SegmentationTask.INSTANCE, source=source)

    return make
