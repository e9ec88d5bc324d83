"""Large bodies are searched and parsed beside the event loop."""

import json
import threading

import pytest
from fastapi.testclient import TestClient

from maskloop.settings import Settings
from maskloop_studio.errors import TooLargeError
from maskloop_studio.services import Services
from maskloop_studio.serving import app as app_module
from maskloop_studio.serving.app import create_app
from maskloop_studio.serving.http.json_body import MAX_FORM_BYTES, SMALL_BYTES

LARGE = b'"' + b"a" * SMALL_BYTES + b'"'


@pytest.fixture
def client(tmp_path):
    return TestClient(create_app(Services(Settings(home=tmp_path))))


@pytest.mark.parametrize(
    ("path", "step", "body", "in_thread"),
    [
        pytest.param("/predict", "has_prompt", b'{"tasks": []}', False, id="small prediction"),
        pytest.param("/predict", "has_prompt", LARGE, True, id="large prediction"),
        pytest.param("/setup", "parse_json", b'{"project": "1"}', False, id="small form"),
        pytest.param("/setup", "parse_json", LARGE, True, id="large form"),
        pytest.param("/validate", "parse_json", b"[" * 5_000, True, id="small text, large tree"),
    ],
)
def test_body_is_read_beside_the_event_loop_where_it_is_large(
    client, monkeypatch, path, step, body, in_thread
):
    names = []

    def note(*_args, **_options):
        names.append(threading.current_thread().name)
        raise TooLargeError("here", expected="a note", got="a body", remedy="none")

    monkeypatch.setattr(app_module, step, note)
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert [name.startswith("request_") for name in names] == [in_thread]


@pytest.mark.parametrize("path", ["/setup", "/validate", "/delete", "/duplicate_model", "/job_status"])
def test_form_larger_than_any_label_config_is_refused(client, path):
    body = json.dumps({"config": "a" * MAX_FORM_BYTES}).encode()
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "at most 8 MiB" in answer.text) == (413, True)
