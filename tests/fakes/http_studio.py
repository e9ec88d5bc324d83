"""As much of Label Studio as other processes need to take in skipped annotations, over HTTP on loopback."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["HttpStudio"]


class HttpStudio:
    """Serves one project in which every annotation is skipped, and counts the requests for each annotation.

    Args:
        project_id: the project.
        answer_s: how long an annotation takes.
    """

    def __init__(self, project_id, *, answer_s):
        self.project_id = project_id
        self.answer_s = answer_s
        self.requests = Counter()  # annotation -> requests
        self.lock = threading.Lock()
        studio = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                kind, number = re.fullmatch(r"/api/(\w+)/(\d+)/?(?:\?.*)?", self.path).groups()
                body = json.dumps(studio.answer(kind, int(number))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, kind, number):
        """Return the JSON of a project or an annotation."""
        if kind == "projects":
            return {"id": number, "title": "shared", "label_config": "<View/>"}
        with self.lock:
            self.requests[number] += 1
        time.sleep(self.answer_s)
        return {
            "id": number,
            "project": self.project_id,
            "task": 1000 + number,
            "was_cancelled": True,
            "updated_at": "2026-01-02T03:04:05.678901Z",
            "result": [],
        }

    def stop(self):
        """Close the port."""
        self.server.shutdown()
        self.server.server_close()
