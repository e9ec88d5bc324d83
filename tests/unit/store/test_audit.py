"""The audit trail's chain: hashes against hashlib, every way of tampering by table, appends at once."""

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from maskloop.store.audit import Actor, ActorKind, AuditAction, AuditEntry
from maskloop.store.database import Store

ALICE = Actor(kind=ActorKind.COMMAND_LINE, name="alice@lab")


def _entry(subject="m-v1", **changes):
    values = {"project_id": 1, "action": AuditAction.PROMOTED, "actor": ALICE, "subject": subject}
    return AuditEntry(**(values | changes))


def _run(url, statement, **values):
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            rows = connection.execute(text(statement), values)
            return rows.all() if rows.returns_rows else []
    finally:
        engine.dispose()


def _drop_triggers(url):
    on = " ON audit_records" if url.startswith("postgresql") else ""
    for event in ("update", "truncate") if on else ("update", "delete"):
        _run(url, f"DROP TRIGGER audit_records_no_{event}{on}")


@pytest.fixture
def chain(store, database_url):
    """Five records of project 1 in a database whose triggers were dropped by somebody with all rights."""
    for number in range(1, 6):
        store.audit.append(_entry(f"m-v{number}", key=f"k{number}"))
    _drop_triggers(database_url)
    return store.audit


def test_append_makes_a_chain_that_hashlib_confirms(store, database_url):
    for number in (1, 2, 3):
        store.audit.append(_entry(f"m-v{number}", reason="größer \x00", facts={"nan": math.nan, "ap": 0.5}))
    before = "0" * 64
    rows = _run(database_url, "SELECT number, record, digest FROM audit_records ORDER BY number")
    for expected, (number, record, digest) in enumerate(rows, start=1):
        assert (number, json.loads(record)["before"]) == (expected, before)
        before = hashlib.sha256(record.encode("ascii")).hexdigest()
        assert digest == before
    check = store.audit.verify(1)
    assert (check.intact, check.records, check.head) == (True, 3, before)
    newest = store.audit.newest(1, limit=1)[0]
    assert (newest.entry.facts, newest.entry.reason) == ({"nan": None, "ap": 0.5}, "größer \x00")


@pytest.mark.parametrize(
    ("statement", "expected", "good"),
    [
        pytest.param(
            "UPDATE audit_records SET record = replace(record, 'alice', 'mallo') WHERE number = 3",
            "record 3: its text or its hash was changed",
            2,
            id="text",
        ),
        pytest.param(
            "UPDATE audit_records SET digest = (SELECT digest FROM audit_records WHERE number = 1) "
            "WHERE number = 3",
            "record 3: its text or its hash was changed",
            2,
            id="hash",
        ),
        pytest.param(
            "UPDATE audit_records SET record = '[' WHERE number = 3", "record 3: its text", 2, id="no JSON"
        ),
        pytest.param("UPDATE audit_records SET key = 'x' WHERE number = 3", "record 3: belongs", 2, id="key"),
        pytest.param("DELETE FROM audit_records WHERE number = 1", "record 1: missing", 0, id="first gone"),
        pytest.param("DELETE FROM audit_records WHERE number = 3", "record 3: missing", 2, id="one gone"),
        pytest.param(
            "UPDATE audit_records SET number = number + 1 WHERE number = 5",
            "record 5: missing",
            4,
            id="moved",
        ),
        pytest.param(
            "UPDATE audit_records SET record = (SELECT record FROM audit_records WHERE number = 2), "
            "digest = (SELECT digest FROM audit_records WHERE number = 2) WHERE number = 4",
            "record 4: does not follow",
            3,
            id="copied",
        ),
    ],
)
def test_verify_tampered_chain_names_the_first_break(chain, database_url, statement, expected, good):
    _run(database_url, statement)
    check = chain.verify(1)
    assert not check.intact
    assert check.trouble.startswith(expected)
    assert check.records == good
    assert len(chain.newest(1, limit=9)) >= 3  # what can be read still is


def test_verify_rewritten_record_with_a_fitting_hash_breaks_at_the_next_one(chain, database_url):
    ((record,),) = _run(database_url, "SELECT record FROM audit_records WHERE number = 3")
    forged = record.replace("alice", "mallo")
    digest = hashlib.sha256(forged.encode()).hexdigest()
    _run(
        database_url, "UPDATE audit_records SET record = :r, digest = :d WHERE number = 3", r=forged, d=digest
    )
    assert chain.verify(1).trouble == "record 4: does not follow from the record before it"


def test_verify_end_cut_off_is_found_by_the_head_alone(chain, database_url):
    head = chain.verify(1).head
    assert chain.verify(1, head=head).intact
    _run(database_url, "DELETE FROM audit_records WHERE number = 5")
    assert chain.verify(1).intact
    assert "records are missing or were made anew" in chain.verify(1, head=head).trouble


@pytest.mark.parametrize("statement", ["UPDATE audit_records SET key = 'x'", "DELETE FROM audit_records"])
def test_database_refuses_to_change_records(store, database_url, statement):
    store.audit.append(_entry())
    with pytest.raises(DBAPIError, match="never changed or deleted"):
        _run(database_url, statement)
    assert store.audit.verify(1).records == 1


def test_append_many_at_once_makes_one_chain_and_each_key_once(store, database_url):
    stores = [Store(database_url) for _ in range(4)]

    def append(number):
        return stores[number % 4].audit.append(_entry(key=f"k{number // 2}"))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(append, range(24)))
    for one in stores:
        one.close()
    assert (sum(made), store.audit.verify(1).records) == (12, 12)
    assert store.audit.verify(1).intact


def test_chains_of_projects_are_apart_and_pages_go_back(store):
    for number in range(1, 5):
        store.audit.append(_entry(f"m-v{number}", project_id=1 + number % 2))
    assert [one.entry.subject for one in store.audit.newest(2, limit=9)] == ["m-v3", "m-v1"]
    assert [one.number for one in store.audit.newest(2, limit=9, below=2)] == [1]
    assert store.audit.verify(3) == store.audit.verify(4)
    assert store.audit.verify(3).intact


def test_append_facts_too_large_are_left_out_and_counted(store):
    store.audit.append(_entry(facts={"classes": ["x" * 100] * 1000}, reason="r" * 5000))
    (kept,) = store.audit.newest(1, limit=1)
    assert kept.entry.facts["left_out_characters"] > 100_000
    assert len(kept.entry.reason) == 1000
