"""An environment of its own for Label Studio, whose pinned versions (redis, rq) conflict with ours."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from maskloop.errors import StudioError
from maskloop.files import write_whole
from maskloop.processes import check_free_disk

__all__ = ["STUDIO_VERSION", "Progress", "clean_environment", "install_studio", "quiet", "template_path"]

Progress: TypeAlias = Callable[[float, str], None]  # share that is done (0..1), present step

STUDIO_VERSION = "1.23.2"
CONSTRAINTS = Path(__file__).with_name("constraints-label-studio.txt")
PACKAGE_COUNT = 160  # pip names each once: the scale of the progress bar
MARKER = "maskloop-studio.json"
NEEDED_BYTES = 2 * 2**30
TAIL_LINES = 15
TEMPLATE_TIMEOUT_S = 600
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
KEPT_SUFFIXES = ("_proxy", "_PROXY")


def quiet(done: float, text: str) -> None:
    """Show no progress."""


def install_studio(folder: Path, *, progress: Progress = quiet) -> Path:
    """Make Label Studio's environment where it is missing or unfinished, and return its Python.

    Two processes may call it at once: the second waits. An interrupted installation is continued.

    Args:
        folder: the environment; about 1 GB.
        progress: called with the share that is done and with the present step.

    Raises:
        StudioError: the installation failed; the end of its output is in the text.
        ResourceError: too little disk.
    """
    python = folder / "bin" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".maskloop.lock"):
        if _is_complete(folder):
            return python
        check_free_disk(folder, NEEDED_BYTES, remedy="free some disk, or choose another folder")
        progress(0.0, "creating an environment for Label Studio")
        if _run_pip(python, ["--version"]) is not None:
            _run([sys.executable, "-m", "venv", str(folder)], folder)
        _install_packages(python, progress)
        progress(0.9, "preparing Label Studio's database")
        _make_template(folder)
        _write_marker(folder)
        progress(1.0, f"Label Studio {STUDIO_VERSION} is installed")
    return python


def template_path(folder: Path) -> Path:
    """Return the empty, migrated database of an environment: a copy of it spares the first start a minute."""
    return folder / f"maskloop-template-{STUDIO_VERSION}.sqlite3"


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return variables for a process of Label Studio.

    It reads plain names such as HOST, PORT, DEBUG, CI or USERNAME, so nothing passes unasked.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_VARIABLES or name.startswith("PIP_") or name.endswith(KEPT_SUFFIXES)
    }
    return kept | dict(extra)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_complete(folder: Path) -> bool:
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return bool(marker.get("version") == STUDIO_VERSION and template_path(folder).exists())


def _write_marker(folder: Path) -> None:
    write_whole(folder / MARKER, json.dumps({"version": STUDIO_VERSION}))


def _install_packages(python: Path, progress: Progress) -> None:
    arguments = [
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
        f"--constraint={CONSTRAINTS}",
        f"label-studio=={STUDIO_VERSION}",
    ]
    seen: set[str] = set()

    def follow(line: str) -> None:
        if line.startswith("Collecting "):
            name = re.split(r"[^\w.-]", line.split()[1])[0]
            seen.add(name)
            progress(min(0.7, 0.7 * len(seen) / PACKAGE_COUNT), f"fetching {name}")
        elif line.startswith("Installing collected"):
            progress(0.72, f"installing {len(seen)} packages")

    problem = _run_pip(python, arguments, follow)
    if problem is not None:
        raise _install_error("pip install", problem)


def _run_pip(python: Path, arguments: list[str], follow: Callable[[str], None] | None = None) -> str | None:
    """Return None where pip succeeded, else the end of its output."""
    if not python.exists():
        return "no environment"
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(  # noqa: S603
        [str(python), "-m", "pip", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment({"HOME": str(Path.home())}),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            if follow is not None:
                follow(line)
    return "\n".join(tail) if process.returncode else None


def _make_template(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".template-") as data_dir:
        # `version` applies the migrations before it prints, and then ends.
        _run(
            [str(folder / "bin" / "python"), str(folder / "bin" / "label-studio"), "version"],
            folder,
            {"LABEL_STUDIO_BASE_DATA_DIR": data_dir, "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": ""},
        )
        os.replace(Path(data_dir) / "label_studio.sqlite3", template_path(folder))


def _run(command: list[str], folder: Path, extra: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=TEMPLATE_TIMEOUT_S,
            env=clean_environment({"HOME": str(folder), "COLLECT_ANALYTICS": "False", **(extra or {})}),
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _install_error(" ".join(command[:3]), str(exc)) from exc
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-TAIL_LINES:]
        raise _install_error(" ".join(command[:3]), "\n".join(lines))


def _install_error(step: str, output: str) -> StudioError:
    return StudioError(
        f"installing Label Studio {STUDIO_VERSION} ({step})",
        expected="success",
        got=f"a failure:\n{output}\n",
        remedy="check the network and the Python version, delete the environment and try again",
    )
