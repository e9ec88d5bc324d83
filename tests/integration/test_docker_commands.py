"""The commands of docker/compose.yaml, run as it words them, on a real PostgreSQL and a real Redis."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from tests.docker_files import DOCKER, load_compose

from maskloop.processes import end, find_free_port, spawn

SERVICES = load_compose()["services"]
PARTS = ("server", "worker", "trainer", "scheduler")
START_S = 60.0


@pytest.fixture
def part_environment(tmp_path, postgres, redis_server):
    """What a part gets from compose.yaml, with the addresses of this machine."""
    redis_server.clear()
    with postgres.database(template="template0") as url:
        yield {
            **SERVICES["server"]["environment"],
            "PATH": os.environ["PATH"],
            "MASKLOOP_HOME": str(tmp_path),
            "MASKLOOP_HOST": "127.0.0.1",
            "MASKLOOP_PORT": str(find_free_port()),
            "MASKLOOP_DATABASE_URL": url,
            "MASKLOOP_REDIS_URL": redis_server.url,
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
            "LABEL_STUDIO_URL": "http://127.0.0.1:1",
        }


def _maskloop(*arguments):
    return [sys.executable, "-m", "maskloop_studio", *arguments]


def _health(name, environment):
    """Ask as compose does; return the exit code and what was said."""
    _, _, *arguments = SERVICES[name]["healthcheck"]["test"]
    asked = subprocess.run(
        _maskloop(*arguments), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in asked.stderr
    return asked.returncode, asked.stderr


@pytest.mark.parametrize("name", PARTS)
def test_part_of_compose_gets_healthy_and_stops_when_told(name, part_environment, tmp_path):
    assert _health(name, part_environment)[0] == 1
    log_path = tmp_path / "part.log"
    part = spawn(_maskloop(*SERVICES[name]["command"]), log_path=log_path, env=part_environment)
    try:
        deadline = time.monotonic() + START_S
        while (answer := _health(name, part_environment))[0] != 0:
            assert part.poll() is None, log_path.read_text()
            assert time.monotonic() < deadline, (answer, log_path.read_text())
        if name == "server":
            _assert_asks_for_credentials(part_environment)
        part.send_signal(signal.SIGTERM)  # as `docker stop` does, to process 1 alone
        # uvicorn hands the signal on to itself when all is closed.
        assert part.wait(30) in (0, -signal.SIGTERM), log_path.read_text()
    finally:
        end(part)
    assert _health(name, part_environment)[0] == 1


def _assert_asks_for_credentials(environment):
    url = f"http://127.0.0.1:{environment['MASKLOOP_PORT']}/health"
    user, password = (environment[f"MASKLOOP_BASIC_AUTH_{part}"] for part in ("USER", "PASSWORD"))
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=(user, password)).status_code == 200


def test_databases_of_compose_are_made_by_its_script(postgres):
    passwords = ("MASKLOOP_DATABASE_PASSWORD", "LABEL_STUDIO_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD")
    variables = {name: f"it's {name}" for name in passwords}
    postgres.run("CREATE ROLE postgres SUPERUSER LOGIN")
    try:
        done = subprocess.run(
            ["bash", str(DOCKER / "postgres-init.sh")],
            env={"PATH": os.environ["PATH"], "PGHOST": str(postgres.folder), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for name in ("maskloop", "labelstudio", "mlflow"):
            owner = f"SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{name}'"
            assert postgres.ask(owner) == name
    finally:
        for name in ("maskloop", "labelstudio", "mlflow"):
            postgres.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        for name in ("maskloop", "labelstudio", "mlflow", "postgres"):
            postgres.run(f'DROP ROLE IF EXISTS "{name}"')
