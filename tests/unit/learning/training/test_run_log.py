import time

import pytest

from maskloop.errors import RegistryError, TrainingError
from maskloop.learning.training.loop import TrainingProgress
from maskloop.learning.training.run_log import TrainingJournal


class Record:
    def __init__(self):
        self.told, self.away = [], False

    def _tell(self, *words):
        if self.away:
            raise RegistryError("registry", expected="an answer", got="none", remedy="wait")
        self.told.append(words)

    def start_run(self, name, key):
        self._tell("start", name, key)
        return "run"

    def log_step(self, run_id, *, step, loss, eta_s):
        self._tell(step, loss, eta_s)

    def end_run(self, run_id, *, failed):
        self._tell("failed" if failed else "ended")


def progress(step):
    return TrainingProgress(step=step, steps=9, loss=1.5, eta_s=3.0)


def trouble():
    return TrainingError("training", expected="a loss", got="nan", remedy="lower the rate")


def test_journal_notes_steps_of_one_run():
    record = Record()
    with TrainingJournal(record, "model", "training-1") as journal:
        assert journal.run_id is None
        journal.note(progress(1))
        journal.note(progress(2))
    assert journal.run_id == "run"
    assert record.told == [("start", "model", "training-1"), (1, 1.5, 3.0), (2, 1.5, 3.0)]


@pytest.mark.parametrize(
    ("error", "word"), [(trouble(), "failed"), (KeyboardInterrupt(), "ended")], ids=["error", "interrupt"]
)
def test_journal_left_with_an_error_closes_the_run(error, word):
    def train():
        with TrainingJournal(record, "model", "training-1") as journal:
            journal.note(progress(1))
            raise error

    record = Record()
    with pytest.raises(type(error)):
        train()
    assert record.told[-1] == (word,)


def test_journal_nothing_noted_makes_no_run():
    record = Record()
    with pytest.raises(TrainingError), TrainingJournal(record, "model", "training-1"):
        raise trouble()
    assert record.told == []


def test_journal_registry_away_training_goes_on_and_rests(monkeypatch):
    record, now = Record(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    record.away = True
    with TrainingJournal(record, "model", "training-1") as journal:
        journal.note(progress(1))
        record.away = False
        now[0] = 59.0
        journal.note(progress(2))  # not asked again so soon
        assert record.told == []
        now[0] = 61.0
        journal.note(progress(3))
    assert record.told == [("start", "model", "training-1"), (3, 1.5, 3.0)]
