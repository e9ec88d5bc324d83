"""The manifest of a snapshot: what it is made of, and the digest that names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskloop.curation.snapshots.rows import Category
from maskloop.errors import StoreError

__all__ = ["MANIFEST_FILE", "DatasetManifest", "TableFacts", "read_manifest"]

FORMAT = 1
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """One Parquet file of a snapshot."""

    rows: int
    rows_sha256: str  # of the rows, whatever the file's form
    file_sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class DatasetManifest:
    """What a snapshot holds; nothing in it depends on a machine, a name or a day."""

    project_id: int | None  # Label Studio's number; None: made from a folder
    rule: str  # which of several annotations of a task counts
    include: str = ""  # "predictions:VERSION" where these stand in for images without an annotation
    categories: tuple[Category, ...]  # by number, also those without an object
    label_configs: Mapping[str, str] = field(default_factory=dict)  # SHA-256 -> XML
    counts: Mapping[str, Any]  # images and objects, by split, kind and label
    tables: Mapping[str, TableFacts]  # images and objects

    @property
    def digest(self) -> str:
        """SHA-256 of the content: the snapshot's name."""
        content = self._as_json()
        content["tables"] = {
            name: {"rows": facts.rows, "rows_sha256": facts.rows_sha256}
            for name, facts in self.tables.items()
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def text(self) -> str:
        """Return the manifest as it is written."""
        return json.dumps(self._as_json(), sort_keys=True, indent=1) + "\n"

    def _as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("project_id", "rule", "include")},
            "categories": [vars(category) for category in self.categories],
            "label_configs": dict(self.label_configs),
            "counts": dict(self.counts),
            "tables": {name: vars(facts) for name, facts in self.tables.items()},
        }


def read_manifest(folder: Path) -> DatasetManifest:
    """Return the manifest of a snapshot's folder.

    Raises:
        StoreError: it is missing or no manifest.
    """
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        content["categories"] = tuple(Category(**one) for one in content["categories"])
        content["tables"] = {name: TableFacts(**facts) for name, facts in content["tables"].items()}
        return DatasetManifest(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StoreError(
            f"snapshot manifest {path}",
            expected=f"a manifest of format {FORMAT}",
            got=f"{type(exc).__name__}: {exc}"[:300],
            remedy="make the snapshot again; an older maskloop may be needed for one of a newer format",
        ) from exc
