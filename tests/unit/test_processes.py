"""What we start ends with us, and what a machine lacks is said before it is needed."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import maskloop
import maskloop_studio
from maskloop.errors import ResourceError
from maskloop.processes import check_free_disk, check_free_port, end, find_free_port, spawn

PARENT = """
import pathlib, sys, time
from maskloop.processes import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(60)"], log_path=pathlib.Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(60)
"""


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_spawn_parent_killed_takes_the_child_along(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_alive(child)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_end_program_that_ignores_sigterm_is_killed(tmp_path):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    log = tmp_path / "log"
    process = spawn([sys.executable, "-c", code], log_path=log)
    while "1" not in log.read_text():
        time.sleep(0.02)
    end(process, patience_s=0.2)
    assert process.returncode == -signal.SIGKILL


def test_check_free_port_taken_says_so():
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(ResourceError, match="MASKLOOP_PORT"):
            check_free_port("127.0.0.1", holder.getsockname()[1])
    check_free_port("127.0.0.1", find_free_port())


def test_check_free_disk_too_little_says_how_much(tmp_path):
    check_free_disk(tmp_path, 1, remedy="")
    with pytest.raises(ResourceError, match="free it"):
        check_free_disk(tmp_path, 2**62, remedy="free it")


def _starts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.Popen", "subprocess.run"):
            yield node


def test_every_start_of_a_program_names_its_environment():
    # Without one, a thread that sets a variable frees the list that the program is given (EFAULT).
    roots = [Path(package.__file__).parent for package in (maskloop, maskloop_studio)]
    calls = [(path, call) for root in roots for path in root.rglob("*.py") for call in _starts(path)]
    assert len(calls) > 5
    without = [
        f"{path}:{call.lineno}" for path, call in calls if "env" not in [word.arg for word in call.keywords]
    ]
    assert without == []
