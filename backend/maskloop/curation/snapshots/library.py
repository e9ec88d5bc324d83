"""All snapshots of a machine: finding one by name or digest, and noting what was made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from maskloop.curation.snapshots.snapshot_folder import Snapshot, open_snapshot
from maskloop.errors import ConfigurationError, StoreError
from maskloop.store.datasets import DatasetNote, DatasetRepository
from maskloop.store.sessions import now

__all__ = ["SnapshotLibrary", "check_name"]

DIGEST = re.compile(r"[0-9a-f]{6,64}\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


@dataclass(frozen=True, kw_only=True)
class SnapshotLibrary:
    """The snapshots below a folder, and their notes in the database."""

    root: Path
    datasets: DatasetRepository

    def note(self, snapshot: Snapshot, *, name: str = "", reason: str) -> None:
        """Store that a snapshot was made.

        Args:
            snapshot: on disk.
            name: what people call it; a newer snapshot may take the name over.
            reason: what made it.
        """
        self.datasets.note(
            DatasetNote(
                digest=snapshot.digest,
                project_id=snapshot.manifest.project_id,
                name=name,
                reason=reason,
                images=snapshot.image_count,
                objects=snapshot.manifest.tables["objects"].rows,
                created_at=now(),
            )
        )

    def find(self, text: str) -> Snapshot:
        """Return a snapshot by its name, its digest, or at least the first six digits of that.

        Raises:
            StoreError: there is none, or several.
        """
        named = self.datasets.named(text)
        if named is not None:
            folders = [self.root / named.digest]
        elif DIGEST.match(text):
            folders = sorted(self.root.glob(f"{text}*"))
        else:
            folders = []
        if len(folders) != 1 or not folders[0].is_dir():
            raise StoreError(
                f"snapshot {text[:100]}",
                expected=f"the name or digest of one snapshot in {self.root}",
                got="none" if not folders else f"{len(folders)} that begin so, or one whose folder is gone",
                remedy="see `maskloop snapshot list`; the same data makes the same snapshot again",
            )
        return open_snapshot(folders[0])


def check_name(name: str) -> str:
    """Return a name that people may give a snapshot.

    Raises:
        ConfigurationError: it could be taken for a project's number or a digest, or has other characters.
    """
    if not NAME.match(name) or name.isdecimal() or DIGEST.match(name):
        raise ConfigurationError(
            "the name of a snapshot",
            expected="up to 100 letters, digits, dots, dashes and underscores, not all digits and no digest",
            got=repr(name[:100]),
            remedy="choose a name such as release-3",
        )
    return name
