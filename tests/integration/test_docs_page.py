"""/docs works without a network: everything that it loads comes from the server itself."""

import re

import pytest
from fastapi.testclient import TestClient

from maskloop_studio.services import Services
from maskloop_studio.serving.app import create_app


@pytest.fixture
def client(settings):
    with TestClient(create_app(Services(settings))) as opened:
        yield opened


def _loaded(page):
    """Return what a browser loads for the page: scripts, styles, icons, and the description of the API."""
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    return [*links, *re.findall(r"url: '([^']*)'", page)]


def test_docs_page_loads_own_files_only(client):
    page = client.get("/docs").text
    loaded = _loaded(page)
    assert {path.rpartition(".")[2] for path in loaded} == {"js", "css", "png", "json"}
    assert [path for path in loaded if not re.match(r"/[^/]", path)] == []
    answers = {path: client.get(path) for path in loaded}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(loaded, 200)
    assert "//" not in page  # no address of another host in its scripts either


def test_docs_script_is_swagger_ui_for_this_openapi(client):
    (script,) = (path for path in _loaded(client.get("/docs").text) if path.endswith(".js"))
    answer = client.get(script)
    assert "javascript" in answer.headers["Content-Type"]
    assert "SwaggerUIBundle" in answer.text
    # Swagger UI reads OpenAPI 3.1 since version 5.
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "openapi31" in answer.text.lower().replace(".", "").replace("_", "")
