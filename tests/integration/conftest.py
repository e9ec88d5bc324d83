"""A real Valkey, and services on a home of their own."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from redis import Redis

from maskloop.queue.valkey import EmbeddedBroker, connect_queue
from maskloop.settings import Settings
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.services import Services

# It runs in the environment of label-studio-ml: test_label_studio_ml_host.py starts it there.
collect_ignore = [] if find_spec("label_studio_ml") else ["test_ml_backend_app.py"]


@pytest.fixture
def broker(settings: Settings) -> Iterator[EmbeddedBroker]:
    started = EmbeddedBroker(settings)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def connection(settings: Settings, broker: EmbeddedBroker) -> Iterator[Redis]:
    client = connect_queue(settings)
    yield client
    client.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights: what it says is nonsense, that it answers is not."""
    from maskloop.lab.tiny_models import build_tiny_mask2former
    from maskloop.segmentation.checkpoint import save_checkpoint

    checkpoint = build_tiny_mask2former(("Airplane", "Car"), seed=0)
    return save_checkpoint(checkpoint, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def make_services(settings: Settings, tiny_model: Path) -> Iterator[Callable[..., Services]]:
    """Services on SQLite and a queue in memory; `changes` are settings."""
    made: list[Services] = []

    def make(**changes: object) -> Services:
        services = Services(settings.model_copy(update={"model": str(tiny_model)} | changes))
        services.queue = MemoryQueue()
        made.append(services)
        return services

    yield make
    for services in made:
        services.close()
