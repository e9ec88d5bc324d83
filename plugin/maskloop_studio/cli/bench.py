"""`maskloop bench`: how fast everything is, as ratios; the measuring itself is in `tests/benchmarks`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from maskloop.processes import own_environment

__all__ = ["bench_command"]

MODULE = "tests.benchmarks"


def bench_command(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="This case, as --list names it; may be given several times."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Of rounds for each variant; five are done in any case.")
    ] = 10.0,
    requests: Annotated[
        int, typer.Option(min=1, help="Mutated requests of the case hostile, at most.")
    ] = 100_000,
    minutes: Annotated[
        float, typer.Option(min=0.0, help="For these requests: what is not sent by then stays unsent.")
    ] = 10.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="The smallest variants, to see that all runs.")
    ] = False,
    list_cases: Annotated[bool, typer.Option("--list", help="Name the cases and end.")] = False,
) -> None:
    """Measure how fast maskloop is, compared with the straightforward code for the same work, as ratios.

    Both do the same work in turn in the same run, and their results are compared: exit code 1 where they
    differ. A case that this machine cannot run prints the reason: no GPU, or no Label Studio
    (MASKLOOP_STUDIO_ENV names the folder of its environment). Needs a checkout of maskloop's source with its
    `dev` packages.
    """
    from maskloop.settings import load_settings

    load_settings()  # a misspelt setting is refused here as by every command
    root = _checkout()
    command = [sys.executable, "-m", MODULE, "--seconds", str(seconds)]
    command += ["--requests", str(requests), "--minutes", str(minutes)]
    for name in only or ():
        command += ["--only", name]
    if json_file is not None:
        command += ["--json", str(json_file.absolute())]
    command += ["--quick"] * quick + ["--list"] * list_cases
    code = subprocess.run(command, cwd=root, env=own_environment(), check=False).returncode  # noqa: S603
    raise typer.Exit(code if code >= 0 else 128 - code)  # as a shell reports that a signal ended it


def _checkout() -> Path:
    """Return the folder of the source checkout: where this package lies, else at or above the current folder.

    Raises:
        ConfigurationError: there is none.
    """
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[3], here, *here.parents):
        parts = MODULE.split(".")
        if (
            folder.joinpath(*parts, "__main__.py").is_file()
            and (folder / "plugin" / "maskloop_studio").is_dir()
        ):
            return folder
    from maskloop.errors import ConfigurationError

    raise ConfigurationError(
        "maskloop bench",
        expected="a checkout of maskloop's source, which the benchmarks are part of",
        got=f"none where maskloop is installed, nor at {here}",
        remedy="clone the repository, `pip install -e '.[dev]'` in it, and run this command there",
    )
