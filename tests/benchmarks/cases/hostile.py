"""Attacks by strangers on a running server: mutated requests, bombs, slow hosts, idle connections."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from tests.paths import SHARED

from ..harness.case import Budget, Case, Result, Skip, Spread
from ..hostile_server import Figures, Target, serve_target, watch
from ..hostile_wire import Answer, request, send, webhook
from ..webhook_load import CONFIG, make_event

__all__ = ["CASES", "mutated_requests"]

Attack: TypeAlias = Callable[[int], Awaitable[list[Answer]]]  # one round, by its number
QUICK_REQUESTS = 300
LEAST_S = 15.0  # of rounds of one attack: 300 webhooks beside it
SAY_S = 15.0  # between two lines of progress
AT_ONCE = 8
FIRST_BOMB = 5_000_000  # number of an annotation
AIM_MS = 100.0  # webhooks beside every attack, p99
TRAFFIC = SHARED / "label-studio" / "traffic"
ODD_VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "\x00\x1b]0;title\x07\r\n",
    "\ud800",
    "9" * 5000,
    "../../../etc/passwd",
    "http://2130706433/",
    [],
    {},
    [[[[[]]]]],
    {"id": {"id": {"id": 1}}},
)
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")
ROUTES = (
    "/",
    "/health",
    "/setup",
    "/predict",
    "/webhook",
    "/versions",
    "/validate",
    "/delete",
    "/duplicate_model",
    "/job_status",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/nothing",
)
ODD_HEADERS = (
    "Content-Length: 5",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "Content-Type: text/plain",
    "Host: evil.example",
    "Authorization: Basic bm90OnRoaXM=",
    "X-Maskloop-Secret: \xff\xfe",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "Range: bytes=0-18446744073709551615",
)


def run(budget: Budget) -> list[Result]:
    """Return the figures of every attack, in turn on one server."""
    if not sys.platform.startswith("linux"):
        raise Skip("peak memory is read from /proc")
    count = min(budget.requests, QUICK_REQUESTS) if budget.quick else budget.requests
    share = 1 if budget.quick else 4
    attacks: dict[str, Callable[[Target], Attack]] = {
        "mutated requests": lambda target: _mutated_requests(target, count, 60 * budget.minutes),
        "mask bombs": lambda target: _mask_bombs(target, 6 * share),
        "json bombs": lambda target: _json_bombs(target, 8 * share),
        "config bombs": lambda target: _config_bombs(target, 8 * share),
        "image bombs": lambda target: _image_bombs(target, 6 * share),
        "slow hosts": lambda target: _slow_hosts(target, 21 * share),
        "idle connections": lambda target: _idle_connections(target, 300),
        "abandoned requests": lambda target: _abandoned_requests(target, 50 * share),
    }
    results = []
    with tempfile.TemporaryDirectory() as folder, serve_target(Path(folder)) as target:
        for name, prepare in attacks.items():
            attack = prepare(target)  # before anything is timed
            least_s = 0.0 if budget.quick or name == "mutated requests" else LEAST_S
            figures = asyncio.run(watch(target, attack, least_s=least_s))
            results.append(_result(name, figures))
            print(f"  {name}: {figures.as_json()}", file=sys.stderr, flush=True)
    return results


def _result(name: str, figures: Figures) -> Result:
    values = figures.as_json()
    return Result(
        name=f"hostile/{name}",
        unit="ms of webhooks beside it, p99",
        ours=Spread.of([float(values["webhook_p99_ms"])]),
        same=f"{values['errors_5xx']} errors 5xx, {values['hangs']} hangs, "
        f"health {values['health_max_ms']} ms, quiet p99 {values['webhook_p99_quiet_ms']} ms, "
        f"{values['peak_mb']:.0f} of {values['bound_mb']:.0f} MB",
        aim=AIM_MS,
        figures=values,
    )


async def _send_all(target: Target, requests: Iterable[bytes]) -> list[Answer]:
    """Send requests, made while they are sent, over AT_ONCE connections at the same time."""
    answers: list[Answer] = []
    waiting = iter(requests)

    async def work() -> None:
        for content in waiting:
            answers.append(await send(target.port, content))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return answers


def _mutated_requests(target: Target, count: int, seconds: float) -> Attack:
    """Mutated requests, as many as can be sent in so many seconds; progress is printed."""

    async def attack(number: int) -> list[Answer]:
        sent, started = 0, time.monotonic()

        def ahead() -> Iterator[bytes]:
            nonlocal sent
            for content in mutated_requests(target.secret, count, number):
                if time.monotonic() - started > seconds:
                    return
                sent += 1
                yield content

        async def tell() -> None:
            while True:
                await asyncio.sleep(SAY_S)
                passed_s = time.monotonic() - started
                print(f"  {sent} of {count} requests, {passed_s:.0f} s", file=sys.stderr, flush=True)

        telling = asyncio.ensure_future(tell())
        answers = await _send_all(target, ahead())
        telling.cancel()
        return answers

    return attack


def recorded_bodies() -> list[tuple[str, str, object]]:
    """Return method, path and body of requests that Label Studio sends, recorded ones where they are."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(TRAFFIC.glob("*.json"))]
    bodies = [(one["method"], one["path"], one["body"]) for one in found if "method" in one and "path" in one]
    if bodies:
        return bodies
    task = {"id": 1, "data": {"image": "/data/upload/1/a.png"}, "project": 1}
    event = json.loads(make_event(1, np.random.default_rng(0), brush=False))
    return [
        ("GET", "/health", ""),
        ("POST", "/setup", {"project": "1.1795325281", "schema": CONFIG, "extra_params": None}),
        (
            "POST",
            "/predict",
            {"tasks": [task], "project": "1.1", "label_config": CONFIG, "params": {"context": None}},
        ),
        ("POST", "/webhook", event),
        ("POST", "/webhook", {"action": "START_TRAINING", "project": {"id": 1}}),
        ("POST", "/validate", {"config": CONFIG}),
        ("POST", "/job_status", {"job": "1"}),
    ]


def mutated_requests(secret: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield so many requests, each made from a recorded one by one to four changes."""
    rng, bodies = random.Random(seed), recorded_bodies()
    for _ in range(count):
        yield _mutate(rng, *rng.choice(bodies), secret=secret)


def _mutate(rng: random.Random, method: str, path: str, body: object, *, secret: str) -> bytes:
    tree = json.loads(json.dumps(body))
    headers = [f"X-Maskloop-Secret: {secret}"] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(8)
        if kind < 5 and isinstance(tree, dict | list):
            _change_value(rng, tree)
        elif kind == 5:
            headers.append(rng.choice(ODD_HEADERS))
        elif kind == 6:
            path = rng.choice(ROUTES) + rng.choice(("", "?a=%00", "/../health", "%2e%2e/"))
        else:
            method = rng.choice(METHODS)
    content = b"" if tree == "" else json.dumps(tree).encode("utf-8", "surrogatepass")
    if content and rng.random() < 0.2:
        content = _damage(rng, content)
    return request(method, path, content, *headers)


def _change_value(rng: random.Random, tree: object) -> None:
    """Replace, delete or repeat one value at a random depth."""
    while True:
        keys: list[object] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))  # type: ignore[arg-type]
        if not keys:
            return
        key = rng.choice(keys)
        below = tree[key]  # type: ignore[index]
        if isinstance(below, dict | list) and below and rng.random() < 0.75:
            tree = below
            continue
        action = rng.randrange(4)
        if action == 0:
            del tree[key]  # type: ignore[attr-defined]
        elif action == 1 and isinstance(tree, list):
            tree.extend(copy.deepcopy(below) for _ in range(rng.choice((1, 50))))
        else:
            # A copy: a later change must not reach the next request, nor put a list into itself.
            tree[key] = copy.deepcopy(rng.choice(ODD_VALUES))  # type: ignore[index]
        return


def _damage(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    choices = (
        content[:at],
        content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
        content[:at] + content[at // 2 :],
        content.replace(b"1", b"1e999", 1),
        b"\xef\xbb\xbf" + content,
    )
    return rng.choice(choices)


def _mask_bombs(target: Target, count: int) -> Attack:
    """Events with masks of 20 MB, with a small mask that claims 10^8 pixels, with 10,000 whole boxes."""
    rng, bodies = np.random.default_rng(0), []
    for kind in range(3):
        event = json.loads(make_event(FIRST_BOMB, rng, brush=False))
        region = event["annotation"]["result"][0]
        if kind == 0:
            value = {"format": "rle", "rle": [255] * 5_000_000, "brushlabels": ["disc"]}
            event["annotation"]["result"] = [region | {"type": "brushlabels", "value": value}]
        elif kind == 1:
            large = {"original_width": 10_000, "original_height": 10_000, "type": "brushlabels"}
            value = {"format": "rle", "rle": [0, 5, 245, 225, 0, 255], "brushlabels": ["disc"]}
            event["annotation"]["result"] = [region | large | {"value": value}] * 1000
        else:
            box = {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0, "rectanglelabels": ["disc"]}
            large = {"original_width": 2000, "original_height": 2000, "type": "rectanglelabels"}
            event["annotation"]["result"] = [region | large | {"value": box}] * 10_000
        bodies.append(json.dumps(event).encode())

    def events(first: int) -> Iterator[bytes]:
        for number in range(first, first + count):
            # The annotation's own number is the first one; each event is a new one.
            body = bodies[number % 3].replace(b"%d" % FIRST_BOMB, b"%d" % (FIRST_BOMB + number), 1)
            yield webhook(body, target.secret)

    return lambda number: _send_all(target, events(number * count))


def _json_bombs(target: Target, count: int) -> Attack:
    wide = json.dumps({"tasks": [{"id": 1, "data": {"a": [[]] * 300_000}}] * 3, "label_config": CONFIG})
    deep = '{"tasks":' + "[" * 500_000 + "]" * 500_000 + "}"
    many = json.dumps({"tasks": [{"data": {}}] * 100_000, "label_config": CONFIG, "project": "1.1"})
    long = json.dumps({"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "x": "a" * 30_000_000}})
    bombs = [request("POST", "/predict", body.encode()) for body in (wide, deep, many)]
    bombs.append(webhook(long.encode(), target.secret))
    return lambda _number: _send_all(target, (bombs[number % 4] for number in range(count)))


def _config_bombs(target: Target, count: int) -> Attack:
    return lambda number: _send_all(target, _bomb_configs(number * count, count))


def _bomb_configs(first: int, count: int) -> Iterator[bytes]:
    for number in range(first, first + count):
        size = 1200 + number  # no two alike: none comes from the cache
        product = (
            '<View><Image name="image" value="$image"/>'
            + "".join(f'<Brush name="b{n}" toName="image"/>' for n in range(size))
            + "".join(f'<Labels name="l{n}" toName="image"><Label value="a"/></Labels>' for n in range(size))
            + "</View>"
        )
        entities = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><View>&b;</View>'
        deep = "<View>" * (50_000 + number) + "</View>" * (50_000 + number)
        config = (product, deep, entities)[number % 3]
        body: dict[str, object] = {"config": config}
        path = ("/validate", "/setup", "/predict")[number % 3 if number % 2 else 0]
        if path == "/setup":
            body = {"project": "1.1", "schema": config}
        elif path == "/predict":
            body = {"tasks": [{"id": 1, "data": {"image": "x"}}], "label_config": config}
        yield request("POST", path, json.dumps(body).encode())


def _image_bombs(target: Target, count: int) -> Attack:
    """Predictions of small files that are huge images, all different tasks at once."""
    files = {
        "/line.png": _png(100_000_000, 1),
        "/square.png": _png(9_000, 9_000),
        "/large.png": _png(60_000, 60_000),
        "/float.tiff": _float_tiff(7_000, 7_000),
        "/cut.png": _png(5_000, 5_000)[:2_000],
    }

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        data = files[path]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(data))
        writer.write(data)
        await writer.drain()

    async def attack(_number: int) -> list[Answer]:
        async with _image_host(answer) as port:
            tasks = [{"id": n, "data": {"image": f"http://127.0.0.1:{port}{p}"}} for n, p in enumerate(files)]
            body = json.dumps({"tasks": tasks * 2, "label_config": CONFIG, "project": "1.1"}).encode()
            return await _send_all(target, [request("POST", "/predict", body)] * count)

    return attack


def _slow_hosts(target: Target, count: int) -> Attack:
    """Predictions of images whose host sends a byte a second, all at once."""

    async def attack(_number: int) -> list[Answer]:

        async def answer(_path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1.0)

        async with _image_host(answer) as port:
            requests = []
            for number in range(count):
                tasks = [
                    {"id": n, "data": {"image": f"http://127.0.0.1:{port}/{number}-{n}.png"}}
                    for n in range(4)
                ]
                body = json.dumps({"tasks": tasks, "label_config": CONFIG, "project": "1.1"}).encode()
                requests.append(request("POST", "/predict", body))
            return list(await asyncio.gather(*(send(target.port, content) for content in requests)))

    return attack


def _idle_connections(target: Target, count: int) -> Attack:
    """Connections that send nothing, half a head or half a body, for five seconds."""

    async def attack(_number: int) -> list[Answer]:
        halves = (
            b"",
            b"GET /health HTTP/1.1\r\nHost: 127.0",
            request("POST", "/predict", b"{" * 1000)[:-500],
        )
        writers = []
        for number in range(count):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", target.port)
                writer.write(halves[number % len(halves)])
                writers.append(writer)
        await asyncio.sleep(5.0)
        answers = [await send(target.port, request("GET", "/versions")) for _ in range(20)]
        for writer in writers:
            writer.close()
        return answers

    return attack


def _abandoned_requests(target: Target, count: int) -> Attack:
    """Predictions whose client is gone at once; then one prediction that is waited for."""

    async def attack(_number: int) -> list[Answer]:

        async def answer(_path: str, writer: asyncio.StreamWriter) -> None:
            data = _png(1_000, 1_000)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(data)
            )
            writer.write(data)
            await writer.drain()

        async with _image_host(answer) as port:
            tasks = [{"id": n, "data": {"image": f"http://127.0.0.1:{port}/{n}.png"}} for n in range(20)]
            content = request(
                "POST",
                "/predict",
                json.dumps({"tasks": tasks, "label_config": CONFIG, "project": "1.1"}).encode(),
            )
            for number in range(count):
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", target.port)
                    writer.write(content)
                    await writer.drain()
                    await asyncio.sleep(0.02 * (number % 3))
                    writer.close()
            return [await send(target.port, content) for _ in range(2)]

    return attack


@asynccontextmanager
async def _image_host(
    answer: Callable[[str, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A host of images on loopback; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, KeyError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            await answer(head.split(b" ", 2)[1].decode(), writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def _png(width: int, height: int) -> bytes:
    """Return a grey PNG of zeros, made row by row: its file is a thousandth of its pixels."""
    packer, rows = zlib.compressobj(9), bytes(width + 1)
    pieces = [packer.compress(rows * max(1, 2**20 // len(rows))) for _ in range(_strips(width, height))]
    pieces.append(packer.flush())
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", b"".join(pieces)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _strips(width: int, height: int) -> int:
    rows = max(1, 2**20 // (width + 1))
    return min(-(-height // rows), 500)  # of an image that is refused by its size, half a gigabyte is enough


def _float_tiff(width: int, height: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("F", (width, height)).save(file, "TIFF", compression="tiff_adobe_deflate")
    return file.getvalue()


CASES = [
    Case(name="hostile", summary="attacks by strangers: 5xx, hangs, webhooks and memory beside them", run=run)
]
