"""A real server and raw sockets: any bad input is refused with a reason, is not kept and does no harm."""

import contextlib
import json
import os
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fakes.events import annotation, webhook_event

from maskloop.processes import end, spawn
from maskloop.store.database import Store

SECRET = "canary-secret-0d5f"
CANARY = "canary-input-7d1e"  # part of every bad input: neither told nor logged
MAX_GROWTH_MB = 100
SERVER = """
import sys
from maskloop.log import configure_logging
from maskloop.settings import load_settings
from maskloop_studio.serving.app import run_server
from maskloop_studio.services import Services
configure_logging()
run_server(Services(load_settings()), host="127.0.0.1", port=int(sys.argv[1]))
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, home, model):
        self.home = home
        self.log = home / "server.log"
        self.port = _free_port()
        self.store = Store(f"sqlite:///{home / 'maskloop.db'}")
        self.store.projects.save(1, "<View/>")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MASKLOOP_")}
        environment |= {
            "MASKLOOP_HOME": str(home),
            "MASKLOOP_MODEL": str(model),
            "MASKLOOP_WEBHOOK_SECRET": SECRET,
            "MASKLOOP_REDIS_URL": f"unix://{home}/none.sock",
        }
        command = [sys.executable, "-c", SERVER, str(self.port)]
        self.process = spawn(command, log_path=self.log, env=environment)

    def exchange(self, *parts, timeout_s=40.0, end_of_input=False):
        """Send parts as they are; return the status and the text that came back, (0, "") for none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    connection.sendall(part)
                if end_of_input:
                    connection.shutdown(socket.SHUT_WR)
            return _read_answer(connection)

    def post(self, body, path="/webhook", **headers):
        """Send a well-framed request."""
        return self.exchange(_head(path, {"Content-Length": len(body)} | headers) + body)

    def is_healthy(self):
        return self.exchange(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", timeout_s=10)[0] == 200

    def rss_mb(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def close(self):
        end(self.process)
        self.store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model):
    started = Server(tmp_path_factory.mktemp("server"), tiny_model)
    try:
        _wait_until_calm(started)
        yield started
    finally:
        started.close()


@pytest.fixture(autouse=True)
def unharmed(server):
    """After every test: nothing stored, nothing told to the log, the process the same and well."""
    yield
    assert server.process.poll() is None
    assert server.is_healthy()
    assert server.store.jobs.counts() == {}
    log = server.log.read_text()
    assert CANARY not in log
    assert SECRET not in log
    assert "Traceback" not in log


def _wait_until_calm(server):
    # Answered from the labels of the model, so not before the model is in memory.
    labels = '<BrushLabels name="b" toName="i"><Label value="x"/></BrushLabels>'
    config = f'<View><Image name="i" value="$i"/>{labels}</View>'
    body = json.dumps({"config": config}).encode()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError):
            if server.post(body, path="/validate")[0] in (200, 422):
                return
        time.sleep(0.2)
    pytest.fail(server.log.read_text())


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _head(path="/webhook", headers=None, *, secret=SECRET, method="POST"):
    said = {"Host": "localhost", "Content-Type": "application/json", "X-Maskloop-Secret": secret}
    said |= {key.replace("_", "-"): value for key, value in (headers or {}).items()}
    lines = "".join(f"{key}: {value}\r\n" for key, value in said.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def _read_answer(connection):
    data = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
            piece = connection.recv(2**16)
            if not piece:
                break
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body.decode()) if head else (0, "")


def _length(data):
    for line in data.partition(b"\r\n\r\n")[0].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def _event(**changes):
    event = webhook_event(project={"id": 1, "title": CANARY}, annotation=annotation(result=[]))
    return json.dumps(event | changes).encode()


def _with_id(text):
    return _event(annotation={"id": 0}).replace(b'"id": 0', b'"id": ' + text)


def assert_refused(answer, statuses, words):
    status, text = answer
    assert status in statuses, (status, text[:300])
    error = json.loads(text)["error"]
    assert "expected" in error
    assert " got " in error
    assert words in error, error
    assert CANARY not in text
    assert SECRET not in text


BODIES = [
    pytest.param(b"", "EOF", id="empty"),
    pytest.param(CANARY.encode(), "JSON", id="not JSON"),
    pytest.param(b'{"action": "' + CANARY.encode(), "JSON", id="cut off"),
    pytest.param(_event().decode().encode("utf-16"), "JSON", id="UTF-16"),
    pytest.param(b'{"action": "\xff\xfe' + CANARY.encode() + b'"}', "JSON", id="not UTF-8"),
    pytest.param(b"[" * 100_000, "recursion", id="deep lists"),
    pytest.param(b'{"annotation":' * 100_000 + b"1" + b"}" * 100_000, "recursion", id="deep objects"),
    pytest.param(_event() + b"{}", "JSON", id="two values"),
    pytest.param(b"null", "object", id="null"),
    pytest.param(b"[[1]]", "object", id="a list"),
    pytest.param(_event(action=f"MADE_UP_{CANARY}"), "action", id="unknown kind"),
    pytest.param(_event(action="A" * 101), "100 characters", id="long kind"),
    pytest.param(_event(action="ANNOTATION_CREATED\0"), "another", id="NUL in the kind"),
    pytest.param(b'{"action": "' + b"\0" + b'"}', "control character", id="NUL byte"),
    pytest.param(_event(action=None), "string", id="kind is null"),
    pytest.param(b'{"action": "ANNOTATION_CREATED"}', "send_payload", id="no payload"),
    pytest.param(_event(annotation=None), "send_payload", id="no annotation"),
    pytest.param(_event(project=None), "send_payload", id="no project"),
    pytest.param(_event(project=[1]), "object", id="project is a list"),
    pytest.param(_event(annotation="5"), "annotation", id="annotation is a string"),
    pytest.param(_event(annotations=[5] * 300), "annotations", id="annotations are numbers"),
    pytest.param(_with_id(b'"5"'), "integer", id="id is a string"),
    pytest.param(_with_id(b"5.0"), "integer", id="id is a float"),
    pytest.param(_with_id(b"true"), "integer", id="id is a boolean"),
    pytest.param(_with_id(b"-5"), "greater", id="id is negative"),
    pytest.param(_with_id(b"0"), "greater", id="id is zero"),
    pytest.param(_with_id(b"9223372036854775808"), "less", id="id beyond 64 bits"),
    pytest.param(_with_id(b"9" * 4000), "annotation", id="id of 4000 digits"),
    pytest.param(_with_id(b"9" * 10_000), "number out of range", id="id of 10,000 digits"),
    pytest.param(_with_id(b"1e400"), "integer", id="id beyond floats"),
    pytest.param(_with_id(b"NaN"), "integer", id="id is not a number"),
    pytest.param(_event(annotation={"id": 5, "updated_at": CANARY}), "pattern", id="time is no time"),
    pytest.param(_event(annotation={"id": 5, "updated_at": 7}), "string", id="time is a number"),
    pytest.param(
        _event(annotation={"id": 5, "updated_at": "2026-11-22T05:28\0"}), "pattern", id="NUL in a time"
    ),
    pytest.param(
        b'{"action": "MADE_UP", "action": "ANNOTATION_CREATED", "action": "MADE_UP"}',
        "another",
        id="kind twice: the last one counts",
    ),
]


@pytest.mark.parametrize(("body", "words"), BODIES)
def test_webhook_bad_body_is_refused(server, body, words):
    assert_refused(server.post(body), {422}, words)


@pytest.mark.parametrize(
    "path", ["/predict", "/setup", "/validate", "/delete", "/duplicate_model", "/job_status"]
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(CANARY.encode(), id="not JSON"),
        pytest.param(b"[]", id="a list"),
        pytest.param(json.dumps({"project": CANARY}).encode("utf-16"), id="UTF-16"),
    ],
)
def test_other_route_bad_body_is_refused(server, path, body):
    deep = body.startswith(b"[[")  # of the small routes it is refused before it is read
    statuses, words = ({413, 422}, "") if deep else ({422}, "/docs")
    assert_refused(server.post(body, path=path), statuses, words)


def test_webhook_foreign_project_is_refused(server):
    assert_refused(server.post(_event(project={"id": 2})), {403}, "maskloop connect")
    assert_refused(server.post(_event(action="PROJECT_DELETED", project={"id": 2**62})), {403}, "connect")


def test_webhook_wrong_secret_is_refused(server):
    assert_refused(server.post(_event(), X_Maskloop_Secret=CANARY), {401}, "X-Maskloop-Secret")


def test_webhook_other_media_type_is_refused(server):
    for kind in ("text/plain", CANARY):
        assert_refused(server.post(_event(), Content_Type=kind), {415}, "application/json")


def test_webhook_many_subjects_are_refused(server):
    some = json.dumps({"action": "ANNOTATIONS_DELETED", "project": {"id": 1}, "annotations": []})
    for count in (100_001, 1_000_000):
        rows = ",".join(['{"id":7}'] * count)
        body = some.replace("[]", f"[{rows}]").encode()
        assert_refused(server.post(body), {413, 422}, "at most")


@pytest.mark.parametrize(
    "item", [b"[],", b"{},", b"[[[[[]]]]],", b'{"a":0},', b'"",', b"0.5e1,"], ids=lambda item: item.decode()
)
def test_webhook_small_text_that_makes_a_huge_tree_is_refused(server, item):
    body = b'{"x":[' + item * (30 * 2**20 // len(item)) + b"0]}"
    before, started = server.rss_mb(), time.monotonic()
    assert_refused(server.post(body), {413}, "fewer")
    assert server.rss_mb() - before < MAX_GROWTH_MB
    assert time.monotonic() - started < 30


HUGE = 50 * 2**20


def _huge_body():
    return _event(annotation={"id": 5, "result": [CANARY]})[:-1] + b" " * HUGE


def test_webhook_huge_body_declared_is_refused(server):
    for _ in range(4):
        before = server.rss_mb()
        body = _huge_body()
        assert_refused(server.post(body), {413}, "bytes")
        assert server.rss_mb() - before < MAX_GROWTH_MB


def test_webhook_huge_length_is_refused_before_the_body_comes(server):
    for length in (HUGE, 10**15, 10**19):
        assert_refused(server.exchange(_head(headers={"Content-Length": length})), {413}, "bytes")


def _chunked(body, size=2**18):
    parts = (body[start : start + size] for start in range(0, len(body), size))
    yield from (b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    yield b"0\r\n\r\n"


def test_webhook_huge_body_in_chunks_is_refused(server):
    before = server.rss_mb()
    for _ in range(4):
        head = _head(headers={"Transfer-Encoding": "chunked"})
        assert_refused(server.exchange(head, *_chunked(_huge_body())), {413}, "bytes")
    assert server.rss_mb() - before < MAX_GROWTH_MB


def test_webhook_many_huge_bodies_at_once_are_refused(server):
    before, body = server.rss_mb(), _huge_body()[: 31 * 2**20]  # below the limit of one
    head = _head(headers={"Transfer-Encoding": "chunked"})

    def send(_number):
        return server.exchange(head, *_chunked(body))[0]

    for _ in range(2):
        with ThreadPoolExecutor(12) as pool:
            statuses = set(pool.map(send, range(12)))
        assert statuses <= {422, 503}
        # 256 MB of bodies may be in hand, as pieces and joined; what a server has freed it keeps.
        assert server.rss_mb() - before < 2 * 256 + MAX_GROWTH_MB


FRAMINGS = [
    pytest.param({"Content-Length": -5}, b"", {400}, id="negative length"),
    pytest.param({"Content-Length": "five"}, b"", {400}, id="length is a word"),
    pytest.param({"Content-Length": "5, 6"}, b"[[]]]", {400}, id="two lengths in one header"),
    pytest.param({"Content-Length": "5\r\nContent-Length: 6"}, b"[[]]]", {400}, id="two length headers"),
    pytest.param(
        {"Content-Length": 5, "Transfer-Encoding": "chunked"}, b"0\r\n\r\n", {400}, id="length and chunks"
    ),
    pytest.param({"Transfer-Encoding": "gzip, chunked"}, b"0\r\n\r\n", {400}, id="unknown encoding"),
    pytest.param({"Transfer-Encoding": "chunked"}, b"zz\r\n", {400}, id="chunk size is no number"),
    pytest.param({"Transfer-Encoding": "chunked"}, b"-5\r\n", {400}, id="negative chunk"),
    pytest.param({"Content-Length": 5}, b"{}", {0}, id="length too long, then gone"),
]


@pytest.mark.parametrize(("headers", "body", "statuses"), FRAMINGS)
def test_webhook_lying_length_is_refused(server, headers, body, statuses):
    status, text = server.exchange(_head(headers=headers), body, end_of_input=0 in statuses)
    assert status in statuses, text
    assert "expected" in text or status == 0


@pytest.mark.parametrize("headers", [{}, {"Content-Length": 5}], ids=["chunks", "length and chunks"])
def test_webhook_bad_chunk_together_with_the_head_is_answered_once(server, headers):
    head = _head(headers=headers | {"Transfer-Encoding": "chunked"})
    status, text = server.exchange(head + b"zz\r\n")
    assert (status, text.count("expected")) == (400, 1)


def test_webhook_length_too_short_is_refused(server):
    body = _event()
    answer = server.exchange(_head(headers={"Content-Length": len(body) - 9}) + body)
    assert_refused(answer, {422}, "JSON")


def test_webhook_connection_reset_in_the_body_is_survived(server):
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", server.port), 10)
        connection.sendall(_head(headers={"Content-Length": 10_000}) + b'{"action": ')
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def test_body_that_does_not_arrive_is_refused(server):
    started = time.monotonic()
    answer = server.exchange(_head(headers={"Content-Length": 1000}), b'{"action": ')
    assert_refused(answer, {408}, "within")
    assert time.monotonic() - started < 35


def test_half_open_connections_leave_health_alone(server):
    opened = []
    with contextlib.ExitStack() as stack:
        for number in range(600):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            with contextlib.suppress(ConnectionError):
                connection.sendall(
                    (b"", b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")[number % 2]
                )
            opened.append(connection)
        for connection in opened[-100:]:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"a")
        assert server.is_healthy()


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"".join(b"X-%d: %s\r\n" % (n, CANARY.encode()) for n in range(20_000)), id="many"),
        pytest.param(b"X-Long: " + b"a" * 2**20 + b"\r\n", id="long"),
        pytest.param(b"no colon\r\n", id="no header"),
        pytest.param(b"X-Nul: \0\r\n", id="NUL"),
    ],
)
def test_header_flood_is_refused(server, head):
    answer = server.exchange(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
    assert_refused(answer, {400, 431}, "headers")


@pytest.mark.parametrize(
    ("request_line", "statuses"),
    [
        pytest.param(f"GET /{CANARY} HTTP/1.1", {404}, id="no such path"),
        pytest.param("GET /../../etc/passwd HTTP/1.1", {404}, id="path outside"),
        pytest.param(f"GET /%00{CANARY} HTTP/1.1", {404}, id="NUL in the path"),
        pytest.param("GET /webhook HTTP/1.1", {405}, id="wrong method"),
        pytest.param("DELETE /health HTTP/1.1", {405}, id="wrong method of health"),
        pytest.param(f"{CANARY} /health HTTP/1.1", {400, 405}, id="made-up method"),
        pytest.param("GET /health HTTP/one", {400}, id="unknown version"),
        pytest.param("GET /" + "a" * 20_000 + " HTTP/1.1", {400, 404}, id="long path"),
        pytest.param("nonsense", {400}, id="no request line"),
        pytest.param("\x16\x03\x01\x02\x00", {400}, id="TLS"),
    ],
)
def test_route_that_is_not_served_is_refused(server, request_line, statuses):
    answer = server.exchange(f"{request_line}\r\nHost: localhost\r\n\r\n".encode("latin-1"))
    assert_refused(answer, statuses, "expected")
