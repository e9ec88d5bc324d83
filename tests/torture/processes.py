"""The processes of one loop, found through /proc by a mark in their environment; no others are touched."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from dataclasses import dataclass
from pathlib import Path

MARK = "MASKLOOP_TORTURE_MARK"
PROC = Path("/proc")
VICTIMS = (
    "server",
    "reader",
    "intake",
    "predict",
    "second",
    "train",
    "horse",
    "scheduler",
    "queue",
    "supervisor",
)
READER = "maskloop_studio.serving.http.json_reader"  # two of them, children of the server
COMMANDS = {"up": "supervisor", "serve": "server", "scheduler": "scheduler"}
QUEUE_SERVERS = ("valkey-server", "redis-server")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the loop."""

    pid: int
    parent: int
    role: str  # one of VICTIMS
    stopped: bool  # by SIGSTOP


def find_parts(mark: str, home: Path) -> tuple[Part, ...]:
    """Return the living processes that a loop consists of, orphans included.

    Args:
        mark: what MARK was set to when the loop was started; its children inherit it.
        home: the loop's MASKLOOP_HOME. Valkey writes its title over its environment, but works in there.
    """
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                part = _read_part(entry, mark, home)
                if part is not None:
                    found[part.pid] = part
    return tuple(_with_horse(part, found) for part in found.values())


def send(part: Part, number: signal.Signals, *, mark: str, home: Path) -> bool:
    """Send a signal to a process that is still the one that was found; return whether it got it."""
    try:
        handle = os.pidfd_open(part.pid)
    except ProcessLookupError:
        return False
    try:
        # Its number may have gone to a stranger since: the handle cannot.
        now = _read_part(PROC / str(part.pid), mark, home)
        if now is None:
            return False
        signal.pidfd_send_signal(handle, number)
    except (OSError, ValueError):
        return False
    else:
        return True
    finally:
        os.close(handle)


def _read_part(entry: Path, mark: str, home: Path) -> Part | None:
    state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    if state in "ZX":
        return None
    words = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    role = _role(words)
    if role is None or not _belongs(entry, role, mark, home):
        return None
    return Part(pid=int(entry.name), parent=int(parent), role=role, stopped=state in "Tt")


def _belongs(entry: Path, role: str, mark: str, home: Path) -> bool:
    if role == "queue":
        return (entry / "cwd").readlink().is_relative_to(home)
    return f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")


def _role(words: list[str]) -> str | None:
    if words[0].partition(" ")[0].rpartition("/")[2].startswith(QUEUE_SERVERS):
        return "queue"
    if READER in words:
        return "reader"
    if "maskloop_studio" not in words:
        return None
    command, *rest = words[words.index("maskloop_studio") + 1 :] or [""]
    if command == "worker":
        queues = [name for option, name in itertools.pairwise(rest) if option == "--queue"]
        return queues[0] if len(queues) == 1 else "second"
    return COMMANDS.get(command)


def _with_horse(part: Part, parts: dict[int, Part]) -> Part:
    """RQ's work horse has its worker's command line: the one whose parent is a worker as well."""
    parent = parts.get(part.parent)
    is_horse = part.role == "train" and parent is not None and parent.role == "train"
    return Part(pid=part.pid, parent=part.parent, role="horse", stopped=part.stopped) if is_horse else part
