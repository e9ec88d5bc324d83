"""A model registry in MLflow: one run per training, one model version per checkpoint, the alias `champion`.

Format: https://mlflow.org/docs/latest/ml/model-registry; what it has no field for is in a version's tags.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from filelock import FileLock

from maskloop.errors import RegistryError
from maskloop.learning.registry_contract import (
    LossCurve,
    VersionRecord,
    check_folder,
    folder_digests,
    json_to_metrics,
    metrics_to_json,
    no_such_version,
)
from maskloop.types import HoldoutMetrics, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowRegistry"]

_ALIAS = "champion"
_EXPERIMENT = "maskloop"
_ARTIFACT = "checkpoint"  # the checkpoint's folder within a run's artifacts
_PARAM_CHARACTERS = 6000  # MLflow's limit on a parameter's value
_CLIENT_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Its own patience with a server that is away is minutes; a job is tried again, a prediction goes on.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    # Its progress bars and links would stand between the lines of the log.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MlflowRegistry:
    """Model versions in MLflow, embedded (SQLite and a folder) or on a server.

    Cheap to make: MLflow is imported, and the database opened, on first use. Where the tracking server keeps
    artifacts elsewhere, a version's folder is fetched once into `artifacts_dir`.
    """

    def __init__(self, tracking_uri: str, artifacts_dir: Path) -> None:
        self._uri = tracking_uri
        self._artifacts_dir = artifacts_dir.resolve()
        self._lazy_client: MlflowClient | None = None
        self._experiment_id = ""  # known once there is a client
        self._lock = threading.Lock()
        self._checked: set[tuple[str, int]] = set()  # versions whose files this process has read in full

    def register(
        self,
        name: str,
        folder: Path,
        *,
        labels: Sequence[str],
        metrics: HoldoutMetrics | None,
        parent: int | None,
        metadata: Mapping[str, str] | None = None,
        loss_curve: LossCurve = (),
    ) -> ModelVersion:
        """See ModelRegistry; the training becomes an MLflow run with parameters, metrics and loss curve."""
        digests = folder_digests(folder, place=f"model {name}")
        remembered = dict(metadata or {})
        with self._translated(f"model {name}"):
            client = self._client()
            run_id = self._log_run(client, name, folder, remembered, metrics, loss_curve)
            source = f"{client.get_run(run_id).info.artifact_uri}/{_ARTIFACT}"
            self._ensure_model(client, name)
            made = client.create_model_version(
                name,
                source,
                run_id=run_id,
                tags={
                    "labels": json.dumps(list(labels)),
                    "metrics": metrics_to_json(metrics),
                    "parent": json.dumps(parent),
                    "metadata": json.dumps(remembered),
                    "digests": json.dumps(digests),
                },
            )
        return self.get(name, int(made.version))

    def champion(self, name: str) -> ModelVersion | None:
        """See ModelRegistry; takes milliseconds, so that servers can ask every second."""
        from mlflow.exceptions import MlflowException

        with self._translated(f"model {name}"):
            client = self._client()
            try:
                found = client.get_model_version_by_alias(name, _ALIAS)
            except MlflowException as exc:
                if exc.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        return self._checked_version(found)

    def promote(self, name: str, number: int) -> None:
        """See ModelRegistry."""
        self.get(name, number)
        with self._translated(f"model {name}"):
            self._client().set_registered_model_alias(name, _ALIAS, str(number))

    def versions(self, name: str) -> list[ModelVersion]:
        """See ModelRegistry."""
        found: list[Any] = []
        token: str | None = None
        with self._translated(f"model {name}"):
            while True:
                page = self._client().search_model_versions(f"name = '{name}'", page_token=token)
                found.extend(page)
                token = page.token
                if not token:
                    break
        return sorted((self._record(item).version for item in found), key=lambda version: version.number)

    def get(self, name: str, number: int) -> ModelVersion:
        """See ModelRegistry."""
        return self._checked_version(self._fetch(name, number))

    def metadata(self, name: str, number: int) -> dict[str, str]:
        """See ModelRegistry."""
        return self._record(self._fetch(name, number)).metadata

    def _fetch(self, name: str, number: int) -> Any:
        from mlflow.exceptions import MlflowException

        with self._translated(f"model {name}"):
            client = self._client()
            try:
                return client.get_model_version(name, str(number))
            except MlflowException as exc:
                if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise no_such_version(name, number) from exc
                raise

    def _checked_version(self, found: Any) -> ModelVersion:
        record = self._record(found)
        fetched = _local_path(found.source) is None
        if fetched and not record.version.path.is_dir():
            self._download(found.source, record.version.path)
        key = (record.version.name, record.version.number)
        try:
            check_folder(record, contents=key not in self._checked)
        except RegistryError:
            if fetched:  # the next try fetches it anew
                shutil.rmtree(record.version.path, ignore_errors=True)
            raise
        self._checked.add(key)
        return record.version

    def _record(self, found: Any) -> VersionRecord:
        tags = found.tags
        number = int(found.version)
        try:
            version = ModelVersion(
                name=found.name,
                number=number,
                path=_local_path(found.source) or self._artifacts_dir / "fetched" / f"{found.name}-{number}",
                labels=tuple(json.loads(tags["labels"])),
                metrics=json_to_metrics(tags["metrics"]),
                parent=json.loads(tags["parent"]),
            )
            return VersionRecord(
                version=version,
                digests=json.loads(tags["digests"]),
                metadata=json.loads(tags["metadata"]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise RegistryError(
                f"model {found.name}-v{number}",
                expected="a version that maskloop registered, with its tags",
                got=f"{type(exc).__name__}: {exc}",
                remedy="promote a version that `maskloop models list` shows",
            ) from exc

    def _download(self, source: str, target: Path) -> None:
        import mlflow

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as partial:
            with self._translated(f"model files {source}"):
                got = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=partial, tracking_uri=self._uri
                )
            with contextlib.suppress(OSError):  # another process was quicker; its files are checked
                Path(got).replace(target)

    def _client(self) -> MlflowClient:
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
        # Several processes may open a new database at once, and each would make the tables.
        with FileLock(self._artifacts_dir / ".first-use.lock"):
            client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            client.search_registered_models(max_results=1)
            experiment = client.get_experiment_by_name(_EXPERIMENT)
            location = self._artifacts_dir.as_uri() if database is not None else None
            self._experiment_id = (
                experiment.experiment_id
                if experiment is not None
                else client.create_experiment(_EXPERIMENT, artifact_location=location)
            )
        return client

    def _log_run(
        self,
        client: MlflowClient,
        name: str,
        folder: Path,
        metadata: Mapping[str, str],
        metrics: HoldoutMetrics | None,
        loss_curve: LossCurve,
    ) -> str:
        from mlflow.entities import Metric, Param

        run_id = str(client.create_run(self._experiment_id, run_name=name).info.run_id)
        params = [Param(key, value[:_PARAM_CHARACTERS]) for key, value in metadata.items()]
        points = [Metric("loss", loss, 0, step) for step, loss in loss_curve]
        if metrics is not None:
            values = {"ap50": metrics.ap50, "pq": metrics.pq, "miou": metrics.miou}
            points += [Metric(key, value, 0, 0) for key, value in values.items()]
        client.log_batch(run_id, metrics=points, params=params)
        client.log_artifacts(run_id, str(folder), _ARTIFACT)
        client.set_terminated(run_id)
        return run_id

    def _ensure_model(self, client: MlflowClient, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @contextlib.contextmanager
    def _translated(self, place: str) -> Iterator[None]:
        try:
            yield
        except RegistryError:
            raise
        except Exception as exc:  # MLflow lets errors of SQLAlchemy, requests and the file system through
            lines = str(exc).strip().splitlines()
            told = f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"
            raise RegistryError(
                place,
                expected=f"an answer from MLflow at {_without_password(self._uri, self._uri)}",
                got=_without_password(told, self._uri),
                remedy="check MLFLOW_TRACKING_URI and that the database or server can be reached",
            ) from exc


def _local_path(source: str) -> Path | None:
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
