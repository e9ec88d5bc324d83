"""Drift of a project from its rows: told once, with the tasks to label; nothing where all is alike."""

import numpy as np
import pytest
from pydantic import SecretStr
from tests.fakes.looped_project import CONFIG, PROJECT, annotate, make_services

from maskloop.errors import StoreError
from maskloop.learning.evaluation.showing import Showing, read_showing, write_showing
from maskloop.settings import Settings
from maskloop.store.scores import ScoredTask
from maskloop_studio.projects.drift_watch import check_drift

TAG = f"maskloop-{PROJECT}-v1"


@pytest.fixture
def services(tmp_path):
    made = make_services(Settings(home=tmp_path / "home", notify_url=SecretStr("http://hooks.test/x")))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    write_showing(folder, Showing(holdout_shares=tuple(np.linspace(0, 0.3, 40).tolist())))
    made.registry.register(f"maskloop-{PROJECT}", folder, labels=["a"], metrics=None, parent=None)
    made.registry.promote(f"maskloop-{PROJECT}", 1, reason="first")
    made.store.projects.save(PROJECT, CONFIG)
    yield made
    made.close()


def _predict(services, tasks, *, centre=0, confidence=0.8, labelled=False, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for task in tasks:
        embedding = np.eye(1, 16, centre, dtype=np.float32)[0] + 0.2 * rng.standard_normal(16)
        sure = float(np.clip(confidence + 0.05 * rng.standard_normal(), 0, 1))
        rows.append(
            ScoredTask(
                task_id=task,
                confidence=sure,
                signals={},
                embedding_d=embedding.astype(np.float32),
                labelled=labelled,
            )
        )
    services.store.scores.add(PROJECT, TAG, rows)


@pytest.fixture
def steady(services):
    """Twenty learnt images, eight of the holdout, 150 new ones that are alike."""
    for task in range(1, 21):
        annotate(services, task)
    for task in range(21, 29):
        annotate(services, task, split="holdout")
    _predict(services, range(1, 29), labelled=True, seed=1)
    _predict(services, range(100, 250), seed=2)
    return services


def _states(services):
    return {one.signal: one for one in check_drift(PROJECT, services)}


def _told(services):
    found = []
    while (notice := services.store.notices.claim()) is not None:
        found.append(notice)
    return found


def test_alike_images_raise_no_alarm(steady):
    states = _states(steady)
    assert {name: one.alarms for name, one in states.items()} == {"images": 0, "scores": 0, "corrections": 0}
    assert (states["images"].known, states["images"].images) == (8, 150)
    assert states["corrections"].known == 40
    assert _told(steady) == []


DRIFTS = [
    pytest.param({"centre": 3}, {"images"}, id="unlike images"),
    pytest.param({"confidence": 0.4}, {"scores"}, id="unsure"),
    pytest.param({"confidence": 1.0}, {"scores"}, id="surer"),
]


@pytest.mark.parametrize(("change", "signals"), DRIFTS)
def test_drift_is_told_once_within_a_hundred_with_tasks_to_label(steady, change, signals):
    _states(steady)
    _predict(steady, range(300, 400), seed=3, **change)
    states = _states(steady)
    assert {name for name, one in states.items() if one.alarms} == signals
    (name,) = signals
    assert 150 < states[name].first_alarm <= 250
    late = [task for task in states[name].tasks if task >= 300]
    assert len(late) >= 0.7 * len(states[name].tasks) > 0
    (notice,) = _told(steady)
    assert (notice.kind, notice.facts["signal"]) == ("drift", name)
    assert str(states[name].tasks[0]) in notice.text
    assert _states(steady) == states
    assert _told(steady) == []


def test_more_corrections_than_the_holdout_promised_are_told(steady):
    for task in range(500, 560):  # each has 2 of 6 regions kept
        annotate(steady, task, model_version=TAG)
    states = _states(steady)
    assert states["corrections"].alarms
    assert "than the holdout promised" in _told(steady)[0].text


def test_project_without_a_champion_or_images_has_no_drift(services):
    assert {one.images for one in check_drift(PROJECT, services)} == {0}
    assert check_drift(99, services) == ()


def test_database_away_is_logged_and_stops_nothing(services, monkeypatch, caplog):
    def away(*_arguments, **_options):
        raise StoreError("database", expected="an answer", got="none", remedy="wait")

    monkeypatch.setattr(services.store.drifts, "of", away)
    assert check_drift(PROJECT, services) == ()
    assert "drift_not_measured" in caplog.text


def test_shares_of_the_holdout_are_read_as_written(tmp_path):
    write_showing(tmp_path, Showing(holdout_shares=(0.5, 0.25)))
    assert read_showing(tmp_path).holdout_shares == (0.5, 0.25)
