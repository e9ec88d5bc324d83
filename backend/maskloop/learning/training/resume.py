"""The folder in which a training keeps what a killed one goes on from."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskloop.files import write_whole

__all__ = ["StateDir"]


@dataclass(frozen=True, kw_only=True)
class StateDir:
    """States of one training, and small notes beside them."""

    path: Path

    def claim(self, identity: dict[str, Any]) -> None:
        """Keep what belongs to the training of this identity; delete what belongs to any other."""
        wanted = json.dumps(identity, sort_keys=True)
        note = self.path / "identity.json"
        if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            note.write_text(wanted, encoding="utf-8")
        for state in self._states():
            if not _is_whole(state):
                shutil.rmtree(state)

    def newest(self) -> Path | None:
        """Return the newest whole state, None where there is none."""
        return max(filter(_is_whole, self._states()), key=_step, default=None)

    def note(self, name: str, value: float) -> None:
        """Keep a number; a reader sees the old one or the new one."""
        write_whole(self.path / f"{name}.json", json.dumps(value))

    def noted(self, name: str, default: float) -> float:
        """Return a number that was kept."""
        try:
            return float(json.loads((self.path / f"{name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return default

    def _states(self) -> list[Path]:
        return list(self.path.glob("checkpoint-*"))


def _step(state: Path) -> int:
    return int(state.name.rpartition("-")[2])


def _is_whole(state: Path) -> bool:
    # Trainer writes trainer_state.json last.
    try:
        json.loads((state / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((state / name).is_file() for name in ("optimizer.pt", "scheduler.pt"))
