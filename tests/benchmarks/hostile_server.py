"""A real `maskloop serve` under attack, and what health checks and webhooks beside the attack see of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .hostile_beside import Beside, observed
from .hostile_wire import Answer, request, send, webhook
from .webhook_load import CONFIG, PROJECT_ID, make_event, run_server

__all__ = ["Figures", "Target", "serve_target", "watch"]

QUIET_S = 5.0  # of webhooks without an attack, before each one
MEMORY_MB = 768
ENVIRONMENT = {
    "MASKLOOP_MEMORY_MB": str(MEMORY_MB),
    "MASKLOOP_PREDICT_DEADLINE_S": "10",
    "MASKLOOP_IMAGE_TIMEOUT_S": "5",
    "MASKLOOP_ALLOW_PRIVATE_IMAGES": "true",  # the image hosts of the attacks are on loopback
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server under attack."""

    port: int
    pid: int
    secret: str  # of its webhooks
    rest_mb: float  # resident memory with its model loaded, before any attack


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one attack did; the keys of `as_json` are those of the JSON."""

    answers: list[Answer]
    beside: Beside  # health checks and webhooks during the attack
    quiet: Beside  # the same just before it, on the same machine at the same load
    seconds: float
    peak_mb: float
    bound_mb: float

    def as_json(self) -> dict[str, float | int]:
        """Return the figures; a 503 with Retry-After is a refusal and no error."""
        every = [*self.answers, *self.beside.all]
        p99_ms, quiet_ms = self.beside.webhook_ms(99), self.quiet.webhook_ms(99)
        return {
            "requests": len(self.answers),
            "seconds": round(self.seconds, 1),
            "errors_5xx": sum(_is_error(answer) for answer in every),
            "refused_503": sum(answer.status == 503 and answer.retry_after for answer in every),
            "hangs": sum(answer.is_hang for answer in every),
            "webhooks": len(self.beside.webhooks),
            "webhooks_refused": sum(answer.status != 200 for answer in self.beside.all),
            "webhook_p50_ms": self.beside.webhook_ms(50),
            "webhook_p99_ms": p99_ms,
            "webhook_p50_quiet_ms": self.quiet.webhook_ms(50),
            "webhook_p99_quiet_ms": quiet_ms,
            "webhook_p99_ratio": round(p99_ms / quiet_ms, 1) if quiet_ms else 0.0,
            "health_max_ms": self.beside.health_max_ms,
            "peak_mb": round(self.peak_mb, 1),
            "bound_mb": round(self.bound_mb, 1),
        }


def _is_error(answer: Answer) -> bool:
    return (
        answer.status is not None
        and answer.status >= 500
        and not (answer.status == 503 and answer.retry_after)
    )


@contextmanager
def serve_target(folder: Path) -> Iterator[Target]:
    """Run broker and server on a fresh home with one connected project; end them afterwards."""
    from maskloop.queue.valkey import EmbeddedBroker
    from maskloop.settings import Settings
    from maskloop.store.database import Store

    home = folder / "home"
    settings = Settings(home=home)
    broker = EmbeddedBroker(settings)
    store = Store(settings.resolved_database_url)
    store.projects.save(PROJECT_ID, CONFIG)
    secret, port = store.projects.webhook_secret(), free_port()
    broker.start()
    try:
        with run_server(home, port, ENVIRONMENT) as process:
            asyncio.run(_warm_up(port, secret))
            yield Target(port=port, pid=process.pid, secret=secret, rest_mb=status_mb(process.pid, "VmRSS"))
    finally:
        broker.stop()
        store.close()


async def _warm_up(port: int, secret: str) -> None:
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (640, 480), (90, 140, 60)).save(file, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    body = {"tasks": [{"id": 1, "data": {"image": uri}}], "label_config": CONFIG, "project": "1.1"}
    for _ in range(3):
        answer = await send(port, request("POST", "/predict", json.dumps(body).encode()))
        if answer.status != 200:
            raise RuntimeError(f"warm-up: expected a prediction, got status {answer.status}")
    rng = np.random.default_rng(0)
    for number in range(20):
        await send(port, webhook(make_event(9_000_000 + number, rng, brush=False), secret))


async def watch(
    target: Target, attack: Callable[[int], Awaitable[list[Answer]]], *, least_s: float = 0.0
) -> Figures:
    """Observe the server in peace, then under an attack, with its peak of memory meanwhile.

    Args:
        target: the server.
        attack: one round of it, called with the round's number.
        least_s: rounds follow each other for so long, and the last one is ended.
    """
    async with observed(target.port, target.secret) as quiet:
        await asyncio.sleep(QUIET_S)
    for pid in family(target.pid):
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    async with observed(target.port, target.secret) as beside:
        answers: list[Answer] = []
        seconds, started = 0.0, time.perf_counter()
        for number in itertools.count():
            answers += await attack(number)
            seconds = time.perf_counter() - started
            if seconds >= least_s:
                break
    return Figures(
        answers=answers,
        beside=beside,
        quiet=quiet,
        seconds=seconds,
        peak_mb=status_mb(target.pid, "VmHWM"),
        bound_mb=target.rest_mb + MEMORY_MB,
    )


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def status_mb(pid: int, name: str) -> float:
    """Return a figure of /proc/PID/status in MB, such as VmRSS, of a process and its children together."""
    return sum(_status_mb(one, name) for one in family(pid))


def _status_mb(pid: int, name: str) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # it has ended
