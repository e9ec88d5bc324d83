"""The record of a training: started once, closed on errors, never in the way of the training."""

import pytest

from maskloop.errors import RegistryError, TrainingError
from maskloop.learning.training.job import TrainingProgress
from maskloop.learning.training.run_log import RunLog


class FakeRegistry:
    """Records the calls of a run log; raises while it is unreachable."""

    def __init__(self):
        self.calls, self.unreachable = [], False

    def _record(self, *call):
        if self.unreachable:
            raise RegistryError("registry", expected="an answer", got="none", remedy="wait")
        self.calls.append(call)

    def start_run(self, name, key):
        self._record("start", name, key)
        return "run"

    def log_step(self, run_id, *, step, loss, eta_s):
        self._record(step, loss, eta_s)

    def end_run(self, run_id, *, failed):
        self._record("failed" if failed else "ended")


@pytest.fixture
def registry():
    return FakeRegistry()


def progress(step):
    return TrainingProgress(step=step, steps=9, loss=1.5, eta_s=3.0)


def failure():
    return TrainingError("training", expected="a loss", got="nan", remedy="lower the rate")


def test_run_log_records_all_steps_in_one_run(registry):
    with RunLog(registry, "model", "training-1") as run_log:
        assert run_log.run_id is None
        run_log.record(progress(1))
        run_log.record(progress(2))
    assert run_log.run_id == "run"
    assert registry.calls == [("start", "model", "training-1"), (1, 1.5, 3.0), (2, 1.5, 3.0)]


@pytest.mark.parametrize(
    ("error", "end"), [(failure(), "failed"), (KeyboardInterrupt(), "ended")], ids=["error", "interrupt"]
)
def test_run_log_left_with_an_exception_closes_the_run(registry, error, end):
    def train():
        with RunLog(registry, "model", "training-1") as run_log:
            run_log.record(progress(1))
            raise error

    with pytest.raises(type(error)):
        train()
    assert registry.calls[-1] == (end,)


def test_run_log_without_progress_makes_no_run(registry):
    with pytest.raises(TrainingError), RunLog(registry, "model", "training-1"):
        raise failure()
    assert registry.calls == []


def test_run_log_registry_unreachable_pauses_and_continues(registry):
    now_s = [0.0]
    with RunLog(registry, "model", "training-1", clock_s=lambda: now_s[0]) as run_log:
        registry.unreachable = True
        run_log.record(progress(1))
        registry.unreachable = False
        now_s[0] = 59.0
        run_log.record(progress(2))  # within the pause: no call
        assert registry.calls == []
        now_s[0] = 61.0
        run_log.record(progress(3))
    assert registry.calls == [("start", "model", "training-1"), (3, 1.5, 3.0)]
