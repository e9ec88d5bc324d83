"""Audit entries that the database could not take are recorded later, once each, in their order."""

import json

import pytest

from maskloop.errors import StoreError
from maskloop.store.audit import Actor, ActorKind, AuditAction, AuditEntry
from maskloop.store.database import Store
from maskloop_studio.projects.audit_trail import record

ALICE = Actor(kind=ActorKind.DASHBOARD, name="alice")


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path / 'maskloop.db'}", audit_folder=tmp_path / "audit-outbox")
    yield opened
    opened.close()


def _entry(subject, **changes):
    return AuditEntry(project_id=1, action=AuditAction.DELETED, actor=ALICE, subject=subject, **changes)


def _away(*_arguments, **_options):
    raise StoreError("database", expected="an answer", got="none", remedy="wait")


def test_record_database_away_is_recorded_later_with_its_time(store, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(store.audit, "append", _away)
        for subject in ("first", "second"):
            record(_entry(subject, facts={"n": 1}), store)
        assert store.audit_outbox.waiting() == 2
        with pytest.raises(StoreError):
            store.audit_outbox.deliver(store.audit)
        assert store.audit_outbox.waiting() == 2
    assert store.audit_outbox.deliver(store.audit) == 2
    second, first = (one.entry for one in store.audit.newest(1, limit=5))
    assert [first.subject, second.subject] == ["first", "second"]
    assert first.facts["n"] == 1
    assert first.facts["happened_at"] <= second.facts["happened_at"]
    assert (store.audit_outbox.waiting(), store.audit_outbox.deliver(store.audit)) == (0, 0)
    assert store.audit.verify(1).intact


def test_deliver_killed_before_the_file_is_gone_records_once(store, tmp_path):
    store.audit_outbox.keep(_entry("first"))
    (path,) = (tmp_path / "audit-outbox").glob("*.json")
    content = path.read_bytes()
    assert store.audit_outbox.deliver(store.audit) == 1
    path.write_bytes(content)
    assert store.audit_outbox.deliver(store.audit) == 0
    assert (len(store.audit.newest(1, limit=5)), path.exists()) == (1, False)


DAMAGED = [
    pytest.param(b"", id="empty"),
    pytest.param(b"{", id="half"),
    pytest.param(b"[1]", id="no table"),
    pytest.param(b'{"project_id": 1}', id="fields missing"),
    pytest.param(json.dumps({"actor": 3, "action": "x"}).encode(), id="unknown action"),
    pytest.param(b"\xff\xfe", id="no text"),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_deliver_damaged_file_is_set_aside_and_others_go_on(store, tmp_path, content):
    folder = tmp_path / "audit-outbox"
    store.audit_outbox.keep(_entry("good"))
    (folder / "0.json").write_bytes(content)
    assert store.audit_outbox.deliver(store.audit) == 1
    assert [path.name for path in folder.iterdir()] == ["0.json.damaged"]


def test_record_without_a_folder_is_logged_only(tmp_path, monkeypatch, caplog):
    opened = Store(f"sqlite:///{tmp_path / 'maskloop.db'}")
    monkeypatch.setattr(opened.audit, "append", _away)
    record(_entry("first"), opened)
    opened.close()
    assert "audit_not_recorded" in caplog.text
