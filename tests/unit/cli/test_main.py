"""The command line teaches, says what is wrong in one line, and ends with the right code."""

import os
import socket
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from maskloop_studio.cli.main import app


def _commands(group, prefix="maskloop"):
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(_commands(get_command(app)))


def _run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "maskloop_studio", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_command_help_says_what_it_does(name):
    shown = CliRunner().invoke(app, [*name.split()[1:], "--help"])
    assert shown.exit_code == 0
    first = (COMMANDS[name].help or "").splitlines()[0].replace("`", "")
    assert first[:30] in shown.stdout
    # What stands in brackets in a help text would be taken for a style, and left out.
    texts = [getattr(option, "help", "") or "" for option in COMMANDS[name].params]
    assert not [text for text in texts if "[" in text]


def test_serve_taken_port_ends_with_one_line(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        done = _run("serve", "--port", str(holder.getsockname()[1]), MASKLOOP_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "expected a free port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["up"], id="up"),
        pytest.param(["serve", "--port", "0"], id="serve"),
        pytest.param(["worker", "--queue", "intake"], id="worker"),
        pytest.param(["scheduler"], id="scheduler"),
        pytest.param(["jobs", "list"], id="jobs"),
        pytest.param(["models", "list", "1"], id="models"),
    ],
)
def test_home_that_cannot_be_made_ends_with_one_line(tmp_path, arguments):
    (tmp_path / "file").touch()
    done = _run(*arguments, MASKLOOP_HOME=str(tmp_path / "file" / "home"))
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, "MASKLOOP_HOME" in last, "Not a directory" in last) == (1, True, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["up"], ["doctor"], ["bench", "--list"], ["jobs", "list"]], ids=lambda words: words[0]
)
def test_misspelt_setting_is_refused_by_every_command(tmp_path, arguments):
    done = _run(*arguments, MASKLOOP_HOME=str(tmp_path), MASKLOOP_MODLE="x")
    assert (done.returncode, "did you mean MASKLOOP_MODEL?" in done.stderr) == (1, True)


def test_train_of_a_project_that_is_not_connected_queues_nothing(tmp_path):
    away = {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "LABEL_STUDIO_API_KEY": "x"}
    done = _run("train", "99", MASKLOOP_HOME=str(tmp_path), **away)
    assert (done.returncode, "maskloop connect 99" in done.stderr) == (1, True)
    left = _run("jobs", "list", "--json", MASKLOOP_HOME=str(tmp_path))
    assert left.stdout.strip() == "[]"


def test_version_is_printed():
    from importlib.metadata import version

    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout.strip()) == (0, f"maskloop {version('maskloop')}")


def test_files_of_a_command_are_private_whatever_the_umask(tmp_path):
    _run("jobs", "list", MASKLOOP_HOME=str(tmp_path / "home"))
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "home").rglob("*")}
    assert "maskloop.db" in modes
    assert set(modes.values()) == {0}


def test_connect_without_label_studio_names_the_setting(tmp_path):
    done = _run("connect", "1", MASKLOOP_HOME=str(tmp_path))
    assert (done.returncode, "LABEL_STUDIO_URL" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["worker", "--queue", "sleep"], id="unknown queue"),
        pytest.param(["demo", "--rounds", "0"], id="no round"),
        pytest.param(["dance"], id="unknown command"),
    ],
)
def test_wrong_usage_ends_with_two(arguments, tmp_path):
    assert _run(*arguments, MASKLOOP_HOME=str(tmp_path)).returncode == 2
