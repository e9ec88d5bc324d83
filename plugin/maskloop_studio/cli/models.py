"""`maskloop models`: the versions of a project's model, which of them serves, and the way back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskloop_studio.projects.champion import ChampionMove
import dataclasses
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from maskloop.errors import DamagedVersionError
from maskloop.learning.registry import CHALLENGER, CHAMPION, SHADOW, ModelRegistry, way_back
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.learning.registry.history import PromotionStep
    from maskloop.store.database import Store
    from maskloop.store.shadows import ShadowCount
    from maskloop.types import ModelVersion

__all__ = ["models_app", "print_version", "print_versions"]

models_app = typer.Typer(no_args_is_help=True, help="The model versions of a project.")

ProjectArgument = Annotated[
    int, typer.Argument(help="The project's number in Label Studio (in its address).")
]
VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="As `maskloop models list` names it: maskloop-7-v3, or 3.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
MAX_REASON = 240  # characters in the table


@models_app.command("list")
def list_models(project: ProjectArgument, as_json: JsonOption = False) -> None:
    """List a project's model versions; the champion is what serves.

    A challenger was judged better and waits for `maskloop models promote`; a shadow does too, and predicts
    beside the champion meanwhile: how often and how much it says something else stands below the table.
    """
    from maskloop_studio.services import process_services

    services = process_services()
    print_versions(project, services.registry, services.store, as_json=as_json)


@models_app.command("show")
def show_model(project: ProjectArgument, version: VersionArgument, as_json: JsonOption = False) -> None:
    """Show all that is known of one version: metrics, the gate's decision, data, settings, code, licence."""
    from maskloop_studio.services import process_services

    print_version(project, _number(version, project), process_services().registry, as_json=as_json)


@models_app.command("promote")
def promote_model(
    project: ProjectArgument, version: VersionArgument, reason: ReasonOption = "", as_json: JsonOption = False
) -> None:
    """Make a version the champion, whatever the gate said; servers swap within seconds."""
    from maskloop_studio.projects.champion import promote_version
    from maskloop_studio.services import process_services

    number = _number(version, project)
    _tell(promote_version(project, number, process_services(), reason=reason), as_json=as_json)


@models_app.command("rollback")
def rollback_model(project: ProjectArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Go back to the champion before the present one; again, to the one before that.

    Servers swap within seconds; Label Studio shows the earlier version's stored predictions again at once,
    and those that are missing are made in the background.
    """
    from maskloop_studio.projects.champion import roll_back
    from maskloop_studio.services import process_services

    _tell(roll_back(project, process_services(), reason=reason), as_json=as_json)


@models_app.command("prune")
def prune_models(
    project: ProjectArgument,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="How many of the newest stay.", show_default="MASKLOOP_KEEP_VERSIONS, 10"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old versions for good; the same happens after every training.

    Never goes: the champion, its parent, where the next three rollbacks lead, what waits to be promoted, and
    the version whose predictions Label Studio displays.
    """
    from maskloop_studio.projects.champion import prune_versions
    from maskloop_studio.services import process_services

    gone = prune_versions(project, process_services(), keep=keep)
    if as_json:
        typer.echo(json.dumps({"removed": gone}))
        return
    typer.echo(f"removed {', '.join(gone)}" if gone else "nothing to remove")


def _tell(move: ChampionMove, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(move.as_json()))
        return
    if move.before == move.after:
        typer.echo(f"{move.after} is the champion already")
    else:
        typer.echo(f"champion before: {move.before or 'none'}; champion now: {move.after}")
    if move.trouble:
        typer.echo(f"Label Studio does not show it yet: {move.trouble}", err=True)
    elif move.shown:
        typer.echo(f"Label Studio shows its {move.stored} stored predictions; missing ones follow")
    else:
        typer.echo("Label Studio has no prediction of it yet; they are made in the background")


def _number(version: str, project: int) -> int:
    from maskloop_studio.projects.training import model_name

    digits = version.removeprefix(f"{model_name(project)}-").removeprefix("v")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise typer.BadParameter(f"{version} is no version of project {project}; see `maskloop models list`")
    return int(digits)


def print_versions(project_id: int, registry: ModelRegistry, store: Store, *, as_json: bool) -> None:
    """Print a project's model versions, what waits, and how a shadow compares."""
    name = model_name(project_id)
    versions = registry.versions(name)
    held = _held(name, registry)
    line = way_back(registry.history(name), held.get(CHAMPION), versions)
    counts = store.shadows.of(project_id)
    decisions = {version.number: registry.metadata(name, version.number) for version in versions}
    if as_json:
        rows = [
            {
                **_as_json(version, decisions[version.number]),
                "champion": version.number == held.get(CHAMPION),
                "roles": _roles(version, held),
                "rollback": list(reversed(line)).index(version.number) if version.number in line else None,
                "shadow": [dataclasses.asdict(count) for count in counts if count.shadow == version.tag],
            }
            for version in versions
        ]
        print(json.dumps(rows))
        return
    Console().print(_table(versions, held, decisions, rollback_to=line[-2] if len(line) > 1 else None))
    for count in counts:
        print(_told(count))


def print_version(project_id: int, number: int, registry: ModelRegistry, *, as_json: bool) -> None:
    """Print all that is known of one version.

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
    told = _as_json(version, metadata) | {
        "roles": _roles(version, _held(name, registry)),
        "folder": str(version.path),
        "trouble": trouble,
        "history": [_step_as_json(step) for step in steps],
    }
    if as_json:
        print(json.dumps(told))
        return
    table = Table("what", version.tag)
    for what, value in told.items():
        table.add_row(what, _shown(value))
    Console().print(table)


def _held(name: str, registry: ModelRegistry) -> dict[str, int]:
    held = {alias: registry.alias(name, alias) for alias in (CHAMPION, CHALLENGER, SHADOW)}
    return {alias: number for alias, number in held.items() if number is not None}


def _roles(version: ModelVersion, held: dict[str, int]) -> list[str]:
    return [alias for alias, number in held.items() if number == version.number]


def _table(
    versions: list[ModelVersion],
    held: dict[str, int],
    metadata: dict[int, dict[str, str]],
    *,
    rollback_to: int | None,
) -> Table:
    table = Table("version", "", "parent", "AP50", "PQ", "mIoU", "labels", "decision")
    for version in versions:
        metrics = version.metrics
        numbers = (
            [f"{value:.3f}" for value in (metrics.ap50, metrics.pq, metrics.miou)] if metrics else [""] * 3
        )
        roles = _roles(version, held) + (["rollback goes here"] if version.number == rollback_to else [])
        table.add_row(
            version.tag,
            ", ".join(roles),
            f"v{version.parent}" if version.parent else "",
            *numbers,
            ", ".join(version.labels),
            metadata[version.number].get("decision", "")[:MAX_REASON],
        )
    return table


def _told(count: ShadowCount) -> str:
    share = count.differing / count.images
    return (
        f"{count.shadow} beside {count.champion}: {count.images} images, another drawing on "
        f"{count.differing} ({share:.0%}), agreement {count.agreement:.3f}"
    )


def _as_json(version: ModelVersion, metadata: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "version": version.tag,
        "parent": version.parent,
        "labels": version.labels,
        "metrics": dataclasses.asdict(version.metrics) if version.metrics else None,
    }
    return told | {key: _parsed(value) for key, value in metadata.items() if key not in told}


def _step_as_json(step: PromotionStep) -> dict[str, Any]:
    return {**dataclasses.asdict(step), "at": step.at.isoformat()}


def _parsed(value: str) -> Any:
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
