"""Services that prelabel a Label Studio in memory."""

import pytest
from tests.fakes.prelabel_studio import PrelabelStudio, by_confidence, predict_task, register_versions

from maskloop.testing.memory import MemoryQueue, MemoryRegistry
from maskloop_studio.prelabel import push as pushing
from maskloop_studio.prelabel import score as scoring
from maskloop_studio.projects.training import model_name
from maskloop_studio.services import Services


@pytest.fixture
def studio():
    return PrelabelStudio()


@pytest.fixture
def predicted(monkeypatch):
    """The tasks that were predicted, in order."""
    seen = []

    def predict_uris(uris, *, task_ids, **_others):
        seen.extend(task_ids)
        return [predict_task(number) for number in task_ids]

    monkeypatch.setattr(scoring, "predict_uris", predict_uris)
    return seen


@pytest.fixture
def services(settings, studio, predicted, tmp_path, monkeypatch):
    monkeypatch.setattr(pushing, "DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(scoring, "POLL_S", 0.01)
    chosen = {"random_share": 0.0, "clusters": 4, "strategy": f"{by_confidence.__module__}:by_confidence"}
    made = Services(settings.model_copy(update=chosen))
    made.queue = MemoryQueue()
    made.client = studio
    made.registry = MemoryRegistry(tmp_path / "registry")
    register_versions(made.registry, model_name(1), tmp_path / "checkpoint")
    yield made
    made.close()
