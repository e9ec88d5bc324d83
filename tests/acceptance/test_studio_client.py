"""Our shell around the API, and the simulated annotator, against a real Label Studio."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from maskloop.errors import StudioError
from maskloop.masks import mask_to_segment, segment_iou
from maskloop.settings import Settings
from maskloop.testing.memory import MemoryQueue
from maskloop.types import EditCounts, Prediction, Segment
from maskloop_studio.demo.annotator import SimulatedAnnotator
from maskloop_studio.demo.studio import RealStudio
from maskloop_studio.formats import annotation_to_segments, prediction_to_regions
from maskloop_studio.formats.label_config import map_labels, parse_label_config
from maskloop_studio.images.fetcher import ImageFetcher
from maskloop_studio.labelstudio import data_manager
from maskloop_studio.labelstudio.client import StudioClient, StudioProject
from maskloop_studio.labelstudio.webhooks import SECRET_HEADER
from maskloop_studio.projects.connect import connect_project, disconnect_project
from maskloop_studio.services import Services

pytestmark = pytest.mark.studio

SIZE_HW = (240, 320)
LABELS = ("Car", "Tree", "House")


class RecordingBackend:
    """The smallest labeling backend that Label Studio accepts; keeps what it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.headers: list[tuple[str, dict[str, str]]] = []
        self.changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.headers.append((self.path, dict(self.headers)))
                self.answer({"status": "UP"})

            def do_POST(self) -> None:
                outer.headers.append((self.path, dict(self.headers)))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                with outer.changed:
                    outer.seen.append((self.path, body))
                    outer.changed.notify_all()
                self.answer({"model_version": "fake-v1", "results": []})

            def answer(self, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def headers_of(self, path: str) -> dict[str, str]:
        """What came along with the last request for a path."""
        return next(headers for seen, headers in reversed(self.headers) if seen == path)

    def wait_for(self, action: str, timeout_s: float = 30.0) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next(
                (b for path, b in self.seen if path == "/webhook" and b.get("action") == action), None
            )

        with self.changed:
            assert self.changed.wait_for(lambda: found() is not None, timeout_s), f"no {action} came"
            return found() or {}


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    recording = RecordingBackend()
    yield recording
    recording.server.shutdown()
    recording.server.server_close()


def disc(y: int, x: int, radius: int, label: str = "Car") -> Segment:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    segment = mask_to_segment(np.hypot(rows - y, columns - x) <= radius, label=label, score=0.9)
    assert segment is not None
    return segment


def predict(client: StudioClient, project: StudioProject, task_id: int, *segments: Segment) -> int:
    label_map = map_labels(parse_label_config(project.label_config), LABELS)
    prediction = Prediction(segments=segments, size_hw=SIZE_HW, confidence=0.5)
    regions = prediction_to_regions(prediction, label_map, id_seed=f"{task_id}:m-v1")
    prediction_id = client.create_prediction(task_id, regions, score=0.5, cluster=3, model_version="m-v1")
    client.update_project(project.id, model_version="m-v1", sampling="Uncertainty sampling")
    return prediction_id


def test_iter_tasks_pages_and_leaves_out_labelled_ones(
    client: StudioClient, make_project: Callable[..., StudioProject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_manager, "PAGE_SIZE", 3)
    project = make_project()
    ids = client.import_tasks(project.id, [{"data": {"image": f"http://host/{n}.png"}} for n in range(7)])
    client.create_annotation(ids[1], {"result": []})
    assert [task.id for task in client.iter_tasks(project.id)] == ids
    assert [t.id for t in client.iter_tasks(project.id, only_unlabelled=True)] == [ids[0], *ids[2:]]
    assert client.count_tasks(project.id, only_unlabelled=True) == 6
    assert client.task(ids[2], project_id=project.id) == client.task(ids[2])
    assert client.task(ids[2], project_id=make_project().id) is None


def test_next_task_least_sure_comes_first(
    client: StudioClient, make_project: Callable[..., StudioProject]
) -> None:
    project = make_project()
    ids = client.import_tasks(project.id, [{"data": {"image": f"http://host/{n}.png"}} for n in range(3)])
    for task_id, score in zip(ids, (0.5, 0.1, 0.9), strict=True):
        client.create_prediction(task_id, [], score=score, cluster=0, model_version="m-v1")
    client.update_project(project.id, model_version="m-v1", sampling="Uncertainty sampling")
    task = client.next_task(project.id)
    assert task is not None
    assert task["id"] == ids[1]


def test_prediction_comes_back_as_stored(
    client: StudioClient, make_project: Callable[..., StudioProject], make_task: Callable[[int], int]
) -> None:
    project = make_project()
    task_id = make_task(project.id)
    prediction_id = predict(client, project, task_id, disc(110, 90, 50))
    stored = client.prediction(prediction_id)
    assert stored is not None
    assert (stored["score"], stored["cluster"], stored["model_version"]) == (0.5, 3, "m-v1")
    assert client.prediction_ids(task_id, "m-v1") == [prediction_id]
    assert client.prediction_ids(task_id, "other") == []


def test_missing_things_are_none(client: StudioClient) -> None:
    assert client.annotation(10**6) is None
    assert client.prediction(10**6) is None
    assert client.task(10**6) is None


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [("http://127.0.0.1:1", "x", "start Label Studio"), (None, "wrong", "set LABEL_STUDIO_API_KEY")],
    ids=["nobody listens", "wrong token"],
)
def test_whoami_refused_names_the_remedy(studio: RealStudio, url: str | None, token: str, words: str) -> None:
    wrong = StudioClient(url or studio.url, token)
    with pytest.raises(StudioError, match=words):
        wrong.whoami()
    wrong.close()


def test_update_project_unseen_version_says_what_to_do(
    client: StudioClient, make_project: Callable[..., StudioProject]
) -> None:
    with pytest.raises(StudioError, match="push a prediction of that version first"):
        client.update_project(make_project().id, model_version="never-seen")


def test_connect_backend_nobody_listens_says_what_to_do(
    client: StudioClient, make_project: Callable[..., StudioProject]
) -> None:
    with pytest.raises(StudioError, match="start the backend"):
        client.connect_backend(make_project().id, "http://127.0.0.1:1", "maskloop")


def test_connect_backend_twice_is_one_and_gets_webhooks(
    client: StudioClient, make_project: Callable[..., StudioProject], backend: RecordingBackend
) -> None:
    project = make_project()
    first = client.connect_backend(project.id, backend.url, "maskloop")
    assert client.connect_backend(project.id, f"{backend.url}/", "again") == first
    assert [hook["url"] for hook in client.webhooks(project.id)] == [f"{backend.url}/webhook"]
    assert client.project(project.id).model_version == "maskloop"
    client.start_training(first)
    assert backend.wait_for("START_TRAINING")["project"]["id"] == project.id
    client.delete_backend(project.id, first)
    assert client.backends(project.id) == []
    assert client.webhooks(project.id) == []


@pytest.fixture
def services(settings: Settings, studio: RealStudio) -> Iterator[Services]:
    changes = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token)}
    made = Services(settings.model_copy(update=changes))
    made.queue = MemoryQueue()
    yield made
    made.client.close()
    made.close()


def test_connect_secures_the_webhook_and_disconnect_leaves_nothing(
    services: Services,
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    backend: RecordingBackend,
) -> None:
    project = make_project()
    made = connect_project(project.id, backend.url, services, new_labels=True)
    assert [one.is_interactive for one in client.backends(project.id)] == [True]
    assert made.deletion_told is False  # this Label Studio makes no webhooks of the organization by its API
    secret = services.store.projects.webhook_secret()
    task_id = client.import_tasks(project.id, [{"data": {"image": "http://host/1.png"}}])[0]
    client.create_annotation(task_id, {"result": []})
    backend.wait_for("ANNOTATION_CREATED")
    assert backend.headers_of("/webhook")[SECRET_HEADER] == secret

    (hook,) = client.webhooks(project.id)
    client.update_webhook(hook["id"], headers={"X-Mine": "kept"}, is_active=False)
    client.create_webhook(url=f"{backend.url}/webhook", project=project.id)
    client.create_webhook(
        url="http://127.0.0.1:1/webhook", project=project.id, headers={SECRET_HEADER: secret}
    )
    client.create_webhook(url="http://127.0.0.1:1/other", project=project.id)
    connect_project(project.id, backend.url, services, new_labels=True)
    repaired, foreign = sorted(
        client.webhooks(project.id), key=lambda hook: hook["url"] == "http://127.0.0.1:1/other"
    )
    assert (repaired["id"], repaired["is_active"]) == (hook["id"], True)
    assert repaired["headers"] == {"X-Mine": "kept", SECRET_HEADER: secret}

    gone = disconnect_project(project.id, services)
    assert (gone.backends, gone.webhooks) == (1, 1)
    assert client.backends(project.id) == []
    assert client.project(project.id).sampling == "Sequential sampling"
    assert client.webhooks(project.id) == [foreign]
    assert services.store.projects.ids() == ()
    assert disconnect_project(project.id, services).backends == 0


def test_connect_with_credentials_gives_them_to_backend_and_webhook(
    services: Services,
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    backend: RecordingBackend,
) -> None:
    project = make_project()
    connect_project(project.id, backend.url, services, new_labels=True)
    changes = {"basic_auth_user": "us", "basic_auth_password": SecretStr("pa:ss")}
    services.settings = services.settings.model_copy(update=changes)
    connect_project(project.id, backend.url, services, new_labels=True)
    expected = "Basic dXM6cGE6c3M="
    assert backend.headers_of("/setup")["Authorization"] == expected
    (registered,) = client.backends(project.id)
    assert registered.auth_method == "BASIC_AUTH"
    client.start_training(registered.id)
    backend.wait_for("START_TRAINING")
    assert backend.headers_of("/webhook")["Authorization"] == expected
    (hook,) = client.webhooks(project.id)
    assert hook["headers"]["Authorization"] == expected

    services.settings = services.settings.model_copy(
        update={"basic_auth_user": None, "basic_auth_password": None}
    )
    connect_project(project.id, backend.url, services, new_labels=True)
    # Without a login the backend gets the webhook's secret; the webhook itself carries it in its own header.
    secret = services.store.projects.webhook_secret()
    own = "Basic " + base64.b64encode(f"maskloop:{secret}".encode()).decode()
    assert backend.headers_of("/setup")["Authorization"] == own
    assert client.backends(project.id)[0].auth_method == "BASIC_AUTH"
    assert "Authorization" not in client.webhooks(project.id)[0]["headers"]


def test_connect_at_another_address_takes_the_old_one_away(
    services: Services,
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    backend: RecordingBackend,
) -> None:
    project = make_project()
    connect_project(project.id, backend.url, services, new_labels=True)
    moved = backend.url.replace("127.0.0.1", "localhost")
    connect_project(project.id, moved, services, new_labels=True)
    assert [one.url for one in client.backends(project.id)] == [moved]
    assert [hook["url"] for hook in client.webhooks(project.id)] == [f"{moved}/webhook"]


def test_404_of_a_proxy_is_no_deletion(studio: RealStudio) -> None:
    behind = StudioClient(f"{studio.url}/nothing-here", studio.token)
    with pytest.raises(StudioError, match="404"):
        behind.annotation(1)
    behind.close()


def test_annotator_edits_arrive_at_the_webhook(
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    make_task: Callable[[int], int],
    backend: RecordingBackend,
) -> None:
    project = make_project()
    task_id = make_task(project.id)
    right, near, wrong = disc(60, 60, 30), disc(160, 80, 40, "Tree"), disc(120, 260, 30, "House")
    prediction_id = predict(client, project, task_id, right, near, wrong)
    client.connect_backend(project.id, backend.url, "maskloop")
    truth = (right, disc(168, 80, 40, "Tree"), disc(60, 200, 25))
    done = SimulatedAnnotator(client, seed=1).annotate(task_id, truth, size_hw=SIZE_HW)
    sent = backend.wait_for("ANNOTATION_CREATED")["annotation"]

    assert done.edits == EditCounts(kept=1, changed=1, redrawn=1, added=1, removed=1)
    assert (sent["id"], sent["parent_prediction"]) == (done.annotation_id, prediction_id)
    assert sent["lead_time"] == pytest.approx(done.seconds)
    assert sorted(region["origin"] for region in sent["result"]) == [
        "manual",
        "prediction",
        "prediction-changed",
    ]
    content = annotation_to_segments(sent["result"], parse_label_config(project.label_config))
    best = [max(segment_iou(target, segment) for segment in content.segments) for target in truth]
    assert min(best) > 0.97


def test_fetcher_gets_uploaded_image_with_token_only(
    studio: RealStudio,
    client: StudioClient,
    make_project: Callable[..., StudioProject],
    make_task: Callable[[int], int],
) -> None:
    task = client.task(make_task(make_project().id))
    assert task is not None
    settings = Settings(label_studio_url=studio.url, label_studio_api_key=studio.token)
    with ImageFetcher(settings) as fetcher:
        data = fetcher.fetch(task.data["image"])
    assert Image.open(io.BytesIO(data)).size == SIZE_HW[::-1]
