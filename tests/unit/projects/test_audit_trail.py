"""What the audit trail holds after changes of champion, verdicts and settings; why a version serves."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from maskloop.errors import StoreError
from maskloop.learning.registry import CHAMPION
from maskloop.settings import Settings
from maskloop.store.audit import INSTALLATION, Actor, ActorKind, AuditAction
from maskloop.store.database import Store
from maskloop.store.jobs import JobKind
from maskloop.testing.memory import MemoryRegistry
from maskloop_studio import services as services_module
from maskloop_studio.cli.main import app
from maskloop_studio.projects.audit_trail import (
    command_line_actor,
    find_serving_reason,
    note_settings,
    record_moves,
    record_settings,
    record_verdict,
)

NAME = "maskloop-1"
ALICE = Actor(kind=ActorKind.COMMAND_LINE, name="alice@lab")
OUTCOME = {
    "release": "promoted",
    "version": f"{NAME}-v2",
    "base": f"{NAME}-v1",
    "reason": "better by 0.1",
    "holdout_images": 20,
    "champion_metrics": {"ap50": 0.5, "pq": 0.4, "miou": 0.6},
    "challenger_metrics": {"ap50": 0.7, "pq": 0.5, "miou": 0.65},
}


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path / 'maskloop.db'}")
    yield opened
    opened.close()


@pytest.fixture
def registry(tmp_path):
    """A registry with three versions, the first of them promoted before there was an audit trail."""
    registry = MemoryRegistry(tmp_path / "registry")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    for parent in (None, 1, 2):
        registry.register(NAME, folder, labels=["a"], metrics=None, parent=parent)
    registry.promote(NAME, 1, reason="the model of the settings")
    return registry


def _job(store, reason="maskloop train"):
    return store.jobs.get(store.jobs.request(JobKind.TRAINING, 1, reason))


def _told(store):
    return [(one.entry.action.value, one.entry.subject) for one in store.audit.newest(1, limit=20)][::-1]


def test_record_moves_copies_an_older_home_once_and_names_who_made_the_newest(store, registry):
    registry.promote(NAME, 2, reason="looks right")
    made = [record_moves(1, registry=registry, audit=store.audit, actor=ALICE) for _ in range(2)]
    assert made == [2, 0]
    newest, first = store.audit.newest(1, limit=5)
    assert (newest.entry.actor, newest.entry.reason) == (ALICE, "looks right")
    assert (first.entry.actor.kind, first.entry.facts["before"]) == (ActorKind.UNKNOWN, None)


def test_record_moves_champion_changed_past_us_is_recorded_once(store, registry):
    registry._aliases[NAME][CHAMPION] = 3
    for _ in range(2):
        record_moves(1, registry=registry, audit=store.audit)
    assert _told(store) == [("promoted", f"{NAME}-v1"), ("champion_found", f"{NAME}-v3")]
    reason = find_serving_reason(1, registry=registry, audit=store.audit)
    assert (reason.champion, reason.record.entry.action) == (f"{NAME}-v3", AuditAction.CHAMPION_FOUND)


def test_record_verdict_of_a_training_that_runs_again_is_recorded_once(store, registry):
    job = _job(store, "schedule, 9 new corrections")
    registry.promote(NAME, 2, reason=OUTCOME["reason"])
    for _ in range(2):
        record_verdict(job, OUTCOME, registry=registry, store=store)
        record_verdict(job, OUTCOME | {"release": "refused"}, registry=registry, store=store)
    assert _told(store)[1:] == [("promoted", f"{NAME}-v2"), ("refused", f"{NAME}-v2")]
    promoted = store.audit.newest(1, limit=2)[1].entry
    assert promoted.actor == Actor(kind=ActorKind.SCHEDULE, name=job.name)
    assert promoted.facts["challenger_metrics"] == OUTCOME["challenger_metrics"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"keep_versions": 4}, {"keep_versions": [None, 4]}, id="number"),
        pytest.param(
            {"label_studio_api_key": SecretStr("s3cret")},
            {"label_studio_api_key": [None, "set, not recorded"]},
            id="secret",
        ),
        pytest.param(
            {"redis_url": "redis://u:s3cret@host:1/0"},
            {"redis_url": [None, "redis://host:1/0"]},
            id="login in an address",
        ),
    ],
)
def test_record_settings_names_what_changed_without_secrets(store, settings, changes, expected):
    record_settings(settings, store.audit, actor=ALICE)
    later = Settings(home=settings.home, **changes)
    assert record_settings(later, store.audit, actor=ALICE) is (expected is not None)
    assert not record_settings(later, store.audit, actor=ALICE)
    newest = store.audit.newest(INSTALLATION, limit=1)[0]
    if expected is not None:
        assert newest.entry.facts["changed"] == expected
    assert "s3cret" not in json.dumps(newest.as_json())


def test_note_settings_compares_each_kind_of_process_with_itself(store, settings):
    def start(process, **changes):
        changed = Settings(home=settings.home, **changes)
        note_settings(SimpleNamespace(settings=changed, store=store), process=process)
        return len(store.audit.newest(INSTALLATION, limit=100))

    trainer = "a worker of train"
    assert [start("the server"), start(trainer), start("the server")] == [1, 2, 2]
    assert [start(trainer, keep_versions=4), start(trainer, keep_versions=4)] == [3, 3]
    newest = store.audit.newest(INSTALLATION, limit=1)[0].entry
    assert newest.subject.startswith(f"environment of {trainer} on ")
    assert newest.facts["changed"] == {"keep_versions": [None, 4]}


def test_note_settings_database_away_is_a_line_of_the_log(settings, caplog):
    class Away:
        @property
        def store(self):
            raise StoreError("database, open", expected="one", got="none", remedy="start it")

    Away.settings = settings
    note_settings(Away(), process="the server")
    assert "settings_not_recorded" in caplog.text


def test_command_line_actor_names_the_user_behind_sudo(monkeypatch):
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setenv("SUDO_USER", "alice")
    assert command_line_actor().name.startswith("root (sudo by alice)@")


def test_audit_command_answers_why_and_verifies(store, registry, settings, monkeypatch):
    registry.promote(NAME, 2, reason="better by 0.1")
    record_verdict(_job(store), OUTCOME, registry=registry, store=store)
    parts = services_module.Services(settings)
    parts.__dict__.update(store=store, registry=registry)
    monkeypatch.setattr(services_module, "process_services", lambda: parts)
    told = CliRunner().invoke(app, ["audit", "1", "--verify"])
    assert told.exit_code == 0, told.output
    assert f"{NAME}-v2 serves because {NAME}-v2 was promoted by maskloop training-1" in told.output
    assert "on 20 holdout images: ap50 0.500 -> 0.700" in told.output
    assert "verified: 2 records" in told.output
    known = json.loads(CliRunner().invoke(app, ["audit", "1", "--json"]).output)
    assert known["because"]["facts"]["started_by"] == "maskloop train"
    broken = dataclasses.replace(store.audit.verify(1), trouble="record 2: its text or its hash was changed")
    monkeypatch.setattr(store.audit, "verify", lambda *_args, **_more: broken)
    assert CliRunner().invoke(app, ["audit", "1", "--verify"]).exit_code == 1
