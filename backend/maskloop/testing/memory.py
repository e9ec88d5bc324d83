"""A ModelRegistry and a JobQueue in memory; the same contract tests run on them and on MLflow's and RQ's."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskloop.learning.registry.base import (
    CHAMPION,
    VersionRecord,
    check_deletable,
    check_folder,
    ended_waits,
    folder_digests,
    no_such_version,
    rollback_line,
    rollback_target,
)
from maskloop.learning.registry.history import PromotionStep, StepKind
from maskloop.queue.spec import JobSpec, QueueName
from maskloop.types import HoldoutMetrics, ModelVersion

__all__ = ["MemoryQueue", "MemoryRegistry"]


class MemoryRegistry:
    """A ModelRegistry whose records exist in this process only; files are copied below a folder.

    Args:
        root: folder for the files of registered versions, `root/NAME/NUMBER`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._records: defaultdict[str, dict[int, VersionRecord]] = defaultdict(dict)
        self._last: defaultdict[str, int] = defaultdict(int)  # highest number used
        self._aliases: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._losses: defaultdict[str, dict[int, float]] = defaultdict(dict)  # run -> step -> loss
        self._steps: defaultdict[str, list[PromotionStep]] = defaultdict(list)

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
        """See ModelRegistry."""
        digests = folder_digests(folder, place=f"model {name}")
        number = self._last[name] = self._last[name] + 1
        target = self._root / name / str(number)
        shutil.copytree(folder, target, dirs_exist_ok=True)
        version = ModelVersion(
            name=name, number=number, path=target, labels=tuple(labels), metrics=metrics, parent=parent
        )
        record = VersionRecord(version=version, digests=digests, metadata=dict(metadata or {}))
        self._records[name][number] = record
        return version

    def start_run(self, name: str, key: str) -> str:
        """See ModelRegistry."""
        return f"{name}/{key}"

    def log_step(self, run_id: str, *, step: int, loss: float, eta_s: float) -> None:
        """See ModelRegistry."""
        self._losses[run_id][step] = loss

    def losses(self, name: str, key: str) -> list[tuple[int, float]]:
        """See ModelRegistry."""
        return sorted(self._losses[f"{name}/{key}"].items())

    def end_run(self, run_id: str, *, failed: bool) -> None:
        """See ModelRegistry; nothing is stored."""

    def champion(self, name: str) -> ModelVersion | None:
        """See ModelRegistry."""
        number = self.alias(name, CHAMPION)
        return None if number is None else self.get(name, number)

    def promote(self, name: str, number: int, *, reason: str = "") -> None:
        """See ModelRegistry."""
        self.get(name, number)
        if self.alias(name, CHAMPION) != number:
            self._move(name, number, "promotion", reason)

    def rollback(self, name: str, *, reason: str = "") -> ModelVersion:
        """See ModelRegistry."""
        line = rollback_line(self.history(name), self.alias(name, CHAMPION), self.versions(name))
        version = self.get(name, rollback_target(name, line))
        self._move(name, version.number, "rollback", reason)
        return version

    def history(self, name: str) -> tuple[PromotionStep, ...]:
        """See ModelRegistry."""
        return tuple(self._steps[name])

    def alias(self, name: str, alias: str) -> int | None:
        """See ModelRegistry."""
        return self._aliases[name].get(alias)

    def aliases(self, name: str) -> dict[str, int]:
        """See ModelRegistry."""
        return dict(self._aliases[name])

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """See ModelRegistry."""
        if number is None:
            self._aliases[name].pop(alias, None)
        else:
            self._aliases[name][alias] = self.get(name, number).number

    def delete(self, name: str, number: int) -> None:
        """See ModelRegistry."""
        record = self._record(name, number)
        check_deletable(name, number, self._aliases[name])
        shutil.rmtree(record.version.path, ignore_errors=True)
        del self._records[name][number]

    def versions(self, name: str) -> list[ModelVersion]:
        """See ModelRegistry."""
        return [record.version for record in self._records[name].values()]

    def newest(self, name: str, *, limit: int, below: int | None = None) -> list[ModelVersion]:
        """See ModelRegistry."""
        newest_first = self.versions(name)[::-1]
        return [version for version in newest_first if below is None or version.number < below][:limit]

    def peek(self, name: str, number: int) -> ModelVersion:
        """See ModelRegistry."""
        return self._record(name, number).version

    def get(self, name: str, number: int) -> ModelVersion:
        """See ModelRegistry."""
        record = self._record(name, number)
        check_folder(record, contents=True)
        return record.version

    def metadata(self, name: str, number: int) -> dict[str, str]:
        """See ModelRegistry."""
        return dict(self._record(name, number).metadata)

    def _record(self, name: str, number: int) -> VersionRecord:
        try:
            return self._records[name][number]
        except KeyError:
            raise no_such_version(name, number) from None

    def _move(self, name: str, number: int, kind: StepKind, reason: str) -> None:
        step = PromotionStep.now(number, self.alias(name, CHAMPION), kind, reason)
        self._steps[name].append(step)
        self._aliases[name][CHAMPION] = number
        for alias in ended_waits(self.aliases(name), number):
            self.set_alias(name, alias, None)


class MemoryQueue:
    """A JobQueue whose jobs wait in a list until `drain` returns them; no worker runs them."""

    def __init__(self) -> None:
        self._waiting: dict[str, JobSpec] = {}

    def enqueue(self, spec: JobSpec) -> bool:
        """See JobQueue; a job with the id of a waiting one is not added."""
        if spec.job_id in self._waiting:
            return False
        self._waiting[spec.job_id] = spec
        return True

    def lengths(self) -> dict[str, int]:
        """Return queue name -> number of waiting jobs."""
        return {name.value: sum(job.queue is name for job in self._waiting.values()) for name in QueueName}

    def drain(self) -> tuple[JobSpec, ...]:
        """Return the waiting jobs in their order and remove them."""
        jobs = tuple(self._waiting.values())
        self._waiting.clear()
        return jobs
