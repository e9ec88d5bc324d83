"""A web server of a test, on loopback: answers from a table, keeps the requests, can be slow or broken."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

Page = tuple[int, dict[str, str], bytes]


class Seen(NamedTuple):
    """One request."""

    method: str
    path: str
    authorization: str | None
    body: bytes
    host: str = ""  # of the Host header, without port


@dataclass
class HttpHost:
    """What the server answers, and which requests it got."""

    url: str = ""
    pages: dict[str, Page | Callable[[Seen], Page]] = field(default_factory=dict)  # path with query -> answer
    seen: list[Seen] = field(default_factory=list)
    failures: list[Page | int] = field(default_factory=list)  # first answers; 0 hangs up without one
    delay_s: float = 0.0
    slow_answers: int = 10**9  # so many are delayed
    drip_s: float | None = None  # pause between the single bytes of an answer
    drip_headers: bool = False  # those of the headers as well
    at_once: int = 0  # requests that are being answered
    most_at_once: int = 0
    keep_alive: bool = False  # for answers that all have a Content-Length
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def paths(self) -> list[str]:
        """The paths of the requests, in order."""
        return [request.path for request in self.seen]

    @property
    def hosts(self) -> list[str]:
        """The Host headers of the requests, in order."""
        return [request.host for request in self.seen]

    @property
    def authorized(self) -> list[tuple[str, str | None]]:
        """Path and Authorization header of the requests, in order."""
        return [(request.path, request.authorization) for request in self.seen]

    def answer(self, request: Seen) -> Page | None:
        """Return the next answer, None to hang up."""
        failure = self.failures.pop(0) if self.failures else None
        if failure == 0:
            return None
        if failure is not None:
            return (failure, {}, b"") if isinstance(failure, int) else failure
        page = self.pages.get(request.path, (404, {}, b""))
        return page(request) if callable(page) else page


def _handler_for(host: HttpHost) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if host.keep_alive else "HTTP/1.0"

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True  # the client closed the connection, as some tests want

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name = self.headers.get("Host", "").partition(":")[0]
            request = Seen(self.command, self.path, self.headers.get("Authorization"), body, name)
            with host.lock:
                host.at_once += 1
                host.most_at_once = max(host.most_at_once, host.at_once)
                host.seen.append(request)
                page = host.answer(request)
                is_slow = len(host.seen) <= host.slow_answers
            time.sleep(host.delay_s if is_slow else 0)
            with host.lock:
                host.at_once -= 1
            if page is not None:
                self.send_page(*page)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def send_page(self, status: int, headers: dict[str, str], body: bytes) -> None:
            if host.drip_s is not None and host.drip_headers:
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
                    self.wfile.write(bytes([byte]))
                    time.sleep(host.drip_s)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if host.drip_s is None:
                self.wfile.write(body)
                return
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(host.drip_s)

        def log_message(self, *_: object) -> None: ...

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...  # a client that does not accept the certificate


@contextmanager
def run_host(
    tls: ssl.SSLContext | None = None, *, name: str = "127.0.0.1", keep_alive: bool = False
) -> Iterator[HttpHost]:
    """Run a server as long as the block, over TLS where a context is given."""
    host = HttpHost(keep_alive=keep_alive)
    server = _Server(("127.0.0.1", 0), _handler_for(host))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    host.url = f"{'https' if tls else 'http'}://{name}:{server.server_address[1]}"
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
