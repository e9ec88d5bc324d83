"""`maskloop jobs`: lists, retries, drops and cancels jobs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from maskloop.store.job_types import Job, JobKind, JobStatus
from maskloop_studio.intake.set_aside_report import set_aside_lines

if TYPE_CHECKING:
    from maskloop.store.database import Store

__all__ = ["jobs_app"]

jobs_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The jobs: events of annotations, trainings, predictions, comparisons.",
)

UNFINISHED = (JobStatus.WAITING, JobStatus.RUNNING, JobStatus.DEAD)
MAX_SHOWN_ERROR = 500
JobNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="JOB...", help="As `maskloop jobs list` names them: event-17, or 17."),
]
AllDead = Annotated[bool, typer.Option("--all", help="All that have failed for good.")]
ProjectOption = Annotated[int | None, typer.Option(help="Only of this project.")]


@jobs_app.command("list")
def list_jobs(
    status: Annotated[
        list[JobStatus] | None,
        typer.Option(help="May be given several times.", show_default="waiting, running, dead"),
    ] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Only of this kind.")] = None,
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the newest.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")] = False,
) -> None:
    """List jobs, the oldest first: those that are not done, unless --status names others.

    A job that fails is tried again after longer and longer pauses; in the end its status is dead. Then read
    its error, remove the cause, and run `maskloop jobs retry` or `maskloop jobs drop`.
    """
    store = _store()
    found = store.jobs.find(statuses=status or UNFINISHED, kind=kind, project_id=project, limit=limit)
    if as_json:
        typer.echo(json.dumps([_as_json(job) for job in found]))
        return
    _print_table(found)
    for project_id in store.projects.ids():
        if project in (None, project_id):
            for line in set_aside_lines(project_id, store.annotations):
                typer.echo(line)


@jobs_app.command("retry")
def retry_jobs(jobs: JobNames = None, every: AllDead = False, project: ProjectOption = None) -> None:
    """Try jobs again now: dead, cancelled or dropped ones, and those that wait for their next attempt."""
    from maskloop_studio.dispatch import try_again
    from maskloop_studio.services import process_services

    services = process_services()
    for job in _chosen(jobs, every, project):
        again = try_again(job, store=services.store, queue=services.queue)
        if again is None:
            typer.echo(f"{job.name} is {job.status.value}: nothing to try again")
            continue
        _record(job, "retried", services.store)
        other = (
            "" if again == job.job_id else f" ({job.kind.value}-{again} waits already and does the same work)"
        )
        typer.echo(f"{job.name} waits again{other}")


@jobs_app.command("drop")
def drop_jobs(jobs: JobNames = None, every: AllDead = False, project: ProjectOption = None) -> None:
    """Give jobs up for good; `maskloop sync` still finds the annotations they were about."""
    store = _store()
    for job in _chosen(jobs, every, project):
        dropped = store.jobs.drop(job.job_id)
        if dropped:
            _record(job, "dropped", store)
        typer.echo(f"{job.name} dropped" if dropped else f"{job.name} is {job.status.value}: not dropped")


@jobs_app.command("cancel")
def cancel_jobs(jobs: JobNames = None, project: ProjectOption = None) -> None:
    """End jobs: at once those that wait, at their next step those that run."""
    store = _store()
    for job in _chosen(jobs, False, project):
        became = store.jobs.cancel(job.job_id)
        if became is None:
            typer.echo(f"{job.name} is {job.status.value}: nothing to cancel")
        else:
            _record(job, "cancelled", store)
            typer.echo(
                f"{job.name} {'cancelled' if became is JobStatus.CANCELLED else 'ends at its next step'}"
            )


def _record(job: Job, action: str, store: Store) -> None:
    from maskloop.store.audit import AuditAction
    from maskloop_studio.projects.audit_trail import command_line_actor, record_job

    record_job(job, AuditAction(action), command_line_actor(), store)


def _chosen(names: list[str] | None, every: bool, project: int | None) -> list[Job]:
    store = _store()
    if every:
        return list(store.jobs.find(statuses=[JobStatus.DEAD], project_id=project, limit=100_000))
    if not names:
        raise typer.BadParameter("name at least one job, as `maskloop jobs list` does, or give --all")
    chosen = []
    for name in names:
        kind, _, number = name.rpartition("-")
        job = store.jobs.get(int(number)) if number.isdecimal() and len(number) < 18 else None
        if job is None or (kind and kind not in job.kind.stored) or (project and job.project_id != project):
            raise typer.BadParameter(f"there is no job {name}; see `maskloop jobs list`")
        chosen.append(job)
    return chosen


def _print_table(jobs: tuple[Job, ...]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    if not jobs:
        typer.echo("no such jobs")
        return
    table = Table(
        Column("job", no_wrap=True),
        Column("project", no_wrap=True),
        Column("what", overflow="fold"),
        Column("status", max_width=len("cancelled,")),
        Column("tries", no_wrap=True),
        Column("progress", no_wrap=True),
        Column("next try", no_wrap=True),
        box=None,  # borders take what the names need at 80 columns
        padding=(0, 1, 0, 0),
    )
    for job in jobs:
        table.add_row(
            job.name,
            str(job.project_id),
            job.action,
            job.status.value + (", to be cancelled" if job.cancel_requested else ""),
            str(job.attempts),
            f"{job.done}/{job.total}" if job.total else "",
            f"{job.due_at.astimezone():%H:%M:%S}" if job.status is JobStatus.WAITING else "",
        )
    Console().print(table)
    for job in jobs:
        if job.error:  # below the table: a narrow column would cut it up
            typer.echo(f"{job.name}: {job.error[:MAX_SHOWN_ERROR]}")


def _as_json(job: Job) -> dict[str, object]:
    values = {"name": job.name, **dataclasses.asdict(job)}
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()
    }


def _store() -> Store:
    from maskloop_studio.services import process_services

    return process_services().store
