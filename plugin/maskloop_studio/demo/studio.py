"""A real Label Studio for the demonstration and the acceptance tests: on loopback, with data of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import httpx

from maskloop.errors import StudioError
from maskloop.files import replace_file
from maskloop.processes import check_free_port, find_free_port
from maskloop_studio.demo.studio_env import (
    STUDIO_VERSION,
    Progress,
    clean_environment,
    install_studio,
    quiet,
    template_path,
)

__all__ = ["RealStudio", "StudioLogin"]

HOST = "127.0.0.1"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.1
LOG_TAIL_LINES = 20

# Ends with its parent, also when that one is killed: the pipe on stdin closes then, on every system.
BOOTSTRAP = """
import os, signal, sys, threading
def follow_parent():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=follow_parent, daemon=True).start()
from label_studio.server import main
sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class StudioLogin:
    """The one account of a Label Studio made here."""

    username: str
    password: str
    token: str  # legacy API token, 40 hexadecimal digits


class RealStudio:
    """Label Studio as a child process; a data folder that was used before goes on where it was."""

    def __init__(
        self, data_dir: Path, *, env_dir: Path, port: int | None = None, progress: Progress = quiet
    ) -> None:
        """Args:
        data_dir: database, uploads and log.
        env_dir: where Label Studio is or gets installed.
        port: a free one when none is given.
        progress: called with the progress of an installation.
        """
        self.data_dir = data_dir.resolve()
        self.env_dir = env_dir.resolve()
        self.process: subprocess.Popen[bytes] | None = None
        self._port = port
        self._progress = progress
        self._login: StudioLogin | None = None
        self._url: str | None = None

    def __enter__(self) -> RealStudio:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address, e.g. http://127.0.0.1:8080."""
        if self._url is None:
            raise RuntimeError("RealStudio: start() comes first")
        return self._url

    @property
    def login(self) -> StudioLogin:
        """The account; made at the first start and kept in the data folder."""
        if self._login is None:
            self._login = _load_or_make_login(self.data_dir / "login.json")
        return self._login

    @property
    def username(self) -> str:
        """The account's e-mail address."""
        return self.login.username

    @property
    def password(self) -> str:
        """The account's password."""
        return self.login.password

    @property
    def token(self) -> str:
        """The account's API token."""
        return self.login.token

    @property
    def files_dir(self) -> Path:
        """What Label Studio may serve as local files."""
        return self.data_dir / "files"

    @property
    def log_path(self) -> Path:
        """What Label Studio prints."""
        return self.data_dir / "label-studio.log"

    def start(self) -> RealStudio:
        """Install Label Studio where needed, start it and return when it answers.

        Raises:
            StudioError: it cannot be installed, ends at once or does not answer in time.
            ResourceError: the port is taken, or too little disk.
        """
        python = install_studio(self.env_dir, progress=self._progress)
        self.files_dir.mkdir(parents=True, exist_ok=True)
        self._copy_template()
        port = _claim_port(self._port)
        self._url = f"http://{HOST}:{port}"
        command = [str(python), "-I", "-c", BOOTSTRAP, "start", "--no-browser", "--enable-legacy-api-token"]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [*command, "--internal-host", HOST, "--port", str(port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env=clean_environment(self._variables()),
                start_new_session=True,
            )
        try:
            self._await_answer()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the process and all its children; nothing happens where none runs."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _variables(self) -> dict[str, str]:
        return {
            "HOME": str(self.data_dir),
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            # Not as arguments: those are visible to every user of the machine.
            "LABEL_STUDIO_USERNAME": self.username,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.files_dir),
            "COLLECT_ANALYTICS": "False",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            # The labeling backend is on this machine.
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
        }

    def _copy_template(self) -> None:
        database, template = self.data_dir / "label_studio.sqlite3", template_path(self.env_dir)
        if not database.exists() and template.exists():
            with replace_file(database) as new:
                shutil.copyfile(template, new)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        with httpx.Client(base_url=self.url, trust_env=False, timeout=5.0) as client:
            while time.monotonic() < deadline:
                if self.process is None or self.process.poll() is not None:
                    raise self._start_error("that it stays up", "its end")
                try:
                    if client.get("/health").is_success:
                        # Label Studio moves on to another port when its own is taken in this very moment.
                        who = client.get(
                            "/api/current-user/whoami", headers={"Authorization": f"Token {self.token}"}
                        )
                        if who.is_success and who.json().get("email") == self.username:
                            return
                        raise self._start_error("our own account", f"status {who.status_code}")
                except httpx.TransportError:
                    pass
                time.sleep(POLL_S)
        raise self._start_error(f"an answer within {START_TIMEOUT_S:g} s", "none")

    def _start_error(self, expected: str, got: str) -> StudioError:
        lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        tail = "\n".join(lines).replace(self.token, "[token]").replace(self.password, "[password]")
        return StudioError(
            f"Label Studio {STUDIO_VERSION} at {self.url}",
            expected=expected,
            got=f"{got}; the end of its log:\n{tail}\n",
            remedy=f"see {self.log_path}; a fresh data folder helps when its database is broken",
        )


def _load_or_make_login(path: Path) -> StudioLogin:
    try:
        return StudioLogin(**json.loads(path.read_text()))
    except FileNotFoundError:
        pass
    login = StudioLogin(
        username="demo@example.com", password=secrets.token_urlsafe(12), token=secrets.token_hex(20)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(login), file)
    return login


def _claim_port(port: int | None) -> int:
    if port is None:
        return find_free_port(HOST)
    check_free_port(HOST, port)
    return port
