"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

__all__ = ["HostOption", "JsonOption", "PortOption", "ProjectArgument", "WaitOption"]

ProjectArgument: TypeAlias = Annotated[
    int, typer.Argument(min=1, help="The project's number, as in its address in Label Studio.")
]
HostOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Address to listen on.", show_default="MASKLOOP_HOST, 127.0.0.1")
]
PortOption: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen on.", show_default="MASKLOOP_PORT, 9090"),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
WaitOption: TypeAlias = Annotated[bool, typer.Option(help="Wait for the end and show the progress.")]
