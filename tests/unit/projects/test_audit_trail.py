"""What the audit trail holds after changes of champion, verdicts and deletions; why a version serves."""

import dataclasses
import json
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from maskloop.learning.registry import CHAMPION
from maskloop.store.audit import Actor, ActorKind, AuditAction
from maskloop.store.database import Store
from maskloop.store.jobs import JobKind
from maskloop.testing.memory import MemoryQueue, MemoryRegistry
from maskloop_studio import services as services_module
from maskloop_studio.cli.main import app
from maskloop_studio.projects.audit_trail import (
    command_line_actor,
    find_serving_reason,
    record_moves,
    record_verdict,
)
from maskloop_studio.projects.champion import promote_version, prune_versions, roll_back

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


def test_command_line_actor_names_the_user_behind_sudo(monkeypatch):
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setenv("SUDO_USER", "alice")
    assert command_line_actor().name.startswith("root (sudo by alice)@")


@pytest.fixture
def ask_why(store, registry, settings, monkeypatch):
    """Return services, and what `maskloop audit` says of the version that serves."""
    parts = services_module.Services(settings.model_copy(update={"keep_versions": 1}))
    parts.__dict__.update(store=store, registry=registry, queue=MemoryQueue(), client=Mock())
    parts.client.find_project.return_value = SimpleNamespace(model_version="")
    monkeypatch.setattr(services_module, "process_services", lambda: parts)
    return parts, lambda: CliRunner().invoke(app, ["audit", "1"]).output.partition("\n\n")[0]


def _gate(parts, *, reason="maskloop train", release="promoted"):
    if release == "promoted":
        parts.registry.promote(NAME, 2, reason=OUTCOME["reason"])
    outcome = OUTCOME | {"release": release}
    record_verdict(_job(parts.store, reason), outcome, registry=parts.registry, store=parts.store)


def _refused_then_by_hand(parts):
    _gate(parts, release="refused")
    promote_version(1, 2, parts, reason="looks right", actor=ALICE)


def _rolled_back(parts):
    promote_version(1, 2, parts, actor=ALICE)
    roll_back(1, parts, reason="too many fragments", actor=ALICE)


def _promoted_then_refused(parts):
    _gate(parts)
    outcome = OUTCOME | {"release": "refused", "version": f"{NAME}-v3", "reason": "worse by 0.2"}
    record_verdict(_job(parts.store), outcome, registry=parts.registry, store=parts.store)


def _killed_before_its_record(parts):
    parts.registry.promote(NAME, 3, reason="looks right (dashboard, ann)")


def _past_us(parts):
    parts.registry._aliases[NAME][CHAMPION] = 3


WHY = {
    "first model": (lambda _: None, 1, ["by unknown history of the registry", "the model of the settings"]),
    "gate": (_gate, 2, ["by maskloop training-1", "better by 0.1", "pq 0.400 -> 0.500"]),
    "gate of a scheduled training": (
        lambda parts: _gate(parts, reason="schedule, 9 new corrections"),
        2,
        ["by schedule training-1", "on 20 holdout images"],
    ),
    "by hand after a refusal": (_refused_then_by_hand, 2, ["by command line alice@lab", "looks right"]),
    "rollback": (_rolled_back, 1, ["was rolled back by command line alice@lab", "too many fragments"]),
    "promoted, a later one refused": (
        _promoted_then_refused,
        2,
        ["by maskloop training-1", f"since then: {NAME}-v3 was refused", "worse by 0.2"],
    ),
    "killed before its record": (_killed_before_its_record, 3, ["looks right (dashboard, ann)"]),
    "changed past us": (_past_us, 3, ["was champion found by unknown the registry itself"]),
}


@pytest.mark.parametrize("case", WHY)
def test_why_a_version_serves_is_answered(ask_why, case):
    change, number, words = WHY[case]
    parts, answer = ask_why
    change(parts)
    told = answer()
    assert told.startswith(f"project 1: {NAME}-v{number} serves because {NAME}-v{number} was "), told
    assert [one for one in words if one not in told] == [], told
    assert parts.store.audit.verify(1).intact


def test_why_nothing_serves_is_answered(ask_why):
    parts, answer = ask_why
    parts.registry._aliases[NAME].clear()
    assert answer().startswith("project 1: no version serves")


def test_prune_versions_killed_at_any_deletion_has_a_record_of_each(ask_why, monkeypatch):
    parts, _ = ask_why
    for parent in (3, 4):
        parts.registry.register(
            NAME, parts.registry.get(NAME, 1).path, labels=["a"], metrics=None, parent=parent
        )
    deleted = []

    def delete(_name, number):
        deleted.append(number)
        if len(deleted) == 2:
            raise KeyboardInterrupt  # ends it here, as a kill does
        real(_name, number)

    real = parts.registry.delete
    monkeypatch.setattr(parts.registry, "delete", delete)
    with pytest.raises(KeyboardInterrupt):
        prune_versions(1, parts, actor=ALICE)
    gone = prune_versions(1, parts, actor=ALICE)
    told = [subject for action, subject in _told(parts.store) if action == "deleted"]
    assert told == [f"{NAME}-v{deleted[0]}", *gone]
    assert len(set(told)) == len(told)


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
