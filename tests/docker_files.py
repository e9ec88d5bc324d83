"""What stands in docker/, read as the builder and Compose read it, for the tests that hold it to its word."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["DOCKER", "REPOSITORY", "Stage", "load_compose", "load_stages", "required_variables"]

REPOSITORY = Path(__file__).parents[1]
DOCKER = REPOSITORY / "docker"
SECRET = "0123456789abcdef0123456789abcdef01234567"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass
class Stage:
    """One stage of the Dockerfile, with what it has from the stage that it builds on."""

    name: str
    base: str  # a stage or an image
    steps: list[tuple[str, str]] = field(default_factory=list)  # instruction, the rest of its line

    def last(self, instruction: str) -> str | None:
        """Return what the last such instruction says, or None."""
        return next((rest for word, rest in reversed(self.steps) if word == instruction), None)

    def command(self, instruction: str) -> list[str]:
        """Return the exec form that an instruction ends with; empty where there is none."""
        rest = self.last(instruction)
        return [] if rest is None else json.loads(rest[rest.index("[") :])


def load_stages() -> dict[str, Stage]:
    """Return the Dockerfile's stages by name."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            base = VARIABLE.sub(lambda found: arguments[found[1]], base)
            inherited = list(stages[base].steps) if base in stages else []
            current = stages[name] = Stage(name=name, base=base, steps=inherited)
        elif current is None:
            name, value = rest.split("=", 1)
            arguments[name] = value
        else:
            current.steps.append((word, rest.strip()))
    return stages


def load_compose(name: str = "compose.yaml") -> dict[str, Any]:
    """Return a Compose file with a made-up value for every variable that has to be set."""
    return yaml.safe_load(VARIABLE.sub(_value, (DOCKER / name).read_text()))


def required_variables() -> set[str]:
    """Return the variables that compose.yaml does not start without."""
    text = (DOCKER / "compose.yaml").read_text()
    return {found[1] for found in VARIABLE.finditer(text) if found[2] == "?"}


def _value(found: re.Match[str]) -> str:
    assert found[2] is not None, f"{found[0]}: neither required nor with a default"
    return SECRET if found[2] == "?" else found[3]
