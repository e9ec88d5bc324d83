"""An HTTP proxy of a test: relays every CONNECT to one port of loopback, and keeps what it was sent."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ConnectProxy:
    """The proxy and the targets that it was given."""

    url: str = ""
    targets: list[str] = field(default_factory=list)


@contextmanager
def run_connect_proxy(port: int) -> Iterator[ConnectProxy]:
    """Run a proxy as long as the block; every tunnel ends at this port."""
    proxy = ConnectProxy()

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            proxy.targets.append(self.path)
            with socket.create_connection(("127.0.0.1", port)) as far:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_relay, args=(far, self.connection), daemon=True)
                back.start()
                _relay(self.connection, far)
                back.join(5)
            self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
