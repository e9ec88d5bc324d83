"""How long `/webhook` takes under load: a real server and queue, an open-loop sender, a training beside them.

    python tests/benchmarks/webhook_load.py --rps 200 --seconds 30 --training --json webhook.json

Every request comes over a connection of its own, as Label Studio's do, at its time whether or not the ones
before are answered; it is timed from that time on, so a stall counts for all whom it kept waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

PROJECT_ID = 1
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="disc"/><Label value="square"/></BrushLabels></View>'
)
LATE_S = 1.0  # Label Studio stops waiting after this
WARM_UP_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent."""

    rps: float
    seconds: float
    brush_share: float = 0.02  # of requests with a brush mask of about 1 MB
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What came of it; times in milliseconds."""

    sent: int
    errors: int  # not answered with 200
    late: int  # answered after Label Studio has stopped waiting
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    server_cpu_s: float = 0.0
    server_rss_mb: float = 0.0
    rows: int = 0
    training_steps: int = 0


def make_event(number: int, rng: np.random.Generator, *, brush: bool) -> bytes:
    """Return an event as Label Studio 1.23 writes it, about an annotation of its own."""
    if brush:
        value = {"format": "rle", "rle": rng.integers(0, 256, 210_000).tolist(), "brushlabels": ["disc"]}
        region = {"type": "brushlabels", "from_name": "brush", "value": value}
    else:
        points = rng.uniform(0, 100, (20, 2)).tolist()
        value = {"points": points, "polygonlabels": ["disc"], "closed": True}
        region = {"type": "polygonlabels", "from_name": "poly", "value": value}
    region |= {"id": f"r{number}", "to_name": "image", "original_width": 320, "original_height": 240}
    at = f"2026-11-22T05:{number // 60_000 % 60:02d}:{number // 1000 % 60:02d}.{number % 1000:03d}265Z"
    annotation = {
        "id": number,
        "result": [region | {"image_rotation": 0}],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": at,
        "updated_at": at,
        "lead_time": 3.2,
        "prediction": {},
        "result_count": 1,
        "unique_id": f"{number:032x}",
        "task": number,
        "project": PROJECT_ID,
        "completed_by": 1,
        "parent_prediction": None,
    }
    parsed = {"brush": {"type": "BrushLabels", "to_name": ["image"], "inputs": [], "labels": ["disc"]}}
    project = {"id": PROJECT_ID, "title": "load", "label_config": CONFIG, "parsed_label_config": parsed}
    project |= {f"statistic_{index}": index for index in range(40)}
    body = {"action": "ANNOTATION_CREATED", "annotation": annotation, "project": project}
    body["task"] = {"id": number, "data": {"image": f"/data/upload/1/{number}.png"}, "project": PROJECT_ID}
    return json.dumps(body).encode()


def send_load(load: Load, *, port: int, secret: str, first_number: int = 1) -> Figures:
    """Send a load and time the answers; run it in a process of its own."""
    rng = np.random.default_rng(load.seed)
    count = int(load.rps * load.seconds)
    masks = [make_event(0, rng, brush=True).replace(b'"id": 0,', b'"id": %d,') for _ in range(1)]
    requests = []
    for number in range(first_number, first_number + count):
        brush = rng.random() < load.brush_share
        body = masks[0].replace(b"%d", b"%d" % number) if brush else make_event(number, rng, brush=False)
        requests.append(_head(body, secret) + body)
    seconds, statuses = asyncio.run(_send_all(requests, load.rps, port))
    times_ms = np.sort(np.array(seconds)) * 1e3
    p50, p95, p99 = np.percentile(times_ms, [50, 95, 99])
    return Figures(
        sent=count,
        errors=sum(status != 200 for status in statuses),
        late=int((times_ms > LATE_S * 1e3).sum()),
        p50_ms=round(float(p50), 1),
        p95_ms=round(float(p95), 1),
        p99_ms=round(float(p99), 1),
        max_ms=round(float(times_ms[-1]), 1),
    )


def _head(body: bytes, secret: str) -> bytes:
    return (
        f"POST /webhook HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.34.2\r\n"
        f"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\n"
        f"X-Maskloop-Secret: {secret}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()


async def _send_all(requests: list[bytes], rps: float, port: int) -> tuple[list[float], list[int]]:
    seconds, statuses = [0.0] * len(requests), [0] * len(requests)

    async def send(index: int, due: float) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(requests[index])
            line = await reader.readline()
            seconds[index] = time.perf_counter() - due
            statuses[index] = int(line.split()[1])
            writer.close()
        except (OSError, IndexError, ValueError):
            seconds[index] = time.perf_counter() - due

    started = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as group:
        for index in range(len(requests)):
            due = started + index / rps
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(send(index, due))
    return seconds, statuses


def train_for_ever(steps_file: Path) -> None:
    """Fine-tune the tiny model on made-up images, again and again; the steps done stand in a file."""
    from maskloop.lab.synthetic.shapes import make_image
    from maskloop.lab.tiny_models import build_tiny_mask2former
    from maskloop.learning.data.dataset import TrainingExample
    from maskloop.learning.training.finetune import finetune
    from maskloop.learning.training.job import FinetuneJob, TrainingControl
    from maskloop.learning.training.recipe import FinetuneRecipe

    made = [make_image(seed, size_hw=(192, 256), classes=("disc", "square")) for seed in range(8)]
    examples = [
        TrainingExample(image=one.image_hwc, segments=one.segments, key=str(index))
        for index, one in enumerate(made)
    ]
    base = build_tiny_mask2former(("disc", "square"), seed=0)
    done = 0

    def note() -> bool:
        nonlocal done
        done += 1
        steps_file.write_text(str(done))
        return False

    while True:
        with tempfile.TemporaryDirectory() as folder:
            recipe = FinetuneRecipe(steps=200, batch=4)
            finetune(
                FinetuneJob(base=base, examples=examples, recipe=recipe, output_dir=Path(folder)),
                TrainingControl(should_stop=note),
            )


@contextmanager
def run_training(home: Path) -> Iterator[Path]:
    """A training in a process of its own, which has begun; gives the file with its steps."""
    steps_file = home / "steps"
    command = [sys.executable, __file__, "--be-trainer", str(steps_file)]
    with _running(command, home / "training.log", {}) as process:
        _wait(lambda: steps_file.exists() and process.poll() is None, 180, "training")
        yield steps_file


@contextmanager
def run_server(home: Path, port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A real `maskloop serve` that answers."""
    command = [sys.executable, "-m", "maskloop_studio", "serve", "--port", str(port)]
    changes = {"MASKLOOP_HOME": str(home), **environment}
    with _running(command, home / "server.log", changes) as process:
        _wait(lambda: _answers(port) and process.poll() is None, 120, "server")
        yield process


def measure(load: Load, *, training: bool, home: Path) -> Figures:
    """Run server, queue and, if wanted, a training; send the load; count what was stored."""
    from maskloop.queue.valkey import EmbeddedBroker
    from maskloop.settings import Settings
    from maskloop.store.database import Store

    settings = Settings(home=home)
    broker = EmbeddedBroker(settings)
    store = Store(settings.resolved_database_url)
    store.projects.save(PROJECT_ID, CONFIG)
    secret, port = store.projects.webhook_secret(), _free_port()
    broker.start()
    try:
        with run_server(home, port, {}) as server:
            if not training:
                return _send_and_count(load, server, store, port, secret)
            with run_training(home) as steps_file:
                before = int(steps_file.read_text() or 0)
                figures = _send_and_count(load, server, store, port, secret)
                steps = int(steps_file.read_text() or 0) - before
            return Figures(**(asdict(figures) | {"training_steps": steps}))
    finally:
        broker.stop()
        store.close()


def _send_and_count(
    load: Load, server: subprocess.Popen[bytes], store: object, port: int, secret: str
) -> Figures:
    warm = Load(rps=min(load.rps, 50), seconds=WARM_UP_S, seed=1)
    _send_elsewhere(warm, port, secret, first_number=10_000_000)
    _wait(lambda: _is_calm(server.pid), 120, "a calm server")
    before, cpu = _rows(store), _cpu_s(server.pid)
    figures = _send_elsewhere(load, port, secret, first_number=1)
    return Figures(
        **(
            asdict(figures)
            | {
                "rows": _rows(store) - before,
                "server_cpu_s": round(_cpu_s(server.pid) - cpu, 1),
                "server_rss_mb": round(_rss_mb(server.pid), 0),
            }
        )
    )


def _send_elsewhere(load: Load, port: int, secret: str, *, first_number: int) -> Figures:
    order = json.dumps({"load": asdict(load), "port": port, "secret": secret, "first_number": first_number})
    command = [sys.executable, __file__, "--be-sender"]
    answer = subprocess.run(command, input=order, capture_output=True, text=True, check=True)
    return Figures(**json.loads(answer.stdout))


def _rows(store: object) -> int:
    return sum(store.jobs.counts().values())


@contextmanager
def _running(command: list[str], log: Path, changes: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", **changes}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(is_ready: object, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not ready after {seconds:.0f} s")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    """Whether the server has started and loaded its model, which would be in the way of the first events."""
    body = json.dumps({"config": CONFIG}).encode()
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/validate", data=body, headers=kind)
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _is_calm(pid: int) -> bool:
    """Whether a server has ended what it does at its start, such as making the registry's tables."""
    before = _cpu_s(pid)
    time.sleep(3.0)
    return _cpu_s(pid) - before < 0.6


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _conditions(load: Load, training: bool) -> dict[str, object]:
    import fastapi
    import uvicorn

    return {
        **asdict(load),
        "training": training,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "uvicorn": uvicorn.__version__,
        "fastapi": fastapi.__version__,
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rps", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30, help="how long")
    parser.add_argument("--training", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--brush-share", type=float, default=0.02, help="of requests with a 1 MB mask")
    parser.add_argument("--json", type=Path, help="write figures and conditions to this file")
    parser.add_argument("--be-sender", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--be-trainer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_trainer is not None:
        train_for_ever(arguments.be_trainer)
    if arguments.be_sender:
        order = json.load(sys.stdin)
        print(json.dumps(asdict(send_load(Load(**order.pop("load")), **order))))
        return
    load = Load(rps=arguments.rps, seconds=arguments.seconds, brush_share=arguments.brush_share)
    conditions = _conditions(load, arguments.training)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(load, training=arguments.training, home=Path(folder))
    print("\n".join(f"{name:15} {value}" for name, value in asdict(figures).items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({**conditions, **asdict(figures)}, indent=1) + "\n")
    if figures.errors or figures.rows != figures.sent:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
