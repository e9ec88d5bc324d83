"""docker/ holds what it promises: pinned, nobody is root, no secret, and every command and setting exists."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pydantic import AliasChoices
from tests.docker_files import DOCKER, REPOSITORY, load_compose, load_stages, required_variables
from typer.main import get_command

from maskloop.settings import Settings
from maskloop_studio.cli.main import app

STAGES = load_stages()
SERVICES = load_compose()["services"]
OURS = ("server", "worker", "trainer", "scheduler")
TARGETS = ("cpu", "gpu", "mlflow")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY", re.IGNORECASE)
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w[\w.-]*)?")


def _setting_names():
    for name, field in Settings.model_fields.items():
        yield f"MASKLOOP_{name.upper()}"
        if isinstance(field.validation_alias, AliasChoices):
            yield from (str(choice) for choice in field.validation_alias.choices)


def _parse(command):
    """Let the command line read a command without running it."""
    group, rest = get_command(app), list(command)
    while hasattr(group, "commands"):
        group = group.commands[rest.pop(0)]
    group.make_context(group.name, rest)


def _commands():
    for name in ("cpu", "gpu"):
        stage = STAGES[name]
        assert stage.command("ENTRYPOINT") == ["maskloop"]
        yield f"{name} CMD", stage.command("CMD")
        yield f"{name} HEALTHCHECK", stage.command("HEALTHCHECK")[1:]
    for name in OURS:
        yield name, SERVICES[name]["command"]
        kind, program, *arguments = SERVICES[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "maskloop")
        yield f"{name} health", arguments


COMMANDS = dict(_commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_command_of_docker_exists_with_its_options(name):
    _parse(COMMANDS[name])


@pytest.mark.parametrize("target", TARGETS)
def test_image_is_not_root_and_stops_when_told(target):
    stage = STAGES[target]
    assert int(stage.last("USER") or "0") >= 10_000
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    assert stage.last("HEALTHCHECK")
    assert stage.command("CMD"), "the exec form, so that SIGTERM reaches it"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_stage_is_pinned_and_holds_no_secret(stage):
    assert stage.base in STAGES or PINNED.fullmatch(stage.base)
    for word, rest in stage.steps:
        assert not (word in ("ARG", "ENV") and SECRET_NAME.search(rest)), rest


def test_images_install_the_versions_that_were_tested():
    for stage in STAGES.values():
        for word, rest in stage.steps:
            installs = re.findall(r"pip install [^&]*", rest) if word == "RUN" else []
            assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs), rest


def test_images_of_maskloop_install_locked_files_by_their_hashes():
    lock = (DOCKER / "requirements.lock").read_text()
    assert "://" not in lock, "no address of a registry"
    locked = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock, re.MULTILINE))
    tested = dict(
        (re.sub(r"[-_.]+", "-", name).lower(), version)
        for name, version in re.findall(
            r"^([\w.-]+)==(\S+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE
        )
    )
    assert {name: version for name, version in locked.items() if tested.get(name, version) != version} == {}
    assert "torch" not in locked
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    for target in ("build-cpu", "build-gpu"):
        steps = [rest for word, rest in STAGES[target].steps if word == "RUN"]
        assert any("--require-hashes -r docker/requirements.lock" in rest for rest in steps)


def test_requirements_lock_holds_every_direct_dependency():
    lock = (DOCKER / "requirements.lock").read_text()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]}
    missing = {name for name in direct if not re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE)}
    assert missing == {"torch"}, "run `make lock`"


def test_context_has_what_is_copied_and_nothing_else():
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for stage in STAGES.values():
        for word, rest in stage.steps:
            if word == "COPY" and "--from" not in rest:
                copied.update(rest.split()[:-1])
    assert "*" in lines
    assert copied == let_in
    assert all((REPOSITORY / name).exists() for name in copied)


def test_dockerfile_has_no_finding_of_hadolint():
    program = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    assert program, "the extra `dev` installs it"
    done = subprocess.run([program, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_pinned_watched_and_private(name):
    service = SERVICES[name]
    assert PINNED.fullmatch(service["image"])
    assert service["restart"] == "unless-stopped"
    built = STAGES.get(service.get("build", {}).get("target", ""))
    assert service["healthcheck"]["test"] if built is None else built.last("HEALTHCHECK")
    assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "privileged" not in service
    assert service.get("network_mode") is None
    if "build" in service:
        assert service["build"]["target"] in TARGETS


@pytest.mark.parametrize("name", SERVICES)
def test_service_waits_for_what_is_healthy(name):
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert needed in SERVICES
        assert how == {"condition": "service_healthy"}


def test_volumes_are_declared_and_used():
    named = {
        mount.split(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if not mount.startswith(".")
    }
    assert named == set(load_compose()["volumes"])


def test_mounted_files_exist():
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    files = [mount.split(":") for mount in mounts if mount.startswith(".")]
    assert files
    assert all((DOCKER / source).is_file() and mode == "ro" for source, _, mode in files)


@pytest.mark.parametrize("name", OURS)
def test_service_variables_are_settings(name):
    assert set(SERVICES[name]["environment"]) <= set(_setting_names())
    gpu = load_compose("compose.gpu.yaml")["services"].get(name, {})
    assert set(gpu.get("environment", {})) <= set(_setting_names())


def test_images_variables_are_settings():
    known = set(_setting_names())
    for target in ("cpu", "gpu"):
        for word, rest in STAGES[target].steps:
            named = re.findall(r"\bMASKLOOP_\w+", rest) if word == "ENV" else []
            assert set(named) <= known


def test_mlflow_server_variables_are_its_own():
    from mlflow import environment_variables

    own = {"MLFLOW_BACKEND_STORE_URI"}  # of its command line alone
    assert {
        name
        for name in SERVICES["mlflow"]["environment"]
        if name not in own and not hasattr(environment_variables, name)
    } == {"MLFLOW_DISABLE_TELEMETRY"} - set(dir(environment_variables))


def test_settings_file_of_the_containers_is_read():
    text = (DOCKER / "maskloop.toml").read_text()
    offered = tomllib.loads(re.sub(r"(?m)^#(\w+ = )", r"\1", text))
    assert offered
    assert set(offered) <= set(Settings.model_fields)
    assert tomllib.loads(text) == {}


def test_secrets_come_from_the_env_file_alone():
    text = (DOCKER / "compose.yaml").read_text()
    for service in yaml.safe_load(text)["services"].values():
        for name, value in (service.get("environment") or {}).items():
            if SECRET_NAME.search(name) and not name.startswith("LABEL_STUDIO_ENABLE"):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    lines = [line for line in (DOCKER / ".env.example").read_text().splitlines() if line and line[0] != "#"]
    assert {line.removesuffix("=") for line in lines} == required_variables()
    assert all(line.endswith("=") for line in lines), "a password that works would stay"


def test_backend_address_for_label_studio_has_a_dot():
    # Django's check of a webhook's address refuses a host without one.
    (alias,) = SERVICES["server"]["networks"]["studio"]["aliases"]
    assert "." in alias
    assert f"http://{alias}:9090" in (DOCKER / "README.md").read_text()


def test_compose_itself_takes_the_files(tmp_path):
    program = shutil.which("docker")
    if (
        program is None
        or subprocess.run([program, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no docker compose on this machine")
    env = tmp_path / "env"
    env.write_text("".join(f"{name}=0123456789\n" for name in required_variables()))
    for files in (("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")):
        named = [part for file in files for part in ("-f", str(DOCKER / file))]
        command = [program, "compose", "--env-file", str(env), *named, "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
