"""Services that prelabel a Label Studio in memory."""

import pytest
from tests.fakes.prelabel_studio import FakePipeline, PrelabelStudio, by_confidence, register_versions

from maskloop.testing.memory import MemoryQueue, MemoryRegistry
from maskloop_studio.prelabel import push as pushing
from maskloop_studio.prelabel import score as scoring
from maskloop_studio.projects.training import model_name
from maskloop_studio.services import Services


@pytest.fixture
def studio():
    return PrelabelStudio()


@pytest.fixture
def images():
    return FakePipeline()


@pytest.fixture
def predicted(images):
    """The tasks that were predicted, in order."""
    return images.predicted


@pytest.fixture
def services(settings, studio, images, tmp_path, monkeypatch):
    monkeypatch.setattr(pushing, "DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(scoring, "POLL_S", 0.01)
    chosen = {"random_share": 0.0, "clusters": 4, "strategy": f"{by_confidence.__module__}:by_confidence"}
    made = Services(settings.model_copy(update=chosen))
    made.queue = MemoryQueue()
    made.client = studio
    made.images = images
    made.registry = MemoryRegistry(tmp_path / "registry")
    register_versions(made.registry, model_name(1), tmp_path / "checkpoint")
    yield made
    made.close()
