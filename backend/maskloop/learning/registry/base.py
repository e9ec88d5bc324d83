"""The interface of a model registry, and the check that a version's folder is complete.

`mlflow` implements it, and `maskloop.testing` has an implementation in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from maskloop.errors import DamagedVersionError, RegistryError
from maskloop.learning.registry.history import PromotionStep, ancestors, promotion_line
from maskloop.types import HoldoutMetrics, ModelVersion

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "SHADOW",
    "ModelRegistry",
    "VersionRecord",
    "check_deletable",
    "check_folder",
    "ended_waits",
    "folder_digests",
    "json_to_metrics",
    "metrics_to_json",
    "no_such_version",
    "rollback_line",
    "rollback_target",
]

CHAMPION = "champion"  # serves
CHALLENGER = "challenger"  # passed the gate, waits for a manual promotion
SHADOW = "shadow"  # passed the gate, predicts beside the champion without being displayed


class ModelRegistry(Protocol):
    """Interface of a model registry."""

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
        """Copy a checkpoint folder into the registry as the name's next version.

        Args:
            name: the registered model; made on first use.
            folder: a complete checkpoint.
            labels: class names in the order of their ids.
            metrics: metrics on the holdout, if it was evaluated.
            parent: the version it was fine-tuned from.
            metadata: further facts of the training: seed, decision, snapshot ...
            run_id: the record of the training, as `start_run` returned it; by default a new one.

        Raises:
            RegistryError: the folder is not a complete checkpoint, or the registry refuses.
        """

    def start_run(self, name: str, key: str) -> str:
        """Start the record of a training, or continue the one that has this key; return its id.

        Raises:
            RegistryError: the registry does not answer; the same for `log_step` and `end_run`.
        """

    def log_step(self, run_id: str, *, step: int, loss: float, eta_s: float) -> None:
        """Record how far a training is: optimiser steps, loss, seconds left."""

    def end_run(self, run_id: str, *, failed: bool) -> None:
        """Close the record of a training that made no version: it failed or was stopped."""

    def losses(self, name: str, key: str) -> list[tuple[int, float]]:
        """Return (step, loss) of a training as far as they are recorded, by step; empty without a record."""

    def champion(self, name: str) -> ModelVersion | None:
        """Return the version to serve; None where no version has been promoted yet.

        Raises:
            DamagedVersionError: the version's folder is damaged.
        """

    def promote(self, name: str, number: int, *, reason: str = "") -> None:
        """Make a version the champion and add it to the history; nothing happens where it is already.

        The aliases challenger and shadow are removed where they wait no longer, see `ended_waits`.

        Raises:
            RegistryError: no such version, or its folder is damaged.
        """

    def rollback(self, name: str, *, reason: str = "") -> ModelVersion:
        """Make the champion's predecessor in the order of promotion champion again, and return it.

        Two rollbacks go two versions back; a version that was rolled back is not a predecessor any more,
        unless it is promoted again.

        Raises:
            RegistryError: there is no predecessor, or its folder is damaged; the champion stays.
        """

    def history(self, name: str) -> tuple[PromotionStep, ...]:
        """Return the changes of champion, oldest first; empty for an unknown name."""

    def alias(self, name: str, alias: str) -> int | None:
        """Return the number of the version that an alias points at; its files are not checked."""

    def aliases(self, name: str) -> dict[str, int]:
        """Return all aliases of a model with their versions' numbers, in one call; see `alias`."""

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """Point an alias other than the champion's at a version, or remove it with None.

        Raises:
            RegistryError: no such version, or its folder is damaged.
        """

    def delete(self, name: str, number: int) -> None:
        """Delete a version and its files; its number is not used again.

        Raises:
            RegistryError: no such version, or an alias points at it.
        """

    def versions(self, name: str) -> list[ModelVersion]:
        """Return all versions, oldest first, without a check of their files; empty for an unknown name."""

    def newest(self, name: str, *, limit: int, below: int | None = None) -> list[ModelVersion]:
        """Return the newest versions, newest first, without a check of their files.

        Args:
            name: the registered model; an unknown one has none.
            limit: how many at the most.
            below: only versions with smaller numbers.
        """

    def peek(self, name: str, number: int) -> ModelVersion:
        """Return one version without a check of its files, which may be damaged.

        Raises:
            RegistryError: no such version.
        """

    def get(self, name: str, number: int) -> ModelVersion:
        """Return one version after a check of its files.

        Raises:
            RegistryError: no such version.
            DamagedVersionError: its folder is damaged.
        """

    def metadata(self, name: str, number: int) -> dict[str, str]:
        """Return the metadata that `register` got.

        Raises:
            RegistryError: no such version.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """A version with the facts that only registries need."""

    version: ModelVersion
    digests: dict[str, str]  # relative path of each file -> "size:SHA-256"
    metadata: dict[str, str]


def folder_digests(folder: Path, *, place: str) -> dict[str, str]:
    """Return relative path -> "size:SHA-256" of each file of a checkpoint folder.

    Raises:
        RegistryError: the folder lacks config.json or safetensors weights.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    names = {str(path.relative_to(folder)) for path in files}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise RegistryError(
            place,
            expected=f"a checkpoint with config.json and safetensors weights in {folder}",
            got=", ".join(sorted(names)) or "no files",
            remedy="save the model with save_checkpoint and register that folder",
        )
    return {str(path.relative_to(folder)): _file_digest(path) for path in files}


def check_folder(record: VersionRecord, *, contents: bool) -> None:
    """Check that a version's files are those that were registered.

    Args:
        record: the version.
        contents: whether to read every file; else only sizes are compared, which takes microseconds.

    Raises:
        DamagedVersionError: a file is missing or differs.
    """
    for name, digest in record.digests.items():
        path = record.version.path / name
        size = path.stat().st_size if path.is_file() else None
        if (
            size is None
            or str(size) != digest.partition(":")[0]
            or (contents and _file_digest(path) != digest)
        ):
            raise DamagedVersionError(
                f"model {record.version.tag}",
                expected=f"{path} as it was registered ({digest.partition(':')[0]} bytes)",
                got="no such file" if size is None else f"a file of {size} bytes with other content",
                remedy="restore the file, or run `maskloop models rollback` to serve an earlier version",
            )


def no_such_version(name: str, number: int) -> RegistryError:
    """Return the error for a version that was never registered."""
    return RegistryError(
        f"model {name}",
        expected=f"a registered version {number}",
        got="no version with that number",
        remedy="run `maskloop models list` to see the registered versions",
    )


def rollback_line(
    steps: Sequence[PromotionStep], champion: int | None, versions: Sequence[ModelVersion]
) -> tuple[int, ...]:
    """Return the champions that rollbacks go back through, oldest first, without pruned versions."""
    parents = {version.number: version.parent for version in versions}
    line = promotion_line(steps, champion) if steps else ancestors(parents, champion)
    return tuple(number for number in line if number in parents)


def rollback_target(name: str, line: Sequence[int]) -> int:
    """Return the champion's predecessor.

    Raises:
        RegistryError: there is none.
    """
    if len(line) < 2:
        raise RegistryError(
            f"model {name}",
            expected="a version that was champion before the present one",
            got="none" if line else "no champion at all",
            remedy="choose one with `maskloop models list`, then `maskloop models promote`",
        )
    return line[-2]


def ended_waits(aliases: Mapping[str, int], champion: int) -> tuple[str, ...]:
    """Return which of the aliases challenger and shadow end when a version becomes the champion.

    A version that waits was compared with the champion of that time, and has learnt from less than a newer
    one: when itself or a newer one takes over, it waits no longer. It may still be promoted by its number.

    Args:
        aliases: alias -> number of the version.
        champion: number of the version that takes over.
    """
    return tuple(alias for alias in (CHALLENGER, SHADOW) if aliases.get(alias, champion + 1) <= champion)


def check_deletable(name: str, number: int, aliases: Mapping[str, int]) -> None:
    """Check that no alias points at a version.

    Raises:
        RegistryError: one does.
    """
    held = sorted(alias for alias, target in aliases.items() if target == number)
    if held:
        raise RegistryError(
            f"model {name}-v{number}",
            expected="a version without an alias",
            got=f"the {' and '.join(held)}",
            remedy="promote another version first",
        )


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return f"{os.fstat(stream.fileno()).st_size}:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def metrics_to_json(metrics: HoldoutMetrics | None) -> str:
    """Return metrics as JSON; "null" for none."""
    return json.dumps(None if metrics is None else dataclasses.asdict(metrics))


def json_to_metrics(text: str) -> HoldoutMetrics | None:
    """Return the metrics of `metrics_to_json`."""
    fields = json.loads(text)
    return None if fields is None else HoldoutMetrics(**fields)
