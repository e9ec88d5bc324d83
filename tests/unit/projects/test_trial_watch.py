"""A trial ends by itself: a worse version is rolled back, with record and notice, once."""

import pytest
from pydantic import SecretStr
from tests.fakes.looped_project import CONFIG, PROJECT, make_services

from maskloop.errors import StoreError
from maskloop.learning.evaluation.trial import Verdict, is_old_versions
from maskloop.learning.registry import CHAMPION
from maskloop.settings import Settings
from maskloop.store.annotations import AnnotationSnapshot
from maskloop.store.corrections import DerivedMasks
from maskloop.store.sessions import now
from maskloop.types import EditCounts
from maskloop_studio.projects.trial_watch import check_trial

NAME = f"maskloop-{PROJECT}"
OLD, NEW = f"{NAME}-v1", f"{NAME}-v2"
GOOD, BAD = EditCounts(kept=4), EditCounts(kept=1, changed=3, redrawn=3)


@pytest.fixture
def services(tmp_path):
    made = make_services(Settings(home=tmp_path / "home", notify_url=SecretStr("http://hooks.test/x")))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    for parent in (None, 1, 2):
        made.registry.register(NAME, folder, labels=["a"], metrics=None, parent=parent)
    made.registry.promote(NAME, 1, reason="first")
    made.registry.promote(NAME, 2, reason="judged better")
    made.store.projects.save(PROJECT, CONFIG)
    yield made
    made.close()


def _annotate(services, tasks, *, old=GOOD, new=GOOD):
    """Annotate tasks, each as the version that draws it left it to be edited."""
    for task in tasks:
        is_old = is_old_versions(task, NEW)
        edits = old if is_old else new
        saved = services.store.annotations.save(
            AnnotationSnapshot(
                annotation_id=1000 + task,
                project_id=PROJECT,
                task_id=task,
                updated_at=now(),
                state="submitted",
                content={"result": []},
                label_config="<View/>",
                split="train",
                read_at=now(),
            )
        )
        masks = DerivedMasks(
            image_key="k",
            image_uri="",
            size_hw=(8, 8),
            segments=(),
            edits=edits,
            model_version=OLD if is_old else NEW,
            label_edits={"a": edits},
        )
        services.store.corrections.save(saved.version_id, masks)


@pytest.fixture
def on_trial(services):
    _annotate(services, range(1, 30), new=BAD)  # before the trial: does not count
    last = services.store.corrections.last_version(PROJECT)
    assert services.store.trials.begin(PROJECT, new=NEW, old=OLD, after_version=last)
    return services


def _champion(services):
    return services.registry.alias(NAME, CHAMPION)


def test_worse_version_is_rolled_back_with_record_and_notice(on_trial):
    assert check_trial(PROJECT, on_trial).verdict is Verdict.OPEN
    _annotate(on_trial, range(100, 180), new=BAD)
    state = check_trial(PROJECT, on_trial)
    assert (state.verdict, state.old_share, state.new_share) == (Verdict.WORSE, 1.0, 0.25)
    assert _champion(on_trial) == 1
    (trial,) = on_trial.store.trials.of(PROJECT)
    assert (trial.verdict, trial.ended_at is not None) == ("worse", True)
    entry = on_trial.store.audit.newest(PROJECT, limit=1)[0].entry
    assert (entry.action, entry.actor.name, entry.subject) == ("rolled_back", "trial", OLD)
    assert "25% against 100% kept untouched" in entry.reason
    kinds = []
    while (notice := on_trial.store.notices.claim()) is not None:
        kinds.append(notice.kind)
    assert sorted(kinds) == ["rolled_back", "trial"]
    assert check_trial(PROJECT, on_trial) is None


def test_better_version_stays(on_trial):
    _annotate(on_trial, range(100, 180), old=BAD)
    assert check_trial(PROJECT, on_trial).verdict is Verdict.BETTER
    assert _champion(on_trial) == 2
    assert on_trial.store.trials.running(PROJECT) is None


def test_alike_versions_go_on(on_trial):
    _annotate(on_trial, range(100, 160))
    assert check_trial(PROJECT, on_trial).verdict is Verdict.OPEN
    trial = on_trial.store.trials.running(PROJECT)
    assert (trial.pairs > 10, trial.old_share, trial.new_share) == (True, 1.0, 1.0)


def test_champion_changed_by_hand_ends_the_trial_without_a_rollback(on_trial):
    on_trial.registry.promote(NAME, 3, reason="by hand")
    _annotate(on_trial, range(100, 180), new=BAD)
    check_trial(PROJECT, on_trial)
    assert _champion(on_trial) == 3
    assert on_trial.store.trials.of(PROJECT)[0].verdict == "overtaken"


def test_second_trial_takes_the_place_of_the_first_and_none_begins_twice(on_trial):
    trials = on_trial.store.trials
    assert not trials.begin(PROJECT, new=NEW, old=OLD, after_version=0)
    assert trials.begin(PROJECT, new=f"{NAME}-v3", old=NEW, after_version=0)
    assert trials.running(PROJECT).new == f"{NAME}-v3"
    assert [one.verdict for one in trials.of(PROJECT)] == ["open", "overtaken"]


def test_database_away_is_logged_and_stops_nothing(on_trial, monkeypatch, caplog):
    def away(*_arguments, **_options):
        raise StoreError("database", expected="an answer", got="none", remedy="wait")

    monkeypatch.setattr(on_trial.store.edit_rows, "read", away)
    assert check_trial(PROJECT, on_trial) is None
    assert "trial_not_checked" in caplog.text
