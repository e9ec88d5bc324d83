"""The commands about one project of Label Studio: connect it, predict, train, judge, compare, examine."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, cast

import typer

from maskloop_studio.cli.agreement import agreement
from maskloop_studio.cli.alike_images import images
from maskloop_studio.cli.parameters import JsonOption, ProjectArgument, WaitOption
from maskloop_studio.cli.review import review

__all__ = ["add_project_commands"]


def add_project_commands(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    judging = (train, evaluate, report)
    curating = (review, agreement, images)
    for command in (connect, disconnect, sync, doctor, prelabel, *judging, *curating):
        app.command()(command)


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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be changed, and change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Register maskloop in a Label Studio project: backend, webhook, displayed model, order of tasks.

    The plan is printed first. Interactive preannotations (smart tools) are switched on. It can be run again
    at any time, for instance after the address or the webhook's secret has changed; `maskloop disconnect`
    undoes it.
    """
    from maskloop_studio.projects.audit_trail import command_line_actor
    from maskloop_studio.projects.connect import carry_out
    from maskloop_studio.projects.connection_plan import plan_connection
    from maskloop_studio.services import process_services

    services = process_services()
    url = backend_url or f"http://{services.settings.host}:{services.settings.port}"
    plan = plan_connection(project, url, services, new_labels=new_labels)
    if not as_json:
        typer.echo("\n".join(plan.lines()))
    if dry_run:
        typer.echo(json.dumps(dataclasses.asdict(plan)) if as_json else "nothing was changed (--dry-run)")
        return
    made = carry_out(plan, services, actor=command_line_actor())
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(made)))
        return
    typer.echo(f"connected: project {made.project_id} shows predictions of {made.model_version}")
    typer.echo(f"`maskloop disconnect {made.project_id}` undoes it")


def disconnect(project: ProjectArgument) -> None:
    """Take maskloop out of a Label Studio project: what `connect` added; `connect` brings it back.

    Backend (and interactive preannotations with it), webhooks and tabs are removed, and the task sampling is
    Label Studio's default again. Stored predictions and all annotations stay.
    """
    from maskloop_studio.projects.audit_trail import command_line_actor
    from maskloop_studio.projects.connect import disconnect_project
    from maskloop_studio.projects.task_order import STUDIO_SAMPLING
    from maskloop_studio.services import process_services

    gone = disconnect_project(project, process_services(), actor=command_line_actor())
    typer.echo(
        f"removed {gone.backends} backends, {gone.webhooks} webhooks and {gone.tabs} tabs "
        f"from project {gone.project_id}"
    )
    if gone.sampling_reset:
        typer.echo(f"task sampling: {STUDIO_SAMPLING}, Label Studio's default")


def sync(
    project: ProjectArgument,
    full: Annotated[
        bool, typer.Option("--full", help="Compare everything, not only what changed since the last time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a project with Label Studio, and take in annotations whose webhook was lost.

    The scheduler does the same every MASKLOOP_SYNC_MINUTES. It can be stopped and run again.
    """
    from maskloop_studio.runtime.follow import follow_sync
    from maskloop_studio.services import process_services

    follow_sync(project, process_services(), full=full, as_json=as_json)


def doctor(
    project: Annotated[
        int | None, typer.Argument(min=1, help="Also check this project (its number in Label Studio).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check everything the loop needs, and print what is wrong and what helps: exit code 0 or 1.

    With a project: is it connected, does Label Studio reach maskloop, which annotations were set aside, do
    annotators get the tasks in maskloop's order. One line for each cause: a check that needs something which
    does not work is named as skipped.
    """
    from maskloop_studio.doctor.command import examine, print_findings
    from maskloop_studio.services import process_services

    if not print_findings(examine(process_services(), project), as_json=as_json):
        raise typer.Exit(1)


def prelabel(project: ProjectArgument, wait: WaitOption = True, as_json: JsonOption = False) -> None:
    """Predict a project's unlabelled tasks, store the predictions in order, show them.

    The workers share the tasks; where none runs, this command predicts them itself. It can be stopped and run
    again.
    """
    from maskloop.log import configure_logging
    from maskloop_studio.cli.prelabel import prelabel_and_print
    from maskloop_studio.services import process_services

    services = process_services()
    configure_logging(services.settings.log)
    services.client.project(project)  # raises where there is no such project: nothing is queued then
    prelabel_and_print(project, services, wait=wait, as_json=as_json)


def train(project: ProjectArgument, wait: WaitOption = True) -> None:
    """Train on a project's corrections in the background; a better model is promoted.

    Where a training of the project runs already, it is followed and no second one is queued.
    """
    from maskloop.queue.spec import QueueName
    from maskloop.store.audit import AuditAction
    from maskloop.store.jobs import JobKind, JobStatus
    from maskloop_studio.cli.preflight import require_project, warn_unserved
    from maskloop_studio.dispatch import request
    from maskloop_studio.projects.audit_trail import command_line_actor, record_job
    from maskloop_studio.runtime.follow import follow_training
    from maskloop_studio.services import process_services

    services = process_services()
    store = services.store
    require_project(project, projects=store.projects, client=services.client)
    running = store.jobs.find(
        statuses=[JobStatus.RUNNING], kind=JobKind.TRAINING, project_id=project, limit=1
    )
    if running:
        number = running[0].job_id
        typer.echo(f"training {number} of project {project} runs already: no second one is queued")
    else:
        number = request(JobKind.TRAINING, project, "maskloop train", store=store, queue=services.queue)
        job = store.jobs.get(number)
        if job is not None:
            record_job(job, AuditAction.REQUESTED, command_line_actor(), store)
        typer.echo(f"training {number} is queued")
        warn_unserved(QueueName.TRAIN, services.settings)
    if wait:
        follow_training(number, store)


def evaluate(
    project: ProjectArgument,
    version: Annotated[
        int | None, typer.Option(min=1, help="The version's number.", show_default="the champion")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a model version on a project's holdout, class by class, as the gate does."""
    from maskloop_studio.cli.evaluate import print_evaluation
    from maskloop_studio.services import process_services

    print_evaluation(project, version, process_services(), as_json=as_json)


def report(
    project: ProjectArgument,
    annotators: Annotated[bool, typer.Option(help="Count annotator by annotator.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count what annotators corrected, the work saved, what choosing images gains; name the weak classes.

    Regions are compared by outline and label: kept (IoU >= .95), nudged (>= .8), redrawn and so on.
    A share of the tasks, MASKLOOP_RANDOM_SHARE, is drawn by chance: the chosen tasks are compared with these.
    """
    from maskloop_studio.cli.report import pool_text, print_report
    from maskloop_studio.projects.training import model_name
    from maskloop_studio.projects.weak_classes import judged_versions, learnt_objects, weak_classes
    from maskloop_studio.services import process_services

    services = process_services()
    trainings = services.store.trainings.of(project)
    outcomes = [one.outcome or {} for one in trainings]
    judged = judged_versions(trainings)
    versions = services.registry.versions(model_name(project)) if judged else ()
    learnt = learnt_objects(versions, [one.number for one in judged], services.store.corrections)
    measured = [one["anchoring"] for one in outcomes if isinstance(one.get("anchoring"), dict)]
    print_report(
        project,
        corrections=services.store.corrections,
        settings=services.settings,
        by_annotator=annotators,
        as_json=as_json,
        anchoring=cast("dict[str, object]", measured[-1]) if measured else None,
        weak=weak_classes(judged, learnt),
        pool=pool_text(next((one for one in reversed(outcomes) if one), {})),
    )
