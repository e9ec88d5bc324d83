"""The `maskloop` command; every command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from maskloop.errors import MaskloopError
from maskloop_studio.cli.bench import bench_command
from maskloop_studio.cli.jobs import jobs_app
from maskloop_studio.cli.models import models_app
from maskloop_studio.cli.simulate import simulate_command

__all__ = ["app", "main"]

app = typer.Typer(
    name="maskloop",
    help="Closes the segmentation loop for Label Studio: pre-annotate, take corrections, fine-tune, serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
base_app = typer.Typer(no_args_is_help=True, help="The small models that maskloop ships with.")
app.add_typer(models_app, name="models")
app.add_typer(base_app, name="base-model")
app.add_typer(jobs_app, name="jobs")
app.command("simulate")(simulate_command)
app.command("bench")(bench_command)

ProjectArgument = Annotated[
    int, typer.Argument(help="The project's number in Label Studio (in its address).")
]
HostOption = Annotated[
    str | None, typer.Option(help="Address to listen on.", show_default="MASKLOOP_HOST, 127.0.0.1")
]
PortOption = Annotated[
    int | None, typer.Option(help="Port to listen on.", show_default="MASKLOOP_PORT, 9090")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


def main() -> None:
    """Run the command line: 0 is success, 1 an error that is explained, 2 wrong usage."""
    # Two cores spinning for each other are slower than one: see "Measured" in the README.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        app()
    except MaskloopError as exc:
        typer.secho(f"maskloop: {exc}", fg="red", err=True)
        sys.exit(1)


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

    Builds Label Studio an environment of its own (once), makes a project with made-up images, draws
    predictions, corrects them through Label Studio's API as a person would in the browser, learns from it
    in a background worker and shows the better predictions. Everything ends with this command.
    """
    from maskloop_studio.demo.command import run_demo

    run_demo(rounds=rounds, exit_after=exit_after, json_file=json_file, coco=coco, port=port)


@app.command()
def up(host: HostOption = None, port: PortOption = None) -> None:
    """Run server, workers, scheduler and queue on this machine, until Ctrl-C.

    The queue is an embedded Valkey in MASKLOOP_HOME unless MASKLOOP_REDIS_URL names a Redis.
    """
    from maskloop.log import configure_logging
    from maskloop.settings import load_settings
    from maskloop_studio.runtime.supervisor import Supervisor

    settings = load_settings()
    configure_logging(settings.log)
    supervisor = Supervisor(settings, host=host or settings.host, port=port or settings.port)
    stop = _stop_on_signals()
    try:
        supervisor.start()
        typer.echo(f"maskloop serves at {supervisor.url}; logs in {supervisor.log_dir}; Ctrl-C ends it")
        while not stop.wait(1.0):
            supervisor.watch()
    finally:
        supervisor.stop()


@app.command()
def serve(host: HostOption = None, port: PortOption = None) -> None:
    """Run the HTTP server that Label Studio calls; it answers while its model still loads."""
    gc.disable()  # a sixth of what the imports take goes into looking for garbage that they do not make
    from maskloop.malloc import keep_freed_memory

    keep_freed_memory()
    from maskloop.log import configure_logging
    from maskloop.processes import check_free_port
    from maskloop.settings import load_settings
    from maskloop_studio.services import Services
    from maskloop_studio.serving.app import run_server

    gc.freeze()
    gc.enable()
    settings = load_settings()
    configure_logging(settings.log)
    host, port = host or settings.host, port or settings.port
    check_free_port(host, port)
    run_server(Services(settings), host=host, port=port)


@app.command()
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

    Give training a worker of its own: it forks for every job. A machine without a GPU trains only where it is
    told to, with --queue train.
    """
    from maskloop.log import configure_logging
    from maskloop.malloc import keep_freed_memory
    from maskloop.queue.spec import QueueName
    from maskloop.queue.valkey import connect_queue
    from maskloop.queue.workers import default_queues, keep_working
    from maskloop.settings import load_settings
    from maskloop_studio.dispatch import JOB_FUNCTIONS

    try:
        queues = [QueueName(name) for name in queue] if queue else list(default_queues())
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}; choose from intake, predict, train") from exc
    settings = load_settings()
    configure_logging(settings.log)
    if QueueName.PREDICT in queues:
        keep_freed_memory()
    keep_working(connect_queue(settings), queues, functions=JOB_FUNCTIONS)


@app.command()
def scheduler() -> None:
    """Queue again what waits in the database without a job, and keep the schedules.

    Every few seconds, and every MASKLOOP_SYNC_MINUTES for the comparison with Label Studio. Several may run.
    """
    from maskloop.log import configure_logging
    from maskloop.queue.valkey import connect_queue
    from maskloop_studio.runtime.scheduler import run_scheduler
    from maskloop_studio.services import process_services

    services = process_services()
    configure_logging(services.settings.log)
    run_scheduler(services, connect_queue(services.settings), _stop_on_signals())


@app.command()
def connect(
    project: ProjectArgument,
    backend_url: Annotated[
        str | None,
        typer.Option(help="Where Label Studio reaches maskloop.", show_default="MASKLOOP_HOST and PORT"),
    ] = None,
    new_labels: Annotated[
        bool,
        typer.Option(help="Accept labels that the model does not know yet: corrections will teach them."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Register maskloop in a Label Studio project: backend, webhook, displayed model, order of tasks."""
    import dataclasses

    from maskloop_studio.projects.connect import connect_project
    from maskloop_studio.services import process_services

    services = process_services()
    url = backend_url or f"http://{services.settings.host}:{services.settings.port}"
    made = connect_project(project, url, services, new_labels=new_labels)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(made)))
        return
    typer.echo(f"project {made.project_id} ({made.title}) shows predictions of {made.model_version}")
    typer.echo(f"labels it draws: {', '.join(made.matched) or 'none yet'}")
    if made.unmatched:
        typer.echo(f"labels it has to learn: {', '.join(made.unmatched)}")


@app.command()
def disconnect(project: ProjectArgument) -> None:
    """Take maskloop out of a Label Studio project: backend, webhooks, tabs; `connect` brings it back.

    Stored predictions and everything that annotators said stay.
    """
    from maskloop_studio.projects.connect import disconnect_project
    from maskloop_studio.services import process_services

    gone = disconnect_project(project, process_services())
    typer.echo(
        f"removed {gone.backends} backends, {gone.webhooks} webhooks and {gone.tabs} tabs "
        f"from project {gone.project_id}"
    )


@app.command()
def sync(
    project: ProjectArgument,
    full: Annotated[
        bool, typer.Option("--full", help="Compare everything, not only what changed since the last time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a project with Label Studio, and take in what no webhook told: missed, changed, deleted.

    The scheduler does the same every MASKLOOP_SYNC_MINUTES. It can be stopped and run again.
    """
    from maskloop_studio.runtime.follow import follow_sync
    from maskloop_studio.services import process_services

    follow_sync(project, process_services(), full=full, as_json=as_json)


@app.command()
def health(
    worker: Annotated[bool, typer.Option("--worker", help="Is a worker of this machine alive?")] = False,
    scheduler: Annotated[bool, typer.Option("--scheduler", help="Is its scheduler alive?")] = False,
) -> None:
    """Say whether this machine's server (or worker, or scheduler) is alive: exit code 0 or 1."""
    from maskloop.settings import load_settings
    from maskloop_studio.runtime.health import check_health

    check_health(load_settings(), worker=worker, scheduler=scheduler)
    typer.echo("alive")


@app.command()
def doctor(
    project: Annotated[
        int | None, typer.Argument(help="Also look at this project (its number in Label Studio).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at everything the loop needs, and say what is wrong and what helps: exit code 0 or 1.

    Of a project too: is it connected, does Label Studio reach us, do annotators get the tasks in our order.
    """
    from maskloop_studio.doctor.command import examine, print_findings
    from maskloop_studio.services import process_services

    if not print_findings(examine(process_services(), project), as_json=as_json):
        raise typer.Exit(1)


@app.command()
def prelabel(
    project: ProjectArgument,
    wait: Annotated[bool, typer.Option(help="Wait for it and show how far it is.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Predict a project's unlabelled tasks, push the predictions in order, show them; workers share it.

    Where no worker runs, this command does it itself. It can be stopped and run again.
    """
    from maskloop.log import configure_logging
    from maskloop_studio.cli.prelabel import prelabel as run
    from maskloop_studio.services import process_services

    services = process_services()
    configure_logging(services.settings.log)
    run(project, services, wait=wait, as_json=as_json)


@app.command()
def train(
    project: ProjectArgument,
    wait: Annotated[bool, typer.Option(help="Wait for it and show how far it is.")] = True,
) -> None:
    """Train on a project's corrections in the background, and promote the new model if it is better."""
    from maskloop.store.jobs import JobKind
    from maskloop_studio.dispatch import request
    from maskloop_studio.runtime.follow import follow_training
    from maskloop_studio.services import process_services

    services = process_services()
    number = request(JobKind.TRAINING, project, "maskloop train", store=services.store, queue=services.queue)
    typer.echo(f"training {number} is queued")
    if wait:
        follow_training(number, services.store)


@app.command()
def evaluate(
    project: ProjectArgument,
    version: Annotated[int | None, typer.Option(help="Its number.", show_default="the champion")] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a model version on a project's holdout, class by class, as the gate does."""
    from maskloop_studio.cli.evaluate import print_evaluation
    from maskloop_studio.services import process_services

    print_evaluation(project, version, process_services(), as_json=as_json)


@app.command()
def report(project: ProjectArgument, as_json: JsonOption = False) -> None:
    """Say what annotators corrected, version by version, and what choosing images is worth.

    A share of the tasks, MASKLOOP_RANDOM_SHARE, is left to chance: chosen ones are compared with these.
    """
    from maskloop_studio.cli.report import print_report
    from maskloop_studio.services import process_services

    print_report(project, process_services(), as_json=as_json)


@base_app.command("build")
def base_model_build(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint is written.")],
    family: Annotated[str, typer.Option(help="mask2former or oneformer.")] = "mask2former",
    seed: Annotated[int, typer.Option(help="The same seed makes the same model.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Training steps.", show_default="as the shipped one")
    ] = None,
) -> None:
    """Train a small model on made-up images from nothing, as the shipped one was."""
    from maskloop_studio.runtime.follow import build_base

    build_base(folder, family=family, seed=seed, steps=steps)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop
