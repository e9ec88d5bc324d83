"""`maskloop import`: a data set of elsewhere into a Label Studio project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskloop_studio.cli.parameters import JsonOption, ProjectArgument

if TYPE_CHECKING:
    from maskloop_studio.exchange.folder_import import ImportReport
    from maskloop_studio.services import Services

__all__ = ["import_command"]


def import_command(
    folder: Annotated[Path, typer.Argument(help="In COCO's form: instances or panoptic.")],
    project: ProjectArgument,
    *,
    become: Annotated[
        str, typer.Option("--as", help="annotations, or predictions for annotators to correct.")
    ] = "annotations",
    version: Annotated[str, typer.Option(help="With --as predictions: their model version.")] = "imported",
    panoptic: Annotated[
        bool | None,
        typer.Option(help="Read panoptic files.", show_default="where there are no others"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take a data set of elsewhere into a project: images as tasks, objects as annotations or predictions.

    The label config must have the classes. Brushes and bitmasks are exact, polygons follow the pixels'
    outlines. Run again, it passes over the images that the project has already.
    """
    from maskloop.curation.imports.coco_folder import open_coco_folder
    from maskloop_studio.exchange.folder_import import ImportAs, ImportReport, import_folder
    from maskloop_studio.runtime.progress_bar import progress_bar
    from maskloop_studio.services import process_services

    if become not in tuple(ImportAs):
        raise typer.BadParameter(f"expected annotations or predictions, got {become}", param_hint="--as")
    services = process_services()
    opened = open_coco_folder(folder, panoptic=panoptic)
    report, is_whole = ImportReport(), False
    try:
        with progress_bar() as bar:
            shown = bar.add_task("images", total=len(opened))
            import_folder(
                opened,
                project,
                client=services.client,
                become=ImportAs(become),
                model_version=version,
                ignored_labels=services.settings.ignore_labels,
                report=report,
                on_image=lambda done: bar.update(shown, completed=done),
            )
        is_whole = True
    finally:
        if report.tasks:
            _record(project, folder, become, report, services, is_whole=is_whole)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
        return
    typer.echo(f"project {project}: {report.tasks} tasks with {report.objects} objects as {become}")
    if report.present:
        typer.echo(f"passed over: {report.present} images that the project had already")
    for kind, count in report.left_out.items():
        typer.echo(
            f"left out: {count} areas of the kind {kind}, for which the label config has no label", err=True
        )


def _record(
    project: int, folder: Path, become: str, report: ImportReport, services: Services, *, is_whole: bool
) -> None:
    from maskloop.store.audit import AuditAction, AuditEntry
    from maskloop_studio.projects.audit_trail import command_line_actor, record

    entry = AuditEntry(
        project_id=project,
        action=AuditAction.IMPORTED,
        actor=command_line_actor(),
        subject=f"{report.tasks} tasks",
        reason=f"{folder.resolve()} as {become}" + ("" if is_whole else ", ended early"),
        facts=report.as_json(),
    )
    record(entry, services.store)
