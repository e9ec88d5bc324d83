"""Checks before a job is queued, so that no command waits for something that cannot come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from maskloop.errors import ConfigurationError, QueueError

if TYPE_CHECKING:
    from maskloop.queue.spec import QueueName
    from maskloop.settings import Settings
    from maskloop.store.projects import ProjectRepository
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["is_served", "require_project", "warn", "warn_of_settings", "warn_unserved"]


def require_project(project_id: int, *, projects: ProjectRepository, client: StudioClient) -> None:
    """Raise where a project is not connected, or Label Studio has no such project.

    Raises:
        ConfigurationError: it is not connected.
        StudioError: Label Studio has no such project, or does not answer.
    """
    connected = projects.ids()
    if project_id not in connected:
        raise ConfigurationError(
            f"project {project_id}",
            expected="a project that maskloop is connected to",
            got=f"connected projects: {', '.join(str(number) for number in sorted(connected)) or 'none'}",
            remedy=f"run `maskloop connect {project_id}` first",
        )
    client.project(project_id)


def is_served(queue: QueueName, settings: Settings) -> bool:
    """Return whether a worker serves a queue now; False also where the queue does not answer."""
    from maskloop.queue.valkey import connect_queue
    from maskloop.queue.workers import served_queues

    connection = connect_queue(settings)
    try:
        return served_queues(connection)[queue.value] > 0
    except QueueError:
        return False
    finally:
        connection.close()


def warn_unserved(queue: QueueName, settings: Settings) -> None:
    """Print a warning where no worker serves a queue: a job in it waits until one is started."""
    if not is_served(queue, settings):
        warn(
            f"no worker serves the queue `{queue.value}`: the job waits in the database until `maskloop up` "
            f"or `maskloop worker --queue {queue.value}` runs"
        )


def warn_of_settings(settings: Settings) -> None:
    """Print a warning for each setting without which, or with which, the loop does not close."""
    from maskloop.queue.cron import check_cron_line

    for name, value in (
        ("LABEL_STUDIO_URL", settings.label_studio_url),
        ("LABEL_STUDIO_API_KEY", settings.label_studio_api_key),
    ):
        if not value:
            warn(f"{name} is not set: no project can be connected, and no annotation is taken in")
    for name, line in (
        ("MASKLOOP_TRAIN_CRON", settings.train_cron),
        ("MASKLOOP_PRELABEL_CRON", settings.prelabel_cron),
    ):
        if line:
            try:
                check_cron_line(line)
            except ValueError as exc:
                warn(f"{name} is skipped: {exc}")


def warn(text: str) -> None:
    """Print one line to standard error."""
    typer.secho(f"maskloop: warning: {text}", fg="yellow", err=True)
