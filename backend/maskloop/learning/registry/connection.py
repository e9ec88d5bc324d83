"""The connection to MLflow: its client, its errors as RegistryError, and files on its server."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from filelock import FileLock

from maskloop.errors import RegistryError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowConnection", "local_path"]

_EXPERIMENT = "maskloop"
_CLIENT_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Its default retries take minutes; here the job is retried, and predictions continue without it.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    # Its progress bars and links would appear between the lines of the log.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MlflowConnection:
    """MLflow, embedded or on a server; imported and connected at the first use."""

    def __init__(self, uri: str, artifacts_dir: Path) -> None:
        self._uri = uri
        self._artifacts_dir = artifacts_dir
        self._lazy_client: MlflowClient | None = None
        self.experiment_id = ""  # set when the client is created
        self._lock = threading.Lock()

    def client(self) -> MlflowClient:
        """Return the client; the first call connects."""
        with self._lock:
            if self._lazy_client is None:
                self._lazy_client = self._connect()
            return self._lazy_client

    def _connect(self) -> MlflowClient:
        for variable, value in _CLIENT_DEFAULTS.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        database = _sqlite_path(self._uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        self._artifacts_dir.mkdir(parents=True, exist_ok=True)
        # Several processes that open a new database at once would each create its tables.
        with FileLock(self._artifacts_dir / ".first-use.lock"):
            client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            client.search_registered_models(max_results=1)
            experiment = client.get_experiment_by_name(_EXPERIMENT)
            location = self._artifacts_dir.as_uri() if database is not None else None
            self.experiment_id = (
                experiment.experiment_id
                if experiment is not None
                else client.create_experiment(_EXPERIMENT, artifact_location=location)
            )
        return client

    def download(self, source: str, target: Path) -> None:
        """Download a folder of artifacts; it appears complete or not at all."""
        import mlflow

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as partial:
            with self.translated(f"model files {source}"):
                got = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=partial, tracking_uri=self._uri
                )
            with contextlib.suppress(OSError):  # another process was faster; its files are checked
                Path(got).replace(target)

    def remove(self, source: str) -> None:
        """Delete a folder of artifacts; nothing happens where it does not exist.

        Raises:
            RegistryError: it is on this machine and outside the folder of artifacts.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        here = local_path(source)
        if here is not None:
            root, real = self._artifacts_dir.resolve(), here.resolve()
            if real == root or not real.is_relative_to(root):
                raise RegistryError(
                    f"model files {source}",
                    expected=f"a folder inside {root}",
                    got=f"{real}, which is not deleted",
                    remedy="check who registered it; delete it by hand if it is a model version's",
                )
            shutil.rmtree(real, ignore_errors=True)
            return
        with self.translated(f"model files {source}"):
            repository: Any = get_artifact_repository(source, tracking_uri=self._uri)
            repository.delete_artifacts()

    def exclusive(self) -> FileLock:
        """Return a lock for changes in several steps, shared by all processes with the same folder."""
        self._artifacts_dir.mkdir(parents=True, exist_ok=True)
        return FileLock(self._artifacts_dir / ".change.lock")

    @contextlib.contextmanager
    def translated(self, place: str) -> Iterator[None]:
        """Translate MLflow's errors into RegistryError."""
        try:
            yield
        except RegistryError:
            raise
        except Exception as exc:  # MLflow passes on errors of SQLAlchemy, requests and the file system
            raise RegistryError(
                place,
                expected=f"an answer from MLflow at {_without_password(self._uri, self._uri)}",
                got=_without_password(first_line(exc), self._uri),
                remedy="check MLFLOW_TRACKING_URI and that the database or server can be reached",
            ) from exc


def local_path(source: str) -> Path | None:
    """Return the folder of an artifact address, None where it is not on this machine."""
    parsed = urlparse(source)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(source) if parsed.scheme == "" else None


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _without_password(text: str, uri: str) -> str:
    password = urlparse(uri).password
    return text.replace(f":{password}@", ":***@") if password else text
