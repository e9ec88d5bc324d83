"""A model registry in MLflow: one run per training, one model version per checkpoint, and aliases.

Format: https://mlflow.org/docs/latest/ml/model-registry; tags hold what has no field there: of a version its
labels, metrics, parent and digests, of a registered model one tag for each change of champion.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskloop.errors import DamagedVersionError, RegistryError
from maskloop.learning.registry.base import (
    CHAMPION,
    VersionRecord,
    check_deletable,
    check_folder,
    ended_waits,
    folder_digests,
    json_to_metrics,
    metrics_to_json,
    no_such_version,
    rollback_line,
    rollback_target,
)
from maskloop.learning.registry.connection import MlflowConnection, local_path
from maskloop.learning.registry.history import PromotionStep, StepKind, json_to_step, step_to_json
from maskloop.learning.registry.runs import MlflowRuns
from maskloop.types import HoldoutMetrics, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowRegistry"]

_ARTIFACT = "checkpoint"  # the checkpoint's folder within a run's artifacts
_STEP = "maskloop.step."  # prefix of the tag of a change of champion; a number and a random suffix follow
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class MlflowRegistry:
    """Model versions in MLflow, embedded (SQLite and a folder) or on a server.

    MLflow is imported, and the database opened, at the first use. Where a tracking server stores the
    artifacts, a version's folder is downloaded once into `artifacts_dir`.
    """

    def __init__(self, tracking_uri: str, artifacts_dir: Path) -> None:
        self._artifacts_dir = artifacts_dir.resolve()
        self.connection = MlflowConnection(tracking_uri, self._artifacts_dir)
        self._runs = MlflowRuns(self.connection)
        self._checked: set[tuple[str, int]] = set()  # versions whose files this process has read completely

    def register(
        self,
        name: str,
        folder: Path,
        *,
        labels: Sequence[str],
        metrics: HoldoutMetrics | None,
        parent: int | None,
        metadata: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> ModelVersion:
        """See ModelRegistry; parameters, metrics and files go to the training's MLflow run."""
        digests = folder_digests(folder, place=f"model {name}")
        extra = dict(metadata or {})
        with self.connection.translated(f"model {name}"):
            client = self.connection.client()
            run_id = run_id or self._runs.create(name)
            self._runs.finish(run_id, params=extra, metrics=metrics, folder=folder, path=_ARTIFACT)
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
                    "metadata": json.dumps(extra),
                    "digests": json.dumps(digests),
                },
            )
        return self.get(name, int(made.version))

    def start_run(self, name: str, key: str) -> str:
        """See ModelRegistry."""
        with self.connection.translated(f"training {key}"):
            return self._runs.find(name, key) or self._runs.create(name, key)

    def log_step(self, run_id: str, *, step: int, loss: float, eta_s: float) -> None:
        """See ModelRegistry; MLflow's page of the run shows both as curves."""
        with self.connection.translated(f"MLflow run {run_id}"):
            self._runs.log(run_id, step, {"loss": loss, "eta_s": eta_s})

    def end_run(self, run_id: str, *, failed: bool) -> None:
        """See ModelRegistry."""
        with self.connection.translated(f"MLflow run {run_id}"):
            self._runs.end(run_id, "FAILED" if failed else "KILLED")

    def losses(self, name: str, key: str) -> list[tuple[int, float]]:
        """See ModelRegistry."""
        with self.connection.translated(f"training {key}"):
            return self._runs.losses(name, key)

    def champion(self, name: str) -> ModelVersion | None:
        """See ModelRegistry; takes milliseconds, so that servers can call it every second."""
        from mlflow.exceptions import MlflowException

        with self.connection.translated(f"model {name}"):
            client = self.connection.client()
            try:
                found = client.get_model_version_by_alias(name, CHAMPION)
            except MlflowException as exc:
                if exc.error_code in _ABSENT:
                    return None
                raise
        return self._checked_version(found)

    def promote(self, name: str, number: int, *, reason: str = "") -> None:
        """See ModelRegistry."""
        with self.connection.exclusive():
            self.get(name, number)
            if self.alias(name, CHAMPION) != number:
                self._move(name, number, "promotion", reason)

    def rollback(self, name: str, *, reason: str = "") -> ModelVersion:
        """See ModelRegistry."""
        with self.connection.exclusive():
            line = rollback_line(self.history(name), self.alias(name, CHAMPION), self.versions(name))
            version = self.get(name, rollback_target(name, line))
            self._move(name, version.number, "rollback", reason)
        return version

    def history(self, name: str) -> tuple[PromotionStep, ...]:
        """See ModelRegistry."""
        tags: dict[str, str] = getattr(self._model(name), "tags", {})
        keys = sorted(key for key in tags if key.startswith(_STEP))
        try:
            return tuple(json_to_step(tags[key]) for key in keys)
        except (KeyError, TypeError, ValueError) as exc:
            raise RegistryError(
                f"model {name}",
                expected=f"tags {_STEP}* as maskloop writes them",
                got=f"{type(exc).__name__}: {exc}",
                remedy="remove the tag that was changed in MLflow",
            ) from exc

    def alias(self, name: str, alias: str) -> int | None:
        """See ModelRegistry."""
        return self._aliases(name).get(alias)

    def aliases(self, name: str) -> dict[str, int]:
        """See ModelRegistry."""
        return self._aliases(name)

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """See ModelRegistry."""
        if number is not None:
            self.get(name, number)
        with self.connection.translated(f"model {name}"):
            client = self.connection.client()
            if number is not None:
                client.set_registered_model_alias(name, alias, str(number))
            elif alias in self._aliases(name):
                client.delete_registered_model_alias(name, alias)

    def delete(self, name: str, number: int) -> None:
        """See ModelRegistry; its MLflow run is kept, with metrics and curve."""
        with self.connection.exclusive():
            found = self._fetch(name, number)
            check_deletable(name, number, self._aliases(name))
            # Files first: after a kill in between, the version is damaged and can be deleted again.
            self.connection.remove(found.source)
            shutil.rmtree(self._download_folder(name, number), ignore_errors=True)
            with self.connection.translated(f"model {name}"):
                self.connection.client().delete_model_version(name, str(number))
        self._checked.discard((name, number))

    def versions(self, name: str) -> list[ModelVersion]:
        """See ModelRegistry."""
        found: list[Any] = []
        token: str | None = None
        with self.connection.translated(f"model {name}"):
            while True:
                page = self.connection.client().search_model_versions(f"name = '{name}'", page_token=token)
                found.extend(page)
                token = page.token
                if not token:
                    break
        return sorted((self._record(item).version for item in found), key=lambda version: version.number)

    def newest(self, name: str, *, limit: int, below: int | None = None) -> list[ModelVersion]:
        """See ModelRegistry."""
        query = f"name = '{name}'" + ("" if below is None else f" AND version_number < {below:d}")
        with self.connection.translated(f"model {name}"):
            found = self.connection.client().search_model_versions(
                query, max_results=limit, order_by=["version_number DESC"]
            )
        return [self._record(item).version for item in found]

    def peek(self, name: str, number: int) -> ModelVersion:
        """See ModelRegistry."""
        return self._record(self._fetch(name, number)).version

    def get(self, name: str, number: int) -> ModelVersion:
        """See ModelRegistry."""
        return self._checked_version(self._fetch(name, number))

    def metadata(self, name: str, number: int) -> dict[str, str]:
        """See ModelRegistry."""
        return self._record(self._fetch(name, number)).metadata

    def _model(self, name: str) -> Any:
        """Return MLflow's registered model, None where the name is unknown."""
        from mlflow.exceptions import MlflowException

        with self.connection.translated(f"model {name}"):
            client = self.connection.client()
            try:
                return client.get_registered_model(name)
            except MlflowException as exc:
                if exc.error_code in _ABSENT:
                    return None
                raise

    def _aliases(self, name: str) -> dict[str, int]:
        aliases: dict[str, object] = getattr(self._model(name), "aliases", {})
        return {alias: int(str(number)) for alias, number in aliases.items()}

    def _move(self, name: str, number: int, kind: StepKind, reason: str) -> None:
        steps, aliases = self.history(name), self._aliases(name)
        step = PromotionStep.now(number, aliases.get(CHAMPION), kind, reason)
        # Two hosts may write at once: the random suffix keeps both steps.
        key = f"{_STEP}{len(steps):06d}.{uuid.uuid4().hex[:6]}"
        with self.connection.translated(f"model {name}"):
            client = self.connection.client()
            client.set_registered_model_tag(name, key, step_to_json(step))
            client.set_registered_model_alias(name, CHAMPION, str(number))
            for alias in ended_waits(aliases, number):
                client.delete_registered_model_alias(name, alias)

    def _fetch(self, name: str, number: int) -> Any:
        from mlflow.exceptions import MlflowException

        with self.connection.translated(f"model {name}"):
            client = self.connection.client()
            try:
                return client.get_model_version(name, str(number))
            except MlflowException as exc:
                if exc.error_code in _ABSENT:
                    raise no_such_version(name, number) from exc
                raise

    def _download_folder(self, name: str, number: int) -> Path:
        """Return the folder of a version that was downloaded from MLflow's server."""
        return self._artifacts_dir / "fetched" / f"{name}-{number}"

    def _checked_version(self, found: Any) -> ModelVersion:
        record = self._record(found)
        fetched = local_path(found.source) is None
        if fetched and not record.version.path.is_dir():
            self._drop_deleted(record.version.name)
            self.connection.download(found.source, record.version.path)
        key = (record.version.name, record.version.number)
        try:
            check_folder(record, contents=key not in self._checked)
        except DamagedVersionError:
            self._checked.discard(key)  # once restored, its files are read again
            if fetched:  # the next call downloads it again
                shutil.rmtree(record.version.path, ignore_errors=True)
            raise
        self._checked.add(key)
        return record.version

    def _drop_deleted(self, name: str) -> None:
        """Delete this host's copies of versions that were deleted on another host."""
        kept = {self._download_folder(name, version.number) for version in self.versions(name)}
        for path in self._artifacts_dir.glob(f"fetched/{name}-*"):
            if path not in kept and path.name.removeprefix(f"{name}-").isdecimal():
                shutil.rmtree(path, ignore_errors=True)

    def _record(self, found: Any) -> VersionRecord:
        tags = found.tags
        number = int(found.version)
        try:
            version = ModelVersion(
                name=found.name,
                number=number,
                path=local_path(found.source) or self._download_folder(found.name, number),
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

    def _ensure_model(self, client: MlflowClient, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
