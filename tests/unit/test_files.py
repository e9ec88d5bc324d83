"""Files appear whole or not at all, and log files stay within their bound."""

import subprocess
import sys

import pytest

from maskloop.files import rotate_file


def test_rotate_file_small_or_missing_is_left_alone(tmp_path):
    log = tmp_path / "server.log"
    assert not rotate_file(log, max_bytes=10)
    log.write_text("short")
    assert not rotate_file(log, max_bytes=10)
    assert [path.name for path in tmp_path.iterdir()] == ["server.log"]


def test_rotate_file_keeps_the_newest_older_ones(tmp_path):
    log = tmp_path / "server.log"
    for number in range(5):
        log.write_text(f"{number}" * 10)
        assert rotate_file(log, max_bytes=10, keep=3)
    texts = {path.name: path.read_text()[:1] for path in tmp_path.iterdir()}
    assert texts == {"server.log": "", "server.log.1": "4", "server.log.2": "3", "server.log.3": "2"}
    assert (tmp_path / "server.log.1").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("count", [1, 3], ids=["one writer", "three writers"])
def test_rotate_file_writers_go_on_in_the_same_file(tmp_path, count):
    log = tmp_path / "worker.log"
    code = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)"
    with log.open("ab") as stream:
        writers = [
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=stream, text=True)
            for _ in range(count)
        ]
    for writer in writers:
        writer.stdin.write("before " * 10 + "\n")
        writer.stdin.flush()
    while log.stat().st_size < 70 * count:
        pass
    assert rotate_file(log, max_bytes=70)
    for writer in writers:
        writer.communicate("after\n", timeout=10)
    assert log.read_bytes() == b"after\n" * count, "no hole of zeros before it"
