"""Model files that an MLflow server keeps (`--serve-artifacts`): two hosts share no disk."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from maskloop.errors import RegistryError
from maskloop.learning.registry import MlflowRegistry

# MLflow's own tables and entities warn of what SQLAlchemy and pydantic will change one day
pytestmark = pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore:::pydantic")

ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
NAME = "maskloop-1"


class ArtifactServer:
    """The artifact routes of an MLflow server, which mlflow-skinny does not bring."""

    def __init__(self):
        self.files = {}
        self.away = False
        artifacts = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                artifacts.files[self.path.removeprefix(f"{ROUTE}/")] = body
                self._send(b"{}")

            def do_GET(self):
                asked = urlsplit(self.path)
                path = asked.path.removeprefix(ROUTE).strip("/")
                if artifacts.away:
                    self.send_error(503)
                elif path in artifacts.files:
                    self._send(artifacts.files[path])
                elif path:
                    self.send_error(404)
                else:
                    self._send(json.dumps(artifacts.listing(parse_qs(asked.query)["path"][0])).encode())

            def do_DELETE(self):
                gone = self.path.removeprefix(f"{ROUTE}/")
                for path in [path for path in artifacts.files if path.startswith(gone)]:
                    del artifacts.files[path]
                self._send(b"{}")

            def _send(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}{ROUTE}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def listing(self, folder):
        names = [path.removeprefix(f"{folder}/") for path in self.files if path.startswith(f"{folder}/")]
        files = [
            {"path": name, "is_dir": False, "file_size": len(self.files[f"{folder}/{name}"])}
            for name in names
            if "/" not in name
        ]
        folders = [
            {"path": name, "is_dir": True} for name in {name.split("/")[0] for name in names if "/" in name}
        ]
        return {"files": files + folders}


@pytest.fixture(scope="module")
def artifact_server():
    started = ArtifactServer()
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory, artifact_server):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('served') / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).create_experiment("maskloop", artifact_location=artifact_server.url)
    return uri


@pytest.fixture
def make_registry(tmp_path, artifact_server, tracking_uri):
    """Registries of different hosts: one database, folders of their own."""
    artifact_server.files.clear()
    artifact_server.away = False
    return lambda host: MlflowRegistry(tracking_uri, tmp_path / host)


def _register(registry, tmp_path, *, promote=True):
    folder = tmp_path / "checkpoint"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    made = registry.register(NAME, folder, labels=("disc",), metrics=None, parent=None)
    if promote:
        registry.promote(NAME, made.number)
    return made


def test_champion_on_another_host_is_fetched_once(make_registry, artifact_server, tmp_path):
    _register(make_registry("first"), tmp_path)
    fetched = make_registry("second").champion(NAME)
    assert fetched.path.is_relative_to(tmp_path / "second")
    assert (fetched.path / "model.safetensors").read_bytes() == b"weights" * 1000
    assert [entry.name for entry in fetched.path.parent.iterdir()] == [fetched.path.name]
    artifact_server.files.clear()
    assert make_registry("second").champion(NAME) == fetched


def test_champion_downloaded_damaged_is_downloaded_again(make_registry, artifact_server, tmp_path):
    _register(make_registry("first"), tmp_path)
    (name,) = (path for path in artifact_server.files if path.endswith("model.safetensors"))
    whole, artifact_server.files[name] = artifact_server.files[name], b"other" * 1000
    second = make_registry("second")
    with pytest.raises(RegistryError, match=r"model\.safetensors"):
        second.champion(NAME)
    artifact_server.files[name] = whole
    assert (second.champion(NAME).path / "model.safetensors").read_bytes() == whole


def test_champion_server_unreachable_raises_and_leaves_nothing(make_registry, artifact_server, tmp_path):
    _register(make_registry("first"), tmp_path)
    artifact_server.away = True
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        make_registry("second").champion(NAME)
    assert list((tmp_path / "second" / "fetched").iterdir()) == []


def test_delete_removes_the_files_on_the_server_and_later_other_hosts_copies(
    make_registry, artifact_server, tmp_path
):
    first, second = make_registry("first"), make_registry("second")
    old = _register(first, tmp_path)
    copy = second.get(NAME, old.number).path
    new = _register(first, tmp_path)
    _register(first, tmp_path, promote=False)
    files = len(artifact_server.files)
    first.delete(NAME, old.number)
    assert len(artifact_server.files) == files * 2 // 3
    assert copy.exists()
    assert second.champion(NAME).number == new.number
    assert not copy.exists()
