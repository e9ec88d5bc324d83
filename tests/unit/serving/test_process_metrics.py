"""What a server process tells of itself: caches as they were asked, GPUs where there are some."""

import sys
import time
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from maskloop.hit_counter import HitCounter
from maskloop_studio.services import Services
from maskloop_studio.serving.process_metrics import AnswerTimes, ProcessMetrics, gpu_memory

GPUS = [("cuda:0", 10, 20, 30, 50)]


@pytest.fixture
def services(settings):
    made = Services(settings)
    yield made
    made.close()


def _text(services, **options):
    registry = CollectorRegistry()
    registry.register(ProcessMetrics(services, **options))
    return generate_latest(registry).decode()


def test_collect_makes_no_part_that_is_not_there(services):
    text = _text(services)
    assert 'maskloop_cache_requests_total{cache="images",result="hit"} 0.0' in text
    assert "maskloop_models_held 0.0" in text
    assert not {"engine", "fetcher", "looks", "store"} & services.__dict__.keys()


def test_uploads_that_the_cache_has_are_hits(services, monkeypatch):
    fetcher = services.fetcher
    monkeypatch.setattr(fetcher, "_is_upload", lambda _: True)
    monkeypatch.setattr(fetcher._downloader, "download", lambda *_: b"image")
    for _ in range(3):
        assert fetcher.fetch("http://studio.test/data/upload/1/a.png") == b"image"
    text = _text(services)
    assert 'maskloop_cache_requests_total{cache="images",result="hit"} 2.0' in text
    assert 'maskloop_cache_requests_total{cache="images",result="miss"} 1.0' in text


def test_model_shapes_are_told_by_engine(services):
    class Cache:
        counts = (0, 0)

    engine = SimpleNamespace(
        model_lookups=Cache, held=("a",), queued=2, shape_engines={"openvino": 3, "trial": 1, "torch": 0}
    )
    services.__dict__["engine"] = engine
    try:
        text = _text(services)
    finally:
        del services.__dict__["engine"]
    told = {line for line in text.splitlines() if line.startswith("maskloop_model_shapes")}
    assert told == {
        f'maskloop_model_shapes{{engine="{name}"}} {float(count)}'
        for name, count in engine.shape_engines.items()
    }


def test_gpus_are_told_by_device_and_state(services):
    text = _text(services, devices=lambda: GPUS)
    assert 'maskloop_gpu_memory_bytes{device="cuda:0",state="reserved"} 20.0' in text
    assert text.count("maskloop_gpu_memory_bytes{") == 4


@pytest.mark.parametrize(
    ("in_use", "expected"),
    [
        pytest.param(True, [("cuda:0", 10, 20, 30, 40), ("cuda:1", 11, 21, 31, 41)], id="in use"),
        pytest.param(False, [], id="not initialised"),
    ],
)
def test_gpu_memory_asks_torch_of_each_gpu_in_use(monkeypatch, in_use, expected):
    cuda = SimpleNamespace(
        is_initialized=lambda: in_use,
        device_count=lambda: 2,
        memory_allocated=lambda index: 10 + index,
        memory_reserved=lambda index: 20 + index,
        mem_get_info=lambda index: (30 + index, 40 + index),  # free, total: torch's order
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu_memory() == expected


def test_gpu_memory_without_torch_is_none_and_imports_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert gpu_memory() == []
    assert "torch" not in sys.modules


def test_answers_are_timed_by_kind_and_failures_are_not():
    registry = CollectorRegistry()
    times = AnswerTimes(registry)
    with times.measure(is_click=True):
        time.sleep(0.001)
    with pytest.raises(ValueError, match="no"), times.measure(is_click=False):
        raise ValueError("no")
    text = generate_latest(registry).decode()
    assert 'maskloop_answer_seconds_count{kind="click"} 1.0' in text
    assert 'maskloop_answer_seconds_count{kind="prediction"} 0.0' in text


def test_hit_counter_counts_both():
    counter = HitCounter()
    for found in (True, False, True):
        counter.note(found)
    assert counter.counts == (2, 1)
