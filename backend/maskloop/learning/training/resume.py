"""The folder of states from which a killed training continues."""

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
    """The states of one training, and numbers stored beside them."""

    path: Path

    def claim(self, identity: dict[str, Any]) -> None:
        """Keep the states of the training with this identity; delete those of any other training."""
        wanted = json.dumps(identity, sort_keys=True)
        identity_file = self.path / "identity.json"
        if not identity_file.is_file() or identity_file.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            identity_file.write_text(wanted, encoding="utf-8")
        for state in self._states():
            if not _is_complete(state):
                shutil.rmtree(state)

    def newest(self) -> Path | None:
        """Return the newest complete state, None where there is none."""
        return max(filter(_is_complete, self._states()), key=_step, default=None)

    def write_number(self, name: str, value: float) -> None:
        """Store a number; a reader sees the old number or the new one."""
        write_whole(self.path / f"{name}.json", json.dumps(value))

    def read_number(self, name: str, default: float) -> float:
        """Return a stored number, the default where there is none."""
        try:
            return float(json.loads((self.path / f"{name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return default

    def _states(self) -> list[Path]:
        return list(self.path.glob("checkpoint-*"))


def _step(state: Path) -> int:
    return int(state.name.rpartition("-")[2])


def _is_complete(state: Path) -> bool:
    # Trainer writes trainer_state.json last.
    try:
        json.loads((state / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((state / name).is_file() for name in ("optimizer.pt", "scheduler.pt"))
