"""Who may do what, as a table of requests: host names, login, options, trainings."""

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from maskloop.errors import ConfigurationError
from maskloop_studio.labelstudio.basic_auth import backend_credentials
from maskloop_studio.serving.app import create_app, run_server
from maskloop_studio.serving.http.host_check import check_exposure

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Car"/></BrushLabels></View>'
)
SETUP = {"project": "1.17", "schema": CONFIG}
TRAINING = {"action": "START_TRAINING", "project": {"id": 1}}


@pytest.fixture
def services(make_services):
    made = make_services()
    made.store.projects.save(1, CONFIG)
    return made


@pytest.fixture
def client(services):
    with TestClient(create_app(services)) as opened:
        yield opened


def _login(services, kind):
    right = backend_credentials(services.settings, services.store)
    return {
        "none": None,
        "right": right,
        "wrong password": (right[0], "guess"),
        "wrong user": ("admin", right[1]),
        "empty password": (right[0], ""),
    }[kind]


@pytest.mark.parametrize(
    ("login", "extra_params", "status"),
    [
        pytest.param("none", None, 200, id="no options"),
        pytest.param("none", {"a": 1}, 200, id="options of others"),
        pytest.param("none", {"score_threshold": 0.1}, 401, id="options"),
        pytest.param("wrong password", {"score_threshold": 0.1}, 401, id="options, wrong password"),
        pytest.param("wrong user", {"score_threshold": 0.1}, 401, id="options, wrong user"),
        pytest.param("empty password", {"score_threshold": 0.1}, 401, id="options, empty password"),
        pytest.param("right", {"score_threshold": 0.1}, 200, id="options with credentials"),
        pytest.param("none", {"train_cron": "* * * * *"}, 401, id="a schedule"),
    ],
)
def test_setup_options_need_the_credentials_of_connect(client, services, login, extra_params, status):
    body = SETUP | {"extra_params": extra_params}
    answer = client.post("/setup", json=body, auth=_login(services, login))
    assert answer.status_code == status, answer.text
    is_kept = bool(services.store.projects.options(1))
    assert is_kept is (login == "right")
    if status == 401:
        assert "maskloop connect" in answer.json()["error"]


def test_setup_options_that_are_kept_already_need_no_credentials(client, services):
    body = SETUP | {"extra_params": {"score_threshold": 0.1}}
    assert client.post("/setup", json=body, auth=_login(services, "right")).status_code == 200
    assert client.post("/setup", json=body).status_code == 200
    assert client.post("/setup", json=SETUP).status_code == 401, "nor may an outsider take them away"


def test_setup_without_credentials_of_a_connected_project_is_logged_once(client, services, caplog):
    for login in ("right", "none", "none"):
        client.post("/setup", json=SETUP, auth=_login(services, login))
    client.post("/setup", json=SETUP | {"project": "2.1"})
    lines = [record for record in caplog.records if "setup_without_credentials" in record.getMessage()]
    assert len(lines) == 1
    assert "maskloop connect 1" in lines[0].getMessage()


@pytest.mark.parametrize(
    ("login", "secret", "project", "status"),
    [
        pytest.param("none", None, 1, 401, id="nothing"),
        pytest.param("wrong password", None, 1, 401, id="wrong password"),
        pytest.param("wrong user", None, 1, 401, id="wrong user"),
        pytest.param("right", None, 1, 200, id="credentials"),
        pytest.param("right", None, 2, 403, id="credentials, foreign project"),
        pytest.param("none", "right", 1, 200, id="secret"),
        pytest.param("right", "guess", 1, 401, id="credentials and a wrong secret"),
    ],
)
def test_start_training_needs_the_credentials_or_the_secret(client, services, login, secret, project, status):
    right = services.store.projects.webhook_secret()
    headers = {} if secret is None else {"X-Maskloop-Secret": right if secret == "right" else secret}
    body = TRAINING | {"project": {"id": project}}
    answer = client.post("/webhook", json=body, headers=headers, auth=_login(services, login))
    assert answer.status_code == status, answer.text
    assert bool(services.store.jobs.find()) is (status == 200)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("localhost:9090", 200, id="localhost"),
        pytest.param("LOCALHOST", 200, id="capitals"),
        pytest.param("app.localhost", 200, id="below localhost"),
        pytest.param("127.0.0.1:9090", 200, id="IPv4 loopback"),
        pytest.param("[::1]:9090", 200, id="IPv6 loopback"),
        pytest.param("192.168.3.4:9090", 200, id="an address: no name can be pointed elsewhere"),
        pytest.param("bound.example:9090", 200, id="the bind host"),
        pytest.param("maskloop.internal", 200, id="of the settings"),
        pytest.param("a.wild.example", 200, id="below one of the settings"),
        pytest.param("wild.example", 400, id="not below it"),
        pytest.param("evil.example", 400, id="another name"),
        pytest.param("localhost.evil.example", 400, id="a name that begins like ours"),
        pytest.param("evil.example:80:80", 400, id="no host at all"),
        pytest.param("2130706433", 400, id="a number"),
        pytest.param("", 400, id="empty"),
    ],
)
def test_host_is_checked(make_services, host, status):
    services = make_services(allowed_hosts=("maskloop.internal", "*.wild.example"))
    with TestClient(create_app(services, bind_host="bound.example")) as client:
        answer = client.get("/health", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert "MASKLOOP_ALLOWED_HOSTS" in answer.json()["error"]


LOGIN = {"basic_auth_user": "me", "basic_auth_password": SecretStr("x")}


@pytest.mark.parametrize(
    ("host", "changes", "words"),
    [
        pytest.param("127.0.0.1", {}, "this machine only", id="loopback"),
        pytest.param("::1", {}, "this machine only", id="IPv6 loopback"),
        pytest.param("localhost", {}, "this machine only", id="localhost"),
        pytest.param("127.0.0.1", LOGIN, "with login", id="loopback, login"),
        pytest.param("0.0.0.0", LOGIN, "with login", id="network, login"),
        pytest.param("0.0.0.0", {"open": True}, "no login", id="network, open"),
        pytest.param("::", {"open": True}, "no login", id="IPv6 network, open"),
    ],
)
def test_exposure_is_said(settings, host, changes, words):
    assert words in check_exposure(settings.model_copy(update=changes), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.3.4", "maskloop.lan", ""])
def test_server_beyond_loopback_without_a_login_does_not_start(make_services, host):
    with pytest.raises(ConfigurationError, match="MASKLOOP_OPEN=true"):
        run_server(make_services(), host=host, port=0)
