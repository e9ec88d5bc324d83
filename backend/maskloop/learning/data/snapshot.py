"""Dataset snapshots: which versions of which annotations a training used, and which tasks are the holdout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from maskloop.errors import TrainingError
from maskloop.files import write_whole
from maskloop.types import Correction

__all__ = ["ManifestEntry", "SnapshotManifest", "Split"]

Split: TypeAlias = Literal["train", "holdout"]

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """One version of one annotation in a snapshot."""

    project_id: int
    task_id: int
    annotation_id: int
    updated_at: datetime  # when this version was saved (aware)
    image_key: str  # SHA-256 of the image file
    split: Split
    version_id: int = 0  # row of the version in the database; 0 in manifests from before it was stored

    def __post_init__(self) -> None:
        if self.updated_at.tzinfo is None:
            raise ValueError("ManifestEntry.updated_at: expected an aware datetime, got a naive one")
        if self.split not in ("train", "holdout"):
            raise ValueError(f"ManifestEntry.split: expected train or holdout, got {self.split!r}")


@dataclass(frozen=True, kw_only=True)
class SnapshotManifest:
    """A dataset snapshot, stored beside the model that was trained on it."""

    entries: tuple[ManifestEntry, ...]

    @classmethod
    def of(cls, *, train: Iterable[Correction], holdout: Iterable[Correction]) -> Self:
        """Return the manifest of corrections to learn from and corrections to evaluate on."""
        parts: tuple[tuple[Split, Iterable[Correction]], ...] = (("train", train), ("holdout", holdout))
        return cls(
            entries=tuple(
                ManifestEntry(
                    project_id=correction.project_id,
                    task_id=correction.task_id,
                    annotation_id=correction.annotation_id,
                    updated_at=correction.updated_at,
                    image_key=correction.image_key,
                    split=split,
                    version_id=correction.version_id,
                )
                for split, corrections in parts
                for correction in corrections
            )
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the entries, the same in every order of them."""
        lines = sorted(json.dumps(record, sort_keys=True) for record in self._records())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def version_ids(self, split: Split | None = None) -> tuple[int, ...]:
        """Return the database rows of one split or of both."""
        return tuple(entry.version_id for entry in self.entries if split in (None, entry.split))

    def write(self, path: Path) -> None:
        """Write the manifest as JSON; a reader sees the old file or the whole new one."""
        records = self._records()
        write_whole(path, json.dumps({"format": _FORMAT, "entries": records}, indent=1))

    @classmethod
    def read(cls, path: Path) -> SnapshotManifest:
        """Return the manifest of a file.

        Raises:
            TrainingError: the file is missing or is no manifest.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']!r}")
            return cls(entries=tuple(_read_entry(record) for record in content["entries"]))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise TrainingError(
                f"snapshot manifest {path}",
                expected=f"a JSON manifest of format {_FORMAT}",
                got=f"{type(exc).__name__}: {exc}",
                remedy="start the training again; it writes a new manifest",
            ) from exc

    def _records(self) -> list[dict[str, Any]]:
        return [{**asdict(entry), "updated_at": entry.updated_at.isoformat()} for entry in self.entries]


def _read_entry(record: dict[str, Any]) -> ManifestEntry:
    return ManifestEntry(**{**record, "updated_at": datetime.fromisoformat(record["updated_at"])})
