"""Notices over a real HTTP server on loopback: once each, signed, tried again, never to private addresses."""

import dataclasses
import hashlib
import hmac
import json
from datetime import timedelta

import pytest
from pydantic import SecretStr
from tests.fakes.http_host import run_host

from maskloop.settings import Settings
from maskloop.store import notices as notices_module
from maskloop.store.database import Store
from maskloop.store.jobs import JobKind, JobStatus
from maskloop_studio.runtime.notify import _client, note_disk, note_end, note_lost, send_due, signature

OUTCOME = {"release": "refused", "version": "maskloop-1-v2", "reason": "<!channel> no better", "loss": 1}


@pytest.fixture
def notices(store, monkeypatch):
    """The outbox, whose notices are due again at once."""
    monkeypatch.setattr(notices_module, "FIRST_PAUSE", timedelta(0))
    monkeypatch.setattr(notices_module, "CLAIM", timedelta(0))
    return store.notices


@pytest.fixture
def receiver():
    with run_host() as host:
        host.pages["/hook"] = (200, {}, b"ok")
        yield host


def _settings(settings, receiver, **changes):
    url = SecretStr(f"{receiver.url}/hook")
    values = {"notify_url": url, "allow_private_notify": True} | changes
    return Settings(home=settings.home, **values)


def _send(settings, notices):
    with _client(settings) as client:
        return send_due(client, settings, notices)


def _job(store, kind=JobKind.TRAINING):
    return store.jobs.get(store.jobs.request(kind, 1, "maskloop train"))


def test_verdict_is_posted_once_with_text_and_facts(store, notices, settings, receiver):
    job = _job(store)
    assert [note_end(job, JobStatus.DONE, OUTCOME, notices) for _ in range(2)] == [True, False]
    assert [_send(_settings(settings, receiver), notices) for _ in range(2)] == [1, 0]
    (seen,) = receiver.seen
    body = json.loads(seen.body)
    assert body["text"] == "maskloop: project 1: maskloop-1-v2 refused: &lt;!channel&gt; no better"
    assert (body["event"], body["project"], body["facts"]["version"]) == ("refused", 1, "maskloop-1-v2")


def test_receiver_that_fails_gets_it_again_until_it_is_given_up(store, notices, settings, receiver):
    note_end(_job(store), JobStatus.DONE, OUTCOME, notices)
    receiver.failures[:] = [500, 0]  # then it answers
    assert _send(_settings(settings, receiver), notices) == 1
    assert len({json.loads(one.body)["id"] for one in receiver.seen}) == 1
    note_end(_job(store), JobStatus.DONE, OUTCOME | {"release": "waiting"}, notices)
    receiver.pages["/hook"] = (302, {"Location": "/elsewhere"}, b"")
    assert _send(_settings(settings, receiver), notices) == 0
    assert notices.claim() is None
    assert "/elsewhere" not in receiver.paths


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"])
def test_private_addresses_get_nothing_unless_allowed(notices, settings, receiver, host):
    port = receiver.url.rpartition(":")[2]
    notices.put("failed", "text", key="k", facts={})
    url = SecretStr(f"http://{host}:{port}/hook")
    assert _send(_settings(settings, receiver, notify_url=url, allow_private_notify=False), notices) == 0
    assert receiver.seen == []


def test_signature_is_hmac_of_time_and_body():
    expected = hmac.new(b"key", b'17.{"a":1}', hashlib.sha256).hexdigest()
    assert signature(b'{"a":1}', "key", at=17) == f"t=17,v1={expected}"


def test_failed_lost_and_full_disk_are_noted_once_and_other_ends_not(store, notices, settings):
    job = dataclasses.replace(_job(store), error="CUDA")
    sync = _job(store, JobKind.SYNC)
    assert note_end(job, JobStatus.DEAD, None, notices)
    assert not note_end(sync, JobStatus.DEAD, None, notices)
    assert not note_end(job, JobStatus.WAITING, None, notices)
    assert [note_lost(job, notices) for _ in range(2)] == [True, False]
    settings.home.mkdir(exist_ok=True)
    assert not note_disk(settings, notices)
    full = Settings(home=settings.home, min_free_disk_bytes=2**60)
    assert [note_disk(full, notices) for _ in range(2)] == [True, False]


def test_claimed_notice_is_left_alone_by_another_sender(store, database_url):
    store.notices.put("failed", "text", key="k", facts={})
    other = Store(database_url)
    assert (store.notices.claim() is not None, other.notices.claim()) == (True, None)
    other.close()
