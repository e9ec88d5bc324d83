"""`maskloop up` in a home of its own, started again when it ends, as an init system would."""

from __future__ import annotations

import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskloop.processes import find_free_port, spawn
from maskloop.settings import Settings

from .processes import MARK, Part, find_parts, send

COMMAND = (sys.executable, "-m", "maskloop_studio")
RESTART_S = 1.0
STOP_S = 45.0
FOREIGN = ("MASKLOOP_", "LABEL_STUDIO_", "MLFLOW_")


# A second machine, so that what one worker lost is taken over by another while it only sleeps.
SERVICES = {
    "up": ("up",),
    "second": ("worker", "--queue", "intake", "--queue", "predict"),
    "second-train": ("worker", "--queue", "train"),
}
PARTS = {"supervisor", "server", "intake", "predict", "train", "scheduler", "second"}


@dataclass
class _Service:
    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0  # when to start it


class Loop:
    """The loop under test."""

    def __init__(self, home: Path, variables: Mapping[str, str]) -> None:
        """Args:
        home: its MASKLOOP_HOME.
        variables: what else to set: Label Studio's address, small trainings ...
        """
        self.home = home.resolve()
        self.port = find_free_port()
        self.mark = secrets.token_hex(8)
        self.starts: Counter[str] = Counter()
        self.own_ends: list[str] = []  # of what ended although nobody had killed it
        self._killed: set[int] = set()
        self._horses: set[int] = set()
        self._services = [_Service(name, arguments) for name, arguments in SERVICES.items()]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)},
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **variables,
            "MASKLOOP_HOME": str(self.home),
            "MASKLOOP_PORT": str(self.port),
            MARK: self.mark,
        }

    @property
    def log_dir(self) -> Path:
        """Where every part logs."""
        return self.home / "logs"

    def settings(self) -> Settings:
        """Return the loop's settings, for looking at its database from outside."""
        names = {"LABEL_STUDIO_URL": "label_studio_url", "LABEL_STUDIO_API_KEY": "label_studio_api_key"}
        fields = {
            names.get(name, name.removeprefix("MASKLOOP_").lower()): value
            for name, value in self._environment.items()
            if name.startswith(("MASKLOOP_", "LABEL_STUDIO_")) and name != MARK
        }
        return Settings(**fields)

    def watch(self) -> None:
        """Start what has ended; from the main thread only, whose end ends the children."""
        for service in self._services:
            log_path = self.log_dir / f"{service.name}.log"
            process = service.process
            if process is not None and process.poll() is not None:
                if process.pid not in self._killed:
                    end = f"{service.name}, exit code {process.returncode}: {_last_line(log_path)}"
                    self.own_ends.append(end)
                service.process, service.due = None, time.monotonic() + RESTART_S
            if service.process is None and time.monotonic() >= service.due:
                self.starts[service.name] += 1
                command = [*COMMAND, *service.arguments]
                service.process = spawn(command, log_path=log_path, env=self._environment)

    def run(self, *arguments: str, timeout_s: float = 600.0) -> str:
        """Run a command of maskloop on this home and return what it prints."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        if done.returncode:
            raise AssertionError(f"maskloop {' '.join(arguments)}: exit code {done.returncode}\n{text}")
        return text

    def parts(self) -> tuple[Part, ...]:
        """Return the loop's living processes."""
        found = find_parts(self.mark, self.home)
        # A horse whose worker was killed looks like a worker: it has been seen before.
        self._horses.update(part.pid for part in found if part.role == "horse")
        return tuple(
            dataclasses.replace(part, role="horse")
            if part.role == "train" and part.pid in self._horses
            else part
            for part in found
        )

    def send(self, part: Part, number: signal.Signals) -> bool:
        """Send a signal to one of them."""
        if number == signal.SIGKILL:
            self._killed.add(part.pid)
        return send(part, number, mark=self.mark, home=self.home)

    def is_whole(self) -> bool:
        """Return whether all parts live and none is stopped."""
        return {part.role for part in self.parts() if not part.stopped} >= PARTS

    def stop(self) -> list[str]:
        """End everything with SIGTERM; return the roles of what had to be killed after that."""
        for part in self.parts():
            self.send(part, signal.SIGCONT)
        processes = [service.process for service in self._services if service.process is not None]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + STOP_S
        while self.parts() and time.monotonic() < deadline:
            time.sleep(0.1)
            for process in processes:
                process.poll()
        left = [part.role for part in self.parts() if self.send(part, signal.SIGKILL)]
        for process in processes:
            process.wait()
        return left


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return lines[-1][:300] if lines else "it said nothing"
