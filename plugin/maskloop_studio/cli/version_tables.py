"""What `maskloop models list` and `maskloop models show` print."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from maskloop.errors import DamagedVersionError
from maskloop.learning.registry import CHALLENGER, CHAMPION, SHADOW, ModelRegistry, rollback_line
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.learning.registry.history import PromotionStep
    from maskloop.store.database import Store
    from maskloop.store.shadows import ShadowCount
    from maskloop.types import ModelVersion

__all__ = ["print_version", "print_versions"]

MAX_LABELS = 60  # characters
NAME_WIDTH = 15  # characters
NUMBERS_ONLY = ("gate", "settings", "recipe")  # long: `decision` is the gate's sentence


def print_versions(project_id: int, registry: ModelRegistry, store: Store, *, as_json: bool) -> None:
    """Print a project's model versions, their roles and decisions, and how a shadow compares."""
    name = model_name(project_id)
    versions = registry.versions(name)
    aliases = _aliases(name, registry)
    line = rollback_line(registry.history(name), aliases.get(CHAMPION), versions)
    counts = store.shadows.of(project_id)
    decisions = {version.number: registry.metadata(name, version.number) for version in versions}
    if as_json:
        rows = [
            {
                **_as_json(version, decisions[version.number]),
                "champion": version.number == aliases.get(CHAMPION),
                "roles": _roles(version, aliases),
                "rollback": list(reversed(line)).index(version.number) if version.number in line else None,
                "shadow": [dataclasses.asdict(count) for count in counts if count.shadow == version.tag],
            }
            for version in versions
        ]
        print(json.dumps(rows))
        return
    Console().print(_table(versions, aliases, rollback_to=line[-2] if len(line) > 1 else None))
    columns = shutil.get_terminal_size().columns
    for version in versions:  # below the table: in a narrow column they could not be read
        for fact in ("decision", "showing"):
            text = decisions[version.number].get(fact)
            if text:
                print(textwrap.shorten(f"{version.tag}: {text}", columns, placeholder=" ..."))
    for count in counts:
        print(_shadow_line(count))
    if versions:
        print(f"`maskloop models show {project_id} VERSION` has the whole verdict")


def print_version(project_id: int, number: int, registry: ModelRegistry, *, as_json: bool) -> None:
    """Print everything about one version.

    Raises:
        RegistryError: no such version.
    """
    name = model_name(project_id)
    metadata = registry.metadata(name, number)
    version = next(version for version in registry.versions(name) if version.number == number)
    try:
        registry.get(name, number)
        trouble = None
    except DamagedVersionError as exc:
        trouble = str(exc)
    steps = [step for step in registry.history(name) if number in (step.number, step.before)]
    known = _as_json(version, metadata) | {
        "roles": _roles(version, _aliases(name, registry)),
        "folder": str(version.path),
        "trouble": trouble,
        "history": [_step_as_json(step) for step in steps],
    }
    if as_json:
        print(json.dumps(known))
        return
    print("\n".join(_readable(known, shutil.get_terminal_size().columns)))
    print(f"`maskloop models show {project_id} {number} --json` has every number")


def _aliases(name: str, registry: ModelRegistry) -> dict[str, int]:
    found = {alias: registry.alias(name, alias) for alias in (CHAMPION, CHALLENGER, SHADOW)}
    return {alias: number for alias, number in found.items() if number is not None}


def _roles(version: ModelVersion, aliases: dict[str, int]) -> list[str]:
    return [alias for alias, number in aliases.items() if number == version.number]


def _table(versions: list[ModelVersion], aliases: dict[str, int], *, rollback_to: int | None) -> Table:
    columns = (Column("version", overflow="fold"), "role", "parent")
    figures = (Column(name, justify="right", no_wrap=True) for name in ("AP50", "PQ", "mIoU"))
    table = Table(*columns, *figures, "labels")
    for version in versions:
        metrics = version.metrics
        numbers = (
            [f"{value:.3f}" for value in (metrics.ap50, metrics.pq, metrics.miou)] if metrics else [""] * 3
        )
        roles = _roles(version, aliases) + (["rollback"] if version.number == rollback_to else [])
        labels = ", ".join(version.labels)
        table.add_row(
            version.tag,
            ", ".join(roles),
            f"v{version.parent}" if version.parent else "",
            *numbers,
            labels if len(labels) <= MAX_LABELS else f"{len(version.labels)} labels",
        )
    return table


def _shadow_line(count: ShadowCount) -> str:
    share = count.differing / count.images
    return (
        f"{count.shadow} compared with {count.champion}: {count.images} images, different segments on "
        f"{count.differing} ({share:.0%}), agreement {count.agreement:.3f}"
    )


def _as_json(version: ModelVersion, metadata: dict[str, str]) -> dict[str, Any]:
    known: dict[str, Any] = {
        "version": version.tag,
        "parent": version.parent,
        "labels": version.labels,
        "metrics": dataclasses.asdict(version.metrics) if version.metrics else None,
    }
    return known | {key: _parsed(value) for key, value in metadata.items() if key not in known}


def _step_as_json(step: PromotionStep) -> dict[str, Any]:
    return {**dataclasses.asdict(step), "at": step.at.isoformat()}


def _parsed(value: str) -> Any:
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _readable(known: dict[str, Any], columns: int) -> list[str]:
    """Return facts of a version as lines for a person; paths and names stay whole where they are longer."""
    lines = []
    for what, value in known.items():
        if what in NUMBERS_ONLY or value in (None, "", [], {}):
            continue
        rows = value if what == "history" else [value]
        for row in rows:
            lines += textwrap.wrap(
                f"{what.replace('_', ' '):<{NAME_WIDTH}}{_shown(row)}",
                columns,
                subsequent_indent=" " * NAME_WIDTH,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        facts = {name: one for name, one in value.items() if one not in (None, "", [], {})}
        return ", ".join(f"{name} {_shown(one)}" for name, one in facts.items())
    if isinstance(value, list | tuple):
        return ", ".join(_shown(one) for one in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
