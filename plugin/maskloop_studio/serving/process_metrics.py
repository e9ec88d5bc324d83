"""What this server process itself has to tell Prometheus: caches, models, GPU memory, times of answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from maskloop.tracing import span

if TYPE_CHECKING:
    from maskloop_studio.services import Services

__all__ = ["AnswerTimes", "ProcessMetrics", "gpu_memory"]

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0)


class AnswerTimes:
    """Times of clicks and of predictions apart from each other; they share a route."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "maskloop_answer_seconds",
            "Time to answer a prediction request that was answered, waiting for a thread included",
            ["kind"],
            buckets=SECONDS,
            registry=registry,
        )
        self._of_kind = {True: seconds.labels("click"), False: seconds.labels("prediction")}

    @contextmanager
    def measure(self, *, is_click: bool) -> Iterator[None]:
        """Note the time of the block, where it ends without an error; with tracing, also as a span."""
        started = time.perf_counter()
        with span("click" if is_click else "predict"):
            yield
        self._of_kind[is_click].observe(time.perf_counter() - started)


class ProcessMetrics(Collector):
    """Figures of this process; reading them makes nothing that the process has not made yet.

    Args:
        services: those of the process.
        devices: (name, allocated, reserved, free, total) in bytes of each GPU that is in use.
    """

    def __init__(
        self, services: Services, *, devices: Callable[[], list[tuple[str, int, int, int, int]]] | None = None
    ) -> None:
        self._services, self._devices = services, devices or gpu_memory

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: the parts may not be there yet."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        made = self._services.__dict__
        caches = CounterMetricFamily(
            "maskloop_cache_requests", "Look-ups in caches of this server", labels=("cache", "result")
        )
        counters = {
            "features": made["looks"].lookups if "looks" in made else None,
            "images": made["fetcher"].lookups if "fetcher" in made else None,
            "models": made["engine"].model_lookups if "engine" in made else None,
        }
        for name, counter in counters.items():
            hits, misses = (0, 0) if counter is None else counter.counts
            caches.add_metric((name, "hit"), hits)
            caches.add_metric((name, "miss"), misses)
        yield caches
        engine = made.get("engine")
        yield GaugeMetricFamily(
            "maskloop_models_held", "Models in memory", value=0 if engine is None else len(engine.held)
        )
        yield GaugeMetricFamily(
            "maskloop_images_queued",
            "Images that wait for the model",
            value=0 if engine is None else engine.queued,
        )
        shapes = GaugeMetricFamily(
            "maskloop_model_shapes",
            "Frequent input shapes of models on the CPU, by what answers them",
            labels=("engine",),
        )
        for name, count in ({} if engine is None else engine.shape_engines).items():
            shapes.add_metric((name,), count)
        yield shapes
        memory = GaugeMetricFamily(
            "maskloop_gpu_memory_bytes",
            "Memory of the GPUs that this server uses",
            labels=("device", "state"),
        )
        for device, *amounts in self._devices():
            for state, amount in zip(("allocated", "reserved", "free", "total"), amounts, strict=True):
                memory.add_metric((device, state), amount)
        yield memory


def gpu_memory() -> list[tuple[str, int, int, int, int]]:
    """Return (device, allocated, reserved, free, total) in bytes of each GPU; none where none is in use.

    torch is not imported for it, and no GPU is initialised.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [
        (
            f"cuda:{index}",
            torch.cuda.memory_allocated(index),
            torch.cuda.memory_reserved(index),
            *torch.cuda.mem_get_info(index),
        )
        for index in range(torch.cuda.device_count())
    ]
