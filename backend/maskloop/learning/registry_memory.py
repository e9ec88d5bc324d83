"""A model registry in this process's memory, with the folders on disk; for tests and trials."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskloop.learning.registry_contract import (
    LossCurve,
    VersionRecord,
    check_folder,
    folder_digests,
    no_such_version,
)
from maskloop.types import HoldoutMetrics, ModelVersion

__all__ = ["MemoryRegistry"]


class MemoryRegistry:
    """A registry that lives as long as its process; for tests and trials."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._records: dict[str, list[VersionRecord]] = {}
        self._champions: dict[str, int] = {}

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
        """See ModelRegistry; the loss curve is not kept."""
        digests = folder_digests(folder, place=f"model {name}")
        records = self._records.setdefault(name, [])
        number = len(records) + 1
        target = self._root / name / str(number)
        shutil.copytree(folder, target, dirs_exist_ok=True)
        version = ModelVersion(
            name=name, number=number, path=target, labels=tuple(labels), metrics=metrics, parent=parent
        )
        records.append(VersionRecord(version=version, digests=digests, metadata=dict(metadata or {})))
        return version

    def champion(self, name: str) -> ModelVersion | None:
        """See ModelRegistry."""
        number = self._champions.get(name)
        return None if number is None else self.get(name, number)

    def promote(self, name: str, number: int) -> None:
        """See ModelRegistry."""
        self.get(name, number)
        self._champions[name] = number

    def versions(self, name: str) -> list[ModelVersion]:
        """See ModelRegistry."""
        return [record.version for record in self._records.get(name, [])]

    def get(self, name: str, number: int) -> ModelVersion:
        """See ModelRegistry."""
        record = self._record(name, number)
        check_folder(record, contents=True)
        return record.version

    def metadata(self, name: str, number: int) -> dict[str, str]:
        """See ModelRegistry."""
        return dict(self._record(name, number).metadata)

    def _record(self, name: str, number: int) -> VersionRecord:
        records = self._records.get(name, [])
        if not 1 <= number <= len(records):
            raise no_such_version(name, number)
        return records[number - 1]
