"""What a model registry promises, and how a version's folder is known to be whole.

`registry_mlflow` and `registry_memory` keep the promise; `registry` names all three.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from maskloop.errors import RegistryError
from maskloop.types import HoldoutMetrics, ModelVersion

__all__ = [
    "LossCurve",
    "ModelRegistry",
    "VersionRecord",
    "check_folder",
    "folder_digests",
    "json_to_metrics",
    "metrics_to_json",
    "no_such_version",
]

LossCurve: TypeAlias = Sequence[tuple[int, float]]  # (step, loss)


class ModelRegistry(Protocol):
    """What stores and servers ask of a registry."""

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
        """Copy a checkpoint folder into the registry as the name's next version.

        Args:
            name: the registered model; made on first use.
            folder: a complete checkpoint.
            labels: class names in the order of their ids.
            metrics: on the holdout, if it was judged.
            parent: the version it was fine-tuned from.
            metadata: what else to remember of the training: seed, decision, snapshot ...
            loss_curve: (step, loss) pairs.

        Raises:
            RegistryError: the folder is no whole checkpoint, or the registry refuses.
        """

    def champion(self, name: str) -> ModelVersion | None:
        """Return the version to serve; None where nothing has been promoted yet.

        Raises:
            RegistryError: the version's folder is damaged.
        """

    def promote(self, name: str, number: int) -> None:
        """Make a version the champion; also the way back to an older one.

        Raises:
            RegistryError: no such version, or its folder is damaged.
        """

    def versions(self, name: str) -> list[ModelVersion]:
        """Return all versions, oldest first, without a look into their folders; none for an unknown name."""

    def get(self, name: str, number: int) -> ModelVersion:
        """Return one version, its folder checked.

        Raises:
            RegistryError: no such version, or its folder is damaged.
        """

    def metadata(self, name: str, number: int) -> dict[str, str]:
        """Return what `register` was given as metadata.

        Raises:
            RegistryError: no such version.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """A version with what only registries need to know of it."""

    version: ModelVersion
    digests: dict[str, str]  # of each file of the folder: "size:SHA-256"
    metadata: dict[str, str]


def folder_digests(folder: Path, *, place: str) -> dict[str, str]:
    """Return "size:SHA-256" of each file of a checkpoint folder, by its path within.

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
    """Make sure that a version's files are those that were registered.

    Args:
        record: the version.
        contents: also read every file; else sizes alone are compared, which takes microseconds.

    Raises:
        RegistryError: a file is missing or differs.
    """
    for name, digest in record.digests.items():
        path = record.version.path / name
        size = path.stat().st_size if path.is_file() else None
        if (
            size is None
            or str(size) != digest.partition(":")[0]
            or (contents and _file_digest(path) != digest)
        ):
            raise RegistryError(
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
        got="none of that number",
        remedy="see `maskloop models list` for those there are",
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
