"""A reverse proxy of a test: serves another server below a sub-path, over TLS where wanted."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

HOP_HEADERS = {"connection", "transfer-encoding", "content-encoding", "content-length", "host", "keep-alive"}


@contextmanager
def run_prefix_proxy(target: str, prefix: str, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `target` below `prefix` as long as the block, and give the address; other paths get 404."""
    client = httpx.Client(base_url=target, trust_env=False, timeout=60)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
            answer = client.request(
                self.command, self.path.removeprefix(prefix), content=body, headers=headers
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_HEADERS:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()
        client.close()
