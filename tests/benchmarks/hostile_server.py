"""A real `maskloop serve` under attack, and what health checks and webhooks beside the attack see of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .webhook_load import CONFIG, PROJECT_ID, make_event, run_server

__all__ = ["ANSWER_S", "Answer", "Figures", "Target", "send", "serve_target", "watch"]

ANSWER_S = 30.0  # an answer later than this, or none at all, is a hang; predictions end after 10 s
PAUSE_S = 0.1  # between two health checks, and between two webhooks
MEMORY_MB = 768
PIECE_BYTES = 2**17
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
class Answer:
    """What came of one request."""

    status: int | None  # None where no answer came, or the connection closed without one
    seconds: float
    retry_after: bool = False

    @property
    def is_hang(self) -> bool:
        """Whether the sender would still wait."""
        return self.status is None and self.seconds >= ANSWER_S


@dataclass(kw_only=True)
class Figures:
    """What one attack did; the keys of `as_json` are those of the JSON."""

    answers: list[Answer] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    webhook_s: list[float] = field(default_factory=list)
    beside: list[Answer] = field(default_factory=list)  # health checks and webhooks
    peak_mb: float = 0.0
    bound_mb: float = 0.0

    def as_json(self) -> dict[str, float | int]:
        """Return the figures; a 503 with Retry-After is a refusal and no error."""
        every = [*self.answers, *self.beside]
        webhooks_ms = np.array(self.webhook_s or [0.0]) * 1e3
        return {
            "requests": len(self.answers),
            "errors_5xx": sum(_is_error(answer) for answer in every),
            "refused_503": sum(answer.status == 503 and answer.retry_after for answer in every),
            "hangs": sum(answer.is_hang for answer in every),
            "webhooks_refused": sum(answer.status != 200 for answer in self.beside),
            "webhook_p50_ms": round(float(np.percentile(webhooks_ms, 50)), 1),
            "webhook_p99_ms": round(float(np.percentile(webhooks_ms, 99)), 1),
            "health_max_ms": round(max(self.health_s, default=0.0) * 1e3, 1),
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


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a request of HTTP/1.1; `headers` follow the usual ones and may contradict them."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1", "replace") + body


def webhook(body: bytes, secret: str) -> bytes:
    """Return an event with the secret that `connect` put into Label Studio."""
    return request("POST", "/webhook", body, f"X-Maskloop-Secret: {secret}")


async def send(port: int, content: bytes) -> Answer:
    """Send bytes over a connection of their own and read the head of the answer."""
    started = time.perf_counter()
    writer = None
    head = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            # In pieces: asyncio moves all that is left after each one that was sent.
            with suppress(OSError):
                for at in range(0, len(content), PIECE_BYTES):
                    writer.write(content[at : at + PIECE_BYTES])
                    await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            while await reader.read(1 << 16):
                pass
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        if writer is not None:
            writer.close()
    seconds = time.perf_counter() - started
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) == 3 and words[1].isdigit() else None
    if seconds >= ANSWER_S:
        status = None
    return Answer(status=status, seconds=seconds, retry_after=b"\r\nretry-after:" in head.lower())


async def watch(target: Target, attack: Callable[[], Awaitable[list[Answer]]]) -> Figures:
    """Run an attack; meanwhile time health checks and webhooks, and the server's peak of memory."""
    figures = Figures(bound_mb=target.rest_mb + MEMORY_MB)
    Path(f"/proc/{target.pid}/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    over = asyncio.Event()
    beside = [
        asyncio.create_task(_check_health(target, figures, over)),
        asyncio.create_task(_send_webhooks(target, figures, over)),
    ]
    try:
        figures.answers = await attack()
    finally:
        over.set()
        await asyncio.gather(*beside)
    figures.peak_mb = status_mb(target.pid, "VmHWM")
    return figures


async def _check_health(target: Target, figures: Figures, over: asyncio.Event) -> None:
    while True:
        answer = await send(target.port, request("GET", "/health"))
        figures.health_s.append(answer.seconds)
        figures.beside.append(answer)
        if over.is_set():
            return
        await asyncio.sleep(PAUSE_S)


async def _send_webhooks(target: Target, figures: Figures, over: asyncio.Event) -> None:
    rng, number = np.random.default_rng(1), int(time.time() * 10) % 10**9
    while True:
        number += 1
        answer = await send(target.port, webhook(make_event(number, rng, brush=False), target.secret))
        figures.webhook_s.append(answer.seconds)
        figures.beside.append(answer)
        if over.is_set():
            return
        await asyncio.sleep(PAUSE_S)


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status_mb(pid: int, name: str) -> float:
    """Return a figure of /proc/PID/status in MB, such as VmRSS."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/status has no {name}")
