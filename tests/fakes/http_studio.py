"""As much of Label Studio as other processes need to take in skipped annotations, over HTTP on loopback."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

__all__ = ["HttpStudio"]

SAVED_AT = "2026-01-02T03:04:05.678901Z"


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
                if self.path.startswith("/api/tasks?"):
                    found = studio.find_task(self.path)
                else:
                    kind, number = re.fullmatch(r"/api/(\w+)/(\d+)/?(?:\?.*)?", self.path).groups()
                    found = studio.answer(kind, int(number))
                body = json.dumps(found).encode()
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
            "updated_at": SAVED_AT,
            "result": [],
        }

    def find_task(self, path):
        """Return the one task that a query of the Data Manager names."""
        (query,) = parse_qs(urlsplit(path).query)["query"]
        (item,) = json.loads(query)["filters"]["items"]
        task = {"id": item["value"], "project": self.project_id, "data": {}, "is_labeled": True}
        return {"tasks": [task | {"updated_at": SAVED_AT}], "total": 1}

    def stop(self):
        """Close the port."""
        self.server.shutdown()
        self.server.server_close()
