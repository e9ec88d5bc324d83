"""Seconds to the first output of the command line: `maskloop --help`, and `serve` to its first /health."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..harness.case import Budget, Case, Result, Spread

__all__ = ["CASES"]

HOST = "127.0.0.1"
HELP_AIM_S, SERVE_AIM_S = 0.3, 1.0
MIN_ROUNDS, MAX_ROUNDS = 5, 30
PATIENCE_S = 120.0
POLL_S = 0.005
COMMAND = (sys.executable, "-m", "maskloop_studio")


def run(budget: Budget) -> list[Result]:
    """Return the seconds of each; every round is a fresh process."""
    python_s = _rounds(lambda: _ended_s((sys.executable, "-c", "pass")), budget, least=3, most=3)
    help_s = _rounds(lambda: _ended_s((*COMMAND, "--help")), budget)
    results = [
        Result(
            name="start/--help",
            unit="s",
            ours=Spread.of(help_s),
            same="it ends with 0 and names the commands",
            aim=HELP_AIM_S,
            notes={"python alone, s": Spread.of(python_s).median},
        )
    ]
    if budget.quick:
        return results
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        new_s = _rounds(lambda: _serves_s(Path(tempfile.mkdtemp(dir=home)), to_model=False)[0], budget)
        both_s = [_serves_s(home / "kept") for _ in range(MIN_ROUNDS + 1)][1:]
    for variant, seconds, notes in (
        ("serve again", [first for first, _ in both_s], _loaded(both_s)),
        ("serve, new home", new_s, {}),
    ):
        results.append(
            Result(
                name=f"start/{variant}",
                unit="s",
                ours=Spread.of(seconds),
                same="the first answer of /health is 200 and says UP",
                aim=SERVE_AIM_S,
                notes=notes,
            )
        )
    return results


def _loaded(both_s: list[tuple[float, float]]) -> dict[str, object]:
    return {"to a loaded model, s": Spread.of([loaded for _, loaded in both_s]).median}


def _rounds(
    once: Callable[[], float], budget: Budget, *, least: int = MIN_ROUNDS, most: int = MAX_ROUNDS
) -> list[float]:
    once()  # not counted: it fills the file cache and writes byte code
    end, seconds = time.perf_counter() + budget.seconds, list[float]()
    while len(seconds) < least or (time.perf_counter() < end and len(seconds) < most):
        seconds.append(once())
    return seconds


def _ended_s(command: tuple[str, ...]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took = time.perf_counter() - start
    assert "--help" not in command or "prelabel" in done.stdout, done.stdout
    return took


def _serves_s(home: Path, *, to_model: bool = True) -> tuple[float, float]:
    """Return seconds to the first answer of /health, and to the one that says that the model is loaded."""
    import httpx

    from maskloop.processes import find_free_port

    port = find_free_port(HOST)
    first = None
    start = time.perf_counter()
    with (
        _child((*COMMAND, "serve", "--host", HOST, "--port", str(port)), home),
        httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=PATIENCE_S) as client,
    ):
        while time.perf_counter() - start < PATIENCE_S:
            try:
                answer = client.get("/health")
            except httpx.TransportError:
                time.sleep(POLL_S)
                continue
            now = time.perf_counter() - start
            said = answer.json()
            assert (answer.status_code, said["status"]) == (200, "UP"), said
            first = first if first is not None else now
            if not to_model:
                return first, now
            if said["model"]["state"] != "loading":
                assert said["model"]["state"] == "ready", said
                return first, now
            time.sleep(10 * POLL_S)  # a request should not slow the loading
    raise TimeoutError(f"maskloop serve: no model after {PATIENCE_S:g} s; first answer: {first}")


@contextlib.contextmanager
def _child(command: tuple[str, ...], home: Path) -> Iterator[None]:
    environment = os.environ | {"MASKLOOP_HOME": str(home)}
    environment.pop("MASKLOOP_DATABASE_URL", None)  # the user's own: no benchmark writes there
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home.parent
    )
    try:
        yield
    finally:
        process.kill()  # a server that still loads would take long to end
        process.wait()


CASES = [Case(name="start", summary="maskloop --help; maskloop serve to its first /health", run=run)]
