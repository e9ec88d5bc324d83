"""The commands that run until they are stopped: `up` and its parts, and `health`, which looks at them."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from types import FrameType
from typing import Annotated

import typer

from maskloop_studio.cli.parameters import HostOption, PortOption

__all__ = ["add_daemons"]


def add_daemons(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, serve, worker, scheduler, health):
        app.command()(command)


def up(host: HostOption = None, port: PortOption = None) -> None:
    """Run server, workers, scheduler and queue on this machine, until Ctrl-C.

    The queue is an embedded Valkey in MASKLOOP_HOME unless MASKLOOP_REDIS_URL names a Redis. Each part has a
    log file in MASKLOOP_HOME/logs. One `maskloop up` runs in a home at a time.
    """
    from maskloop.log import configure_logging
    from maskloop.settings import load_settings
    from maskloop_studio.cli.preflight import warn_of_settings
    from maskloop_studio.runtime.supervisor import Supervisor

    settings = load_settings()
    configure_logging(settings.log)
    warn_of_settings(settings)
    supervisor = Supervisor(settings, host=host or settings.host, port=port or settings.port)
    stop = _stop_on_signals()
    try:
        supervisor.start()
        typer.echo(f"maskloop serves at {supervisor.url}; logs in {supervisor.log_dir}; Ctrl-C ends it")
        while not stop.wait(1.0):
            supervisor.watch()
    finally:
        supervisor.stop()


def serve(host: HostOption = None, port: PortOption = None) -> None:
    """Run the HTTP server that Label Studio calls; it answers while its model still loads."""
    gc.disable()  # a sixth of the time of the imports goes into looking for garbage that they do not make
    from maskloop.malloc import keep_freed_memory

    keep_freed_memory()
    from maskloop.home import prepare_home
    from maskloop.log import configure_logging
    from maskloop.processes import check_free_port
    from maskloop.settings import load_settings
    from maskloop_studio.projects.setting_records import note_settings_beside
    from maskloop_studio.services import Services
    from maskloop_studio.serving.app import run_server

    gc.freeze()
    gc.enable()
    settings = load_settings()
    configure_logging(settings.log)
    prepare_home(settings.home)
    host, port = host or settings.host, port or settings.port
    check_free_port(host, port)
    services = Services(settings)
    note_settings_beside(services, process="the server", host=host, port=port)
    run_server(services, host=host, port=port)


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option(
            help="intake, predict or train; may be given several times.",
            show_default="train on a machine with a GPU, elsewhere intake and predict",
        ),
    ] = None,
) -> None:
    """Run a queue worker; SIGTERM lets it finish the job in hand.

    Give training a worker of its own: it forks for every job. On a machine without a GPU a worker trains only
    with --queue train.
    """
    from maskloop.home import prepare_home
    from maskloop.log import configure_logging
    from maskloop.malloc import keep_freed_memory
    from maskloop.queue.spec import QueueName
    from maskloop.queue.valkey import connect_queue
    from maskloop.queue.workers import default_queues, keep_working
    from maskloop.settings import load_settings
    from maskloop_studio.dispatch import JOB_FUNCTIONS
    from maskloop_studio.projects.setting_records import note_settings
    from maskloop_studio.services import Services

    try:
        queues = [QueueName(name) for name in queue] if queue else list(default_queues())
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}; choose from intake, predict, train") from exc
    settings = load_settings()
    configure_logging(settings.log)
    prepare_home(settings.home)
    if QueueName.PREDICT in queues:
        keep_freed_memory()
    # In this thread: a training worker forks, and a fork must not find another thread at work.
    with contextlib.closing(Services(settings)) as services:
        note_settings(services, process=f"a worker of {', '.join(sorted(queues))}")
    keep_working(connect_queue(settings), queues, functions=JOB_FUNCTIONS)


def scheduler() -> None:
    """Queue jobs again whose queue entry was lost, and request jobs by the clock; several may run.

    It looks into the database every few seconds, and compares every project with Label Studio each
    MASKLOOP_SYNC_MINUTES. A cron line that cannot be read is skipped and named in the log and by `doctor`.
    """
    from maskloop.home import prepare_home
    from maskloop.log import configure_logging
    from maskloop.queue.valkey import connect_queue
    from maskloop_studio.runtime.scheduler import run_scheduler
    from maskloop_studio.services import process_services

    services = process_services()
    configure_logging(services.settings.log)
    prepare_home(services.settings.home)
    run_scheduler(services, connect_queue(services.settings), _stop_on_signals())


def health(
    worker: Annotated[bool, typer.Option("--worker", help="Is a worker of this machine alive?")] = False,
    scheduler: Annotated[bool, typer.Option("--scheduler", help="Is its scheduler alive?")] = False,
) -> None:
    """Check whether this machine's server (or worker, or scheduler) is alive: exit code 0 or 1."""
    from maskloop.settings import load_settings
    from maskloop_studio.runtime.health import check_health

    check_health(load_settings(), worker=worker, scheduler=scheduler)
    typer.echo("alive")


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def set_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, set_stop)
    return stop
