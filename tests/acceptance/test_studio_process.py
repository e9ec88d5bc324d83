"""Label Studio as our child: it listens on loopback only, and ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.paths import STUDIO_ENV

from maskloop_studio.demo.studio import RealStudio

pytestmark = pytest.mark.studio

CHILD = """
import sys, time
from pathlib import Path
from maskloop_studio.demo.studio import RealStudio
studio = RealStudio(Path(sys.argv[1]), env_dir=Path(sys.argv[2])).start()
print(studio.process.pid, flush=True)
time.sleep(600)
"""


def test_studio_listens_on_loopback_only(studio: RealStudio) -> None:
    port = int(studio.url.rsplit(":", 1)[1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]
    assert [address.split(":")[0] for address in listening] == ["0100007F"]


def test_studio_signup_is_closed(studio: RealStudio) -> None:
    answer = httpx.post(
        f"{studio.url}/user/signup/", data={"email": "a@b.co", "password": "12345678"}, timeout=30
    )
    assert answer.status_code == 403


def test_studio_parent_killed_ends_too(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), str(STUDIO_ENV)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
