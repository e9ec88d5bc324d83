"""`maskloop mlflow`: MLflow's own page on the model versions and trainings, on this machine only."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from maskloop.errors import ConfigurationError, DependencyError

if TYPE_CHECKING:
    from maskloop.settings import Settings

__all__ = ["mlflow_arguments", "mlflow_command", "require_mlflow_page"]

LOOPBACK = "127.0.0.1"  # the page has no login
DEFAULT_PORT = 5000


def mlflow_command(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the page, on this machine only.")
    ] = DEFAULT_PORT,
) -> None:
    """Serve MLflow's own page on maskloop's store: trainings, their curves, versions; until Ctrl-C.

    It needs the extra `mlflow`: maskloop itself works with the small package without the page.
    """
    from maskloop.processes import check_free_port
    from maskloop.settings import load_settings

    settings = load_settings()
    require_mlflow_page()
    arguments = mlflow_arguments(settings, port=port)
    check_free_port(LOOPBACK, port)
    typer.echo(f"MLflow's page: http://{LOOPBACK}:{port}; Ctrl-C ends it")
    # The server takes the place of this process: signals and its exit code are its own.
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606 - no shell, fixed program


def require_mlflow_page() -> None:
    """Make sure that the package with MLflow's page is installed, beside the small one that maskloop needs.

    Raises:
        DependencyError: it is not, or it is another version than the small one.
    """
    small = metadata.version("mlflow-skinny")
    try:
        installed = metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        installed = "none"
    if installed != small or importlib.util.find_spec("flask") is None:
        raise DependencyError(
            "MLflow's page",
            expected=f"the package mlflow {small}, the version of mlflow-skinny",
            got=installed,
            remedy=f"run `pip install 'mlflow=={small}'` (the extra: `pip install '.[mlflow]'`)",
        )


def mlflow_arguments(settings: Settings, *, port: int) -> list[str]:
    """Return the module and arguments that serve the page on the store of the settings.

    Raises:
        ConfigurationError: the store is an MLflow server, which has its own page, or there is none yet.
    """
    store = settings.resolved_tracking_uri
    if store.startswith(("http://", "https://")):
        raise ConfigurationError(
            "maskloop mlflow",
            expected="a store on this machine",
            got=f"MLFLOW_TRACKING_URI={store}",
            remedy="open that address in a browser: the server has its own page",
        )
    if settings.mlflow_tracking_uri is None and not settings.registry_file.exists():
        raise ConfigurationError(
            "maskloop mlflow",
            expected=f"model versions in {settings.registry_file}",
            got="no such file",
            remedy="connect a project first: `maskloop connect PROJECT` makes version 1",
        )
    return [
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
