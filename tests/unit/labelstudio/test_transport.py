"""Requests over a real socket: further tries, Retry-After, answers that are not Label Studio's."""

import gzip
import json
from datetime import UTC, datetime

import httpx
import pytest
from tests.unit.labelstudio.conftest import LEGACY, json_page

from maskloop.errors import ConfigurationError, StudioCause, StudioError
from maskloop_studio.labelstudio import transport
from maskloop_studio.labelstudio.client import StudioClient
from maskloop_studio.labelstudio.transport import retry_after_s

PROJECT = "/ls/api/projects/7/"
BODY = {"id": 7, "title": "seven", "label_config": "<View/>"}


@pytest.fixture
def waits(monkeypatch):
    """The pauses between tries, without the time that they take."""
    pauses = []
    monkeypatch.setattr(transport, "sleep", pauses.append)
    return pauses


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("failures", [[500], [503, 502], [0], [0, 504], [429]], ids=str)
def test_get_passing_failure_is_tried_again(host, client, failures):
    host.failures[:] = failures
    host.pages[PROJECT] = json_page(BODY)
    assert client.project(7).title == "seven"
    assert len(host.seen) == len(failures) + 1


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    ("failures", "requests", "cause"),
    [
        ([503] * 9, 3, StudioCause.SERVER),
        ([0] * 9, 3, StudioCause.UNREACHABLE),
        ([403] * 9, 1, StudioCause.FORBIDDEN),
        ([400] * 9, 1, StudioCause.REFUSED),
    ],
    ids=str,
)
def test_get_lasting_failure_is_an_error(host, client, failures, requests, cause):
    host.failures[:] = failures
    with pytest.raises(StudioError) as caught:
        client.project(7)
    assert (len(host.seen), caught.value.cause) == (requests, cause)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(("failure", "requests"), [(500, 1), (503, 1), (0, 1), (429, 2)])
def test_post_is_sent_again_only_where_it_was_not_begun(host, client, failure, requests):
    host.failures[:] = [failure]
    host.pages["/ls/api/projects/"] = json_page(BODY, 201)
    if requests == 1:
        with pytest.raises(StudioError):
            client.create_project("seven", "<View/>")
    else:
        assert client.create_project("seven", "<View/>").id == 7
    assert len(host.seen) == requests


def test_get_retry_after_is_honoured(host, client, waits):
    host.failures[:] = [json_page({}, 429, **{"Retry-After": "7"})]
    host.pages[PROJECT] = json_page(BODY)
    client.project(7)
    assert waits == [7.0]


def test_get_retry_after_beyond_the_bound_is_an_error_at_once(host, client, waits):
    host.failures[:] = [json_page({"detail": "slow down"}, 429, **{"Retry-After": "3600"})] * 2
    with pytest.raises(StudioError) as caught:
        client.project(7)
    assert (waits, len(host.seen), caught.value.cause) == ([], 1, StudioCause.RATE_LIMIT)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("Sat, 28 Nov 2026 12:01:40 GMT", 100),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0),
        ("9" * 400, 999999999),
    ],
    ids=["seconds", "date", "date that is over", "huge"],
)
def test_retry_after_s_is_read_in_both_forms(text, seconds):
    response = httpx.Response(429, headers={"Retry-After": text})
    assert retry_after_s(response, now=datetime(2026, 11, 28, 12, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "inf", "²"])
def test_retry_after_s_without_a_time_is_none(text):
    assert retry_after_s(httpx.Response(429, headers={b"Retry-After": text.encode()})) is None


@pytest.mark.parametrize(
    ("page", "cause", "words"),
    [
        pytest.param(
            (200, {"Content-Type": "text/html"}, b"<html>"), StudioCause.ADDRESS, "text/html", id="web page"
        ),
        pytest.param(
            (302, {"Location": "/user/login/?next=x"}, b""), StudioCause.ADDRESS, "/user/login/", id="login"
        ),
        pytest.param(
            (301, {"Location": "https://elsewhere/"}, b""), StudioCause.ADDRESS, "elsewhere", id="moved"
        ),
        pytest.param(json_page([]), StudioCause.ANSWER, "TypeError", id="list for an object"),
        pytest.param(json_page({"title": 1}), StudioCause.ANSWER, "KeyError", id="without id"),
        pytest.param(
            (200, {"Content-Type": "application/json"}, b"{"), StudioCause.ANSWER, "JSONDecode", id="half"
        ),
        pytest.param((200, {"Content-Type": "application/json"}, b""), StudioCause.ANSWER, "JSON", id="none"),
    ],
)
def test_get_other_answer_names_what_came(host, client, page, cause, words):
    host.pages[PROJECT] = page
    with pytest.raises(StudioError, match="GET /api/projects/7/") as caught:
        client.project(7)
    assert caught.value.cause is cause
    assert words in str(caught.value)


def test_studio_client_without_scheme_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="LABEL_STUDIO_URL"):
        StudioClient("localhost:8080", LEGACY)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1"])
def test_get_unusable_proxy_is_named(host, client, proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigurationError, match="ALL_PROXY"):
        client.project(7)
    assert host.seen == []


def _drip(host, monkeypatch):
    monkeypatch.setattr(transport, "WHOLE_S", 0.3)
    host.pages[PROJECT] = json_page({**BODY, "description": "x" * 2000})
    host.drip_s = 0.01


def _endless(host, monkeypatch):
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 2**20)
    host.pages[PROJECT] = json_page({**BODY, "description": "x" * 2**21})


def _zip_bomb(host, monkeypatch):
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 2**20)
    bomb = gzip.compress(b"[" + b" " * 2**24 + b"]")
    host.pages[PROJECT] = (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, bomb)


def _deep(host, monkeypatch):
    host.pages[PROJECT] = (200, {"Content-Type": "application/json"}, b"[" * 200_000 + b"]" * 200_000)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(_drip, "all of it within 0.3 s", id="a byte at a time"),
        pytest.param(_endless, "at most 1 MiB", id="endless"),
        pytest.param(_zip_bomb, "at most 1 MiB", id="compressed"),
        pytest.param(_deep, "Label Studio", id="deep"),
    ],
)
def test_get_hostile_answer_is_a_studio_error_in_time(host, client, monkeypatch, answer, text):
    answer(host, monkeypatch)
    with pytest.raises(StudioError, match=text) as caught:
        client.project(7)
    assert caught.value.remedy
    assert len(host.seen) == 1


def test_get_compressed_answer_is_read(host, client):
    page = gzip.compress(json.dumps(BODY).encode())
    host.pages[PROJECT] = (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, page)
    assert client.project(7).title == "seven"
