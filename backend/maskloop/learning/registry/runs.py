"""MLflow's runs: the record of a training, from its first step to the files of its version."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from maskloop.learning.registry.connection import MlflowConnection
from maskloop.types import HoldoutMetrics

__all__ = ["MlflowRuns"]

_KEY = "maskloop.training"  # the tag that names a training
_PARAM_CHARACTERS = 6000  # MLflow's limit on a parameter's value


class MlflowRuns:
    """Runs of maskloop's experiment; MLflow's errors are not translated."""

    def __init__(self, connection: MlflowConnection) -> None:
        self._connection = connection

    def find(self, name: str, key: str) -> str | None:
        """Return the run of a training, open again; None where there is none."""
        run_id = self._search(name, key)
        if run_id is not None:
            self._connection.client().update_run(run_id, status="RUNNING")
        return run_id

    def losses(self, name: str, key: str) -> list[tuple[int, float]]:
        """Return (step, loss) of a training by step, the last of each; empty where there is no run."""
        run_id = self._search(name, key)
        if run_id is None:
            return []
        history = self._connection.client().get_metric_history(run_id, "loss")
        return sorted({int(point.step): float(point.value) for point in history}.items())

    def _search(self, name: str, key: str) -> str | None:
        query = f"tags.`{_KEY}` = '{key}' AND attributes.run_name = '{name}'"
        client = self._connection.client()
        found = client.search_runs([self._connection.experiment_id], query, max_results=1)
        return str(found[0].info.run_id) if found else None

    def create(self, name: str, key: str | None = None) -> str:
        """Return a new run."""
        client = self._connection.client()
        tags = {} if key is None else {_KEY: key}
        return str(client.create_run(self._connection.experiment_id, run_name=name, tags=tags).info.run_id)

    def log(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to some curves; values that are not finite are left out."""
        from mlflow.entities import Metric

        at = int(time.time() * 1000)
        points = [Metric(key, value, at, step) for key, value in values.items() if math.isfinite(value)]
        self._connection.client().log_batch(run_id, metrics=points)

    def finish(
        self,
        run_id: str,
        *,
        params: Mapping[str, str],
        metrics: HoldoutMetrics | None,
        folder: Path,
        path: str,
    ) -> None:
        """Add parameters, metrics and files of a training's version to its run, and close it."""
        from mlflow.entities import Param

        client = self._connection.client()
        entries = [Param(key, value[:_PARAM_CHARACTERS]) for key, value in params.items()]
        client.log_batch(run_id, params=entries)
        if metrics is not None:
            values = dataclasses.asdict(metrics).items()
            self.log(run_id, 0, {key: value for key, value in values if isinstance(value, int | float)})
        client.log_artifacts(run_id, str(folder), path)
        client.set_terminated(run_id)

    def end(self, run_id: str, status: Literal["FAILED", "KILLED"]) -> None:
        """Close a run without a version."""
        self._connection.client().set_terminated(run_id, status=status)
