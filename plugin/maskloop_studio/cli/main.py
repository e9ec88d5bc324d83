"""The `maskloop` command; every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from maskloop.errors import MaskloopError
from maskloop_studio.cli.audit_lines import audit_command
from maskloop_studio.cli.bench import bench_command
from maskloop_studio.cli.daemons import add_daemons
from maskloop_studio.cli.exports import export_command
from maskloop_studio.cli.imports import import_command
from maskloop_studio.cli.jobs import jobs_app
from maskloop_studio.cli.mlflow_page import mlflow_command
from maskloop_studio.cli.models import models_app
from maskloop_studio.cli.project_commands import add_project_commands
from maskloop_studio.cli.simulate import simulate_command
from maskloop_studio.cli.snapshots import snapshot_app

__all__ = ["app", "main"]

app = typer.Typer(
    name="maskloop",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
base_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="The small models that maskloop ships with."
)


def main() -> None:
    """Run the command line: exit code 0 is success, 1 an error that is explained, 2 wrong usage."""
    # Threads that spin while they wait take the cores from each other: see docs/measurements.md.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # Databases, logs, images and models are their owner's alone: they hold tokens and customers' images.
    os.umask(0o077)
    try:
        app()
    except MaskloopError as exc:
        from maskloop.log import escape_controls

        typer.secho(f"maskloop: {escape_controls(str(exc))}", fg="red", err=True)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"maskloop {version('maskloop')}")
        raise typer.Exit


@app.callback()
def maskloop(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Closes the segmentation loop for Label Studio: pre-annotate, take corrections, fine-tune, serve.

    First: `maskloop demo` shows the whole loop on this machine. For a project of your own set
    LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, run `maskloop up`, then `maskloop connect NUMBER`;
    `maskloop doctor NUMBER` says what is missing.
    """


@app.command()
def demo(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of correcting and learning.")] = 2,
    exit_after: Annotated[bool, typer.Option("--exit", help="End after the last round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rounds to this file.")] = None,
    coco: Annotated[
        Path | None,
        typer.Option(help="A folder with images/ and instances.json to use instead of made-up images."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Label Studio's port.", show_default="a free one")] = None,
) -> None:
    """Show the whole loop on this machine: a real Label Studio, a simulated annotator, real training.

    Installs Label Studio in an environment of its own (once), makes a project with made-up images, draws
    predictions, corrects them through Label Studio's API as a person would in the browser, learns from the
    corrections in a background worker and shows the better predictions. Everything ends with this command.
    """
    from maskloop_studio.demo.command import run_demo

    run_demo(rounds=rounds, exit_after=exit_after, json_file=json_file, coco=coco, port=port)


add_daemons(app)
add_project_commands(app)
app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(base_app, name="base-model")
app.command("audit")(audit_command)
app.command("simulate")(simulate_command)
app.command("bench")(bench_command)
app.command("mlflow")(mlflow_command)
app.command("export")(export_command)
app.command("import")(import_command)


@base_app.command("build")
def base_model_build(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint is written.")],
    family: Annotated[str, typer.Option(help="mask2former or oneformer.")] = "mask2former",
    seed: Annotated[int, typer.Option(help="The same seed makes the same model.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps.", show_default="as the shipped one")
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Photos of single things on plain grounds: makes a Mask2Former like tiny-photos from them "
            "(needs the extra `backbones`)."
        ),
    ] = None,
) -> None:
    """Train a small model on made-up images, or on scenes of photo material, as the shipped ones were."""
    from maskloop.settings import load_settings
    from maskloop_studio.runtime.follow import build_base

    load_settings()
    build_base(folder, family=family, seed=seed, steps=steps, photos=photos)
