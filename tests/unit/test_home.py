"""The home is its owner's alone, made with a clear error or not at all, and of one `maskloop up`."""

import os
import stat
import subprocess
import sys

import pytest

from maskloop.errors import ConfigurationError, ResourceError
from maskloop.home import HomeLock, close_to_others, prepare_home, readable_by_others


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def loose_umask():
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.mark.usefixtures("loose_umask")
def test_prepare_home_any_umask_is_private(tmp_path):
    home = tmp_path / "a" / "home"
    prepare_home(home)
    assert _mode(home) == 0o700


@pytest.mark.usefixtures("loose_umask")
def test_prepare_home_closes_what_an_older_version_left_open(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    database, logs = home / "maskloop.db", home / "logs"
    database.touch()
    logs.mkdir()
    (tmp_path / "outside").touch()
    (home / "link").symlink_to(tmp_path / "outside")
    prepare_home(home)
    assert (_mode(home), _mode(database), _mode(logs)) == (0o700, 0o600, 0o700)
    assert _mode(tmp_path / "outside") == 0o666, "a link is not followed"


@pytest.mark.usefixtures("loose_umask")
def test_close_to_others_names_every_open_file_once(tmp_path):
    home = tmp_path / "home"
    (home / "deep" / "er").mkdir(parents=True)
    (home / "deep" / "er" / "secret").touch()
    prepare_home(home)
    left = readable_by_others(home)
    assert close_to_others(home) == left == [home / "deep" / "er", home / "deep" / "er" / "secret"]
    assert readable_by_others(home) == []


def _file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file" / "home"


def _a_file(tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file"


def _sticky(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    return tmp_path / "tmp"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_file_in_the_way, id="below a file"),
        pytest.param(_a_file, id="a file"),
        pytest.param(_sticky, id="shared like /tmp"),
        pytest.param(lambda _path: os.path.expanduser("~"), id="the user's own folder"),
        pytest.param(lambda path: path / ("x" * 300), id="name too long"),
    ],
)
def test_prepare_home_bad_place_names_it_with_a_remedy(tmp_path, make):
    home = type(tmp_path)(make(tmp_path))
    with pytest.raises(ConfigurationError, match="MASKLOOP_HOME") as caught:
        prepare_home(home)
    assert str(home) in str(caught.value)


def test_home_lock_second_one_names_the_first(tmp_path):
    first, second = HomeLock(tmp_path), HomeLock(tmp_path)
    first.acquire("`maskloop up`, process 17, at http://127.0.0.1:9090")
    with pytest.raises(ResourceError, match="process 17, at http"):
        second.acquire("another")
    assert not second.is_held
    first.release()
    second.acquire("another")
    assert second.is_held
    second.release()


def test_home_lock_is_free_after_a_kill_and_not_inherited(tmp_path):
    code = (
        "import subprocess, sys, time; from pathlib import Path; from maskloop.home import HomeLock\n"
        f"HomeLock(Path({str(tmp_path)!r})).acquire('x')\n"
        "child = subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        child = int(holder.stdout.readline())
        holder.kill()
    try:
        lock = HomeLock(tmp_path)
        lock.acquire("y")
        lock.release()
    finally:
        os.kill(child, 9)
