"""Whether a project is there: present, missing, or unknown."""

import pytest
from tests.unit.labelstudio.conftest import LEGACY, json_page

from maskloop.errors import StudioCause
from maskloop_studio.labelstudio import transport
from maskloop_studio.labelstudio.client import StudioClient
from maskloop_studio.labelstudio.models import Presence

PROJECT = "/ls/api/projects/7/"
WHOAMI = "/ls/api/current-user/whoami"
GONE = json_page({"detail": "Not found."}, 404)


def test_project_state_answered_is_present(host, client):
    host.pages[PROJECT] = json_page({"id": 7, "title": "seven"})
    state = client.project_state(7)
    assert (state.presence, state.project.title, state.error) == (Presence.PRESENT, "seven", None)


def test_project_state_404_beside_a_working_token_is_missing(host, client):
    host.pages[PROJECT] = GONE
    assert client.project_state(7).presence is Presence.MISSING
    assert host.paths == [PROJECT, WHOAMI]


@pytest.mark.parametrize(
    ("project", "whoami", "cause"),
    [
        pytest.param((404, {}, b"<html>nginx"), None, StudioCause.ADDRESS, id="404 of a proxy"),
        pytest.param(GONE, json_page({"detail": "no"}, 401), StudioCause.TOKEN, id="token refused"),
        pytest.param(GONE, (503, {"Retry-After": "99"}, b""), StudioCause.SERVER, id="server away"),
        pytest.param(json_page({"detail": "no"}, 403), None, StudioCause.FORBIDDEN, id="forbidden"),
        pytest.param(json_page({"detail": "no"}, 401), None, StudioCause.TOKEN, id="token"),
        pytest.param(json_page({"id": None}), None, StudioCause.ANSWER, id="another form"),
    ],
)
def test_project_state_any_doubt_is_unknown(host, client, project, whoami, cause):
    host.pages[PROJECT] = project
    if whoami is not None:
        host.pages[WHOAMI] = whoami
    state = client.project_state(7)
    assert (state.presence, state.error.cause) == (Presence.UNKNOWN, cause)


def test_project_state_nothing_listens_is_unknown(monkeypatch):
    away = StudioClient("http://127.0.0.1:1", LEGACY)
    monkeypatch.setattr(transport, "TRIES", 1)
    state = away.project_state(7)
    assert (state.presence, state.error.cause) == (Presence.UNKNOWN, StudioCause.UNREACHABLE)
    away.close()
