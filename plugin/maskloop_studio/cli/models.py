"""`maskloop models`: the versions of a project's model, which of them serves, and the way back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from maskloop_studio.cli.parameters import JsonOption, ProjectArgument

if TYPE_CHECKING:
    from maskloop_studio.projects.champion import ChampionMove

__all__ = ["models_app"]

models_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="The model versions of a project."
)
VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="As `maskloop models list` names it: maskloop-7-v3, or 3.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history.")]


@models_app.command("list")
def list_models(project: ProjectArgument, as_json: JsonOption = False) -> None:
    """List a project's model versions; the champion is the one that serves.

    A challenger was judged better, or is left to a person, and waits for `maskloop models promote` until a
    newer version is promoted. A shadow waits as well, and also predicts a share of the champion's images:
    below the table stands how often its predictions differ.
    """
    from maskloop_studio.cli.version_tables import print_versions
    from maskloop_studio.services import process_services

    services = process_services()
    print_versions(project, services.registry, services.store, as_json=as_json)


@models_app.command("show")
def show_model(project: ProjectArgument, version: VersionArgument, as_json: JsonOption = False) -> None:
    """Show everything about one version: metrics, the gate's decision, data, settings, code, licence."""
    from maskloop_studio.cli.version_tables import print_version
    from maskloop_studio.services import process_services

    print_version(project, _number(version, project), process_services().registry, as_json=as_json)


@models_app.command("suggest")
def suggest_models(project: ProjectArgument, as_json: JsonOption = False) -> None:
    """List published checkpoints that know a project's labels, and what their licences forbid; best first.

    The table comes with maskloop: nothing is downloaded. The project need not be connected yet.
    """
    from maskloop_studio.cli.suggest_lines import suggestion_lines, suggestions_as_json
    from maskloop_studio.formats.label_config import parse_label_config
    from maskloop_studio.projects.suggestion import suggest_checkpoints
    from maskloop_studio.services import process_services

    config = parse_label_config(process_services().client.project(project).label_config)
    found = suggest_checkpoints(config)
    if as_json:
        typer.echo(suggestions_as_json(config.all_labels, found))
    else:
        typer.echo("\n".join(suggestion_lines(project, config.all_labels, found)))


@models_app.command("promote")
def promote_model(
    project: ProjectArgument, version: VersionArgument, reason: ReasonOption = "", as_json: JsonOption = False
) -> None:
    """Make a version the champion, also one that the gate refused; servers swap within seconds."""
    from maskloop_studio.projects.audit_trail import command_line_actor
    from maskloop_studio.projects.champion import promote_version
    from maskloop_studio.services import process_services

    number = _number(version, project)
    move = promote_version(project, number, process_services(), reason=reason, actor=command_line_actor())
    _print_move(move, as_json=as_json)


@models_app.command("rollback")
def rollback_model(project: ProjectArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Go back to the champion before the present one; again, to the one before that.

    Servers swap within seconds; Label Studio shows the earlier version's stored predictions again at once,
    and those that are missing are made in the background.
    """
    from maskloop_studio.projects.audit_trail import command_line_actor
    from maskloop_studio.projects.champion import roll_back
    from maskloop_studio.services import process_services

    move = roll_back(project, process_services(), reason=reason, actor=command_line_actor())
    _print_move(move, as_json=as_json)


@models_app.command("prune")
def prune_models(
    project: ProjectArgument,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many of the newest versions stay.", show_default="MASKLOOP_KEEP_VERSIONS, 10"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old versions for good; the same happens after every training.

    These always stay: the champion, its parent, the versions of the next three rollbacks, those that wait to
    be promoted, and the version whose predictions Label Studio displays.
    """
    from maskloop_studio.projects.audit_trail import command_line_actor
    from maskloop_studio.projects.champion import prune_versions
    from maskloop_studio.services import process_services

    gone = prune_versions(project, process_services(), keep=keep, actor=command_line_actor())
    if as_json:
        typer.echo(json.dumps({"removed": gone}))
        return
    typer.echo(f"removed {', '.join(gone)}" if gone else "nothing to remove")


def _print_move(move: ChampionMove, *, as_json: bool) -> None:
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
