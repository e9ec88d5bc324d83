"""What `maskloop doctor` says of a project that was just connected, and when its backend is gone."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from maskloop.settings import Settings
from maskloop.testing.memory import MemoryQueue
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import run_checks
from maskloop_studio.doctor.findings import Level
from maskloop_studio.doctor.order import ORDER_CHECKS
from maskloop_studio.doctor.project import PROJECT_CHECKS
from maskloop_studio.labelstudio.client import StudioClient, StudioProject
from maskloop_studio.projects.connect import connect_project, disconnect_project
from maskloop_studio.services import Services

pytestmark = pytest.mark.studio


class Answering(BaseHTTPRequestHandler):
    """The smallest labeling backend that Label Studio accepts."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "UP", "model_version": "v", "results": []}).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def backend() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def services(settings: Settings, studio: RealStudio) -> Iterator[Services]:
    changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token)}
    made = Services(settings.model_copy(update=changes))
    made.queue = MemoryQueue()
    yield made
    made.close()


def found(project_id: int, services: Services) -> dict[str, Level]:
    """Return check -> the worst that it found."""
    worst: dict[str, Level] = {}
    order = [Level.GOOD, Level.HINT, Level.SKIPPED, Level.TROUBLE]
    for one in run_checks((*PROJECT_CHECKS, *ORDER_CHECKS), CheckContext(services, project_id)):
        worst[one.check] = max(worst.get(one.check, Level.GOOD), one.level, key=order.index)
    return worst


def test_doctor_connected_is_well_and_a_backend_that_went_is_told(
    services: Services,
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    make_task: Callable[[int], int],
    backend: ThreadingHTTPServer,
) -> None:
    project = make_project()
    task_id = make_task(project.id)
    assert found(project.id, services)["backend"] is Level.TROUBLE
    made = connect_project(project.id, f"http://127.0.0.1:{backend.server_port}", services, new_labels=True)
    before = found(project.id, services)
    assert (before["project"], before["backend"], before["webhook"]) == (Level.GOOD,) * 3
    assert (before["images"], before["sampling"], before["tabs"]) == (Level.GOOD,) * 3
    assert before["shown version"] is Level.TROUBLE  # nothing was predicted yet

    client.create_prediction(task_id, [], score=0.5, cluster=1, model_version=made.model_version)
    client.update_project(project.id, model_version=made.model_version)
    assert Level.TROUBLE not in found(project.id, services).values()

    (hook,) = client.webhooks(project.id)
    client.update_webhook(hook["id"], is_active=False)
    backend.shutdown()
    backend.server_close()
    after = found(project.id, services)
    assert (after["backend"], after["webhook"], after["tabs"]) == (Level.TROUBLE, Level.TROUBLE, Level.GOOD)

    assert disconnect_project(project.id, services).tabs == 1
    assert found(project.id, services)["project"] is Level.TROUBLE
