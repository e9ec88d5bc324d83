"""What health checks and webhooks beside an attack see; in a process of its own, which no attack slows down.

Each is sent at its time and timed from it: a stall counts for all that it kept waiting.

    python -m tests.benchmarks.hostile_beside

Reads one line of JSON (port, secret), says "ready", sends until its standard input ends, prints the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .hostile_wire import Answer, request, send, webhook
from .webhook_load import make_event

__all__ = ["Beside", "observed"]

EVERY_S = 0.05  # a health check and a webhook, whether or not those before are answered
MADE_AHEAD = 200  # events; each gets a number of its own when it is sent
ROOT = Path(__file__).resolve().parents[2]


class Beside:
    """The answers; empty until the observation ends."""

    def __init__(self) -> None:
        self.health: list[Answer] = []
        self.webhooks: list[Answer] = []

    @property
    def all(self) -> list[Answer]:
        """Both."""
        return [*self.health, *self.webhooks]

    def webhook_ms(self, percentile: float) -> float:
        """Return a percentile of the webhooks' times; 0 where none was sent."""
        seconds = [answer.seconds for answer in self.webhooks] or [0.0]
        return round(float(np.percentile(seconds, percentile)) * 1e3, 1)

    @property
    def health_max_ms(self) -> float:
        """Return the slowest health check; 0 where none was sent."""
        return round(max((answer.seconds for answer in self.health), default=0.0) * 1e3, 1)


@contextlib.asynccontextmanager
async def observed(port: int, secret: str) -> AsyncIterator[Beside]:
    """Send health checks and webhooks for as long as the block takes; the figures are there after it."""
    beside = Beside()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        limit=1 << 26,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({"port": port, "secret": secret}).encode() + b"\n")
        await process.stdin.drain()
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("observer: expected it to start, got its end; see the error above")
        yield beside
    finally:
        process.stdin.close()
        found = json.loads(await process.stdout.read() or b"{}")
        await process.wait()
    beside.health = [Answer(**one) for one in found["health"]]
    beside.webhooks = [Answer(**one) for one in found["webhooks"]]


async def _observe(port: int, secret: str) -> dict[str, list[dict[str, object]]]:
    over = asyncio.Event()
    rng, first = np.random.default_rng(1), int(time.time() * 100) % 10**9
    events = [make_event(4_242_424_242, rng, brush=False) for _ in range(MADE_AHEAD)]
    health: list[Answer] = []
    webhooks: list[Answer] = []

    async def ask(answers: list[Answer], content: bytes, due: float) -> None:
        answers.append(await send(port, content, since=due))

    async def send_all() -> None:
        async with asyncio.TaskGroup() as group:
            started = time.perf_counter()
            for number in itertools.count():
                due = started + number * EVERY_S
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if over.is_set():
                    return
                event = first + number
                body = events[event % MADE_AHEAD].replace(b"4242424242", b"%d" % event)
                group.create_task(ask(health, request("GET", "/health"), due))
                group.create_task(ask(webhooks, webhook(body, secret), due))

    working = asyncio.ensure_future(send_all())
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    over.set()
    await working
    return {"health": list(map(asdict, health)), "webhooks": list(map(asdict, webhooks))}


def main() -> None:
    """Observe what the first line of standard input names, until it ends."""
    print(json.dumps(asyncio.run(_observe(**json.loads(sys.stdin.readline())))))


if __name__ == "__main__":
    main()
