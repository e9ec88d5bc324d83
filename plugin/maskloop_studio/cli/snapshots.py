"""`maskloop snapshot`: frozen data sets, what they hold, and what differs between two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskloop_studio.cli.parameters import JsonOption

if TYPE_CHECKING:
    from maskloop.curation.snapshots.compare import Change, SnapshotDiff
    from maskloop.curation.snapshots.library import SnapshotLibrary
    from maskloop.curation.snapshots.snapshot_folder import Snapshot
    from maskloop_studio.services import Services

__all__ = ["snapshot_app", "snapshot_library"]

snapshot_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Frozen data sets: each is named by its content, so the same data is the same snapshot anywhere.",
)
SnapshotArgument = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="Its name, or its digest (six digits are enough).")
]
MAX_SHOWN = 40


def snapshot_library(services: Services) -> SnapshotLibrary:
    """Return the snapshots of this machine."""
    from maskloop.curation.snapshots.library import SnapshotLibrary

    return SnapshotLibrary(root=services.settings.snapshots_dir, datasets=services.store.datasets)


@snapshot_app.command("create")
def create_snapshot(
    project: Annotated[
        int | None, typer.Argument(min=1, help="The project's number, as in its address in Label Studio.")
    ] = None,
    name: Annotated[str, typer.Option(help="What to call it; its digest always works as well.")] = "",
    coco: Annotated[
        Path | None,
        typer.Option(help="Make it from this folder in COCO's form instead, without Label Studio."),
    ] = None,
    panoptic: Annotated[
        bool | None,
        typer.Option(help="With --coco: read panoptic files.", show_default="where there are no others"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze a project's annotations: of each task the one that counts, with masks, labels, split, who, when.

    The holdout by which models are judged is the validation split. Annotations that could not be read are
    left out and counted; `maskloop jobs list` names them.
    """
    from maskloop.curation.snapshots.library import check_name
    from maskloop_studio.exchange.making import make_folder_snapshot, make_project_snapshot
    from maskloop_studio.services import process_services

    if (project is None) == (coco is None):
        raise typer.BadParameter("name either a project or a folder with --coco")
    if name:
        check_name(name)
    services = process_services()
    if coco is not None:
        snapshot, left_out = make_folder_snapshot(coco, services, panoptic=panoptic), 0
    else:
        assert project is not None
        snapshot, left_out = make_project_snapshot(project, services)
    snapshot_library(services).note(snapshot, name=name, reason="command")
    _record(snapshot, name, services)
    if as_json:
        typer.echo(json.dumps({**_facts(snapshot), "name": name, "left_out": left_out}))
        return
    typer.echo("\n".join(_lines(snapshot)))
    if left_out:
        typer.echo(
            f"left out: {left_out} annotations that could not be read (`maskloop jobs list`)", err=True
        )


@snapshot_app.command("list")
def list_snapshots(
    project: Annotated[int | None, typer.Option(help="Only of this project.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the snapshots that were made, the oldest first; trainings make one each."""
    from rich.table import Column, Table

    from maskloop_studio.services import process_services

    services = process_services()
    notes = services.store.datasets.notes(project_id=project)
    if as_json:
        typer.echo(json.dumps([{**vars(one), "created_at": one.created_at.isoformat()} for one in notes]))
        return
    table = Table(Column("digest", no_wrap=True), "name", "project", "images", "objects", "made", "by")
    for one in notes:
        where = "-" if one.project_id is None else str(one.project_id)
        at = one.created_at.strftime("%y-%m-%d %H:%M")
        table.add_row(
            one.digest[:8], one.name or "-", where, str(one.images), str(one.objects), at, one.reason
        )
    _print(table)


@snapshot_app.command("show")
def show_snapshot(snapshot: SnapshotArgument, as_json: JsonOption = False) -> None:
    """Show what a snapshot holds: images by split, objects by class, and where it lies."""
    from maskloop_studio.services import process_services

    found = snapshot_library(process_services()).find(snapshot)
    typer.echo(json.dumps(_facts(found)) if as_json else "\n".join(_lines(found)))


@snapshot_app.command("diff")
def diff_snapshots(before: SnapshotArgument, after: SnapshotArgument, as_json: JsonOption = False) -> None:
    """Compare two snapshots: images and objects added, changed, relabelled, deleted, and by whom.

    An object before and after is the same where their masks have an IoU over .5.
    """
    from maskloop.curation.snapshots.compare import compare_snapshots
    from maskloop_studio.services import process_services

    library = snapshot_library(process_services())
    diff = compare_snapshots(library.find(before), library.find(after))
    typer.echo(json.dumps(diff.as_json()) if as_json else "\n".join(_diff_lines(diff)))


@snapshot_app.command("verify")
def verify(snapshot: SnapshotArgument, as_json: JsonOption = False) -> None:
    """Check that a snapshot is what its digest says, and that its images are here: exit code 0 or 1."""
    from maskloop.curation.snapshots.verify import verify_snapshot
    from maskloop_studio.runtime.progress_bar import progress_bar
    from maskloop_studio.services import process_services

    services = process_services()
    found = snapshot_library(services).find(snapshot)
    with progress_bar() as bar:
        shown = bar.add_task("images checked", total=found.image_count)
        troubles = list(
            verify_snapshot(
                found, cache=services.image_cache, on_image=lambda done: bar.update(shown, completed=done)
            )
        )
    if as_json:
        typer.echo(json.dumps({"digest": found.digest, "troubles": troubles}))
    elif troubles:
        typer.echo("\n".join(troubles[:MAX_SHOWN]))
        if len(troubles) > MAX_SHOWN:
            typer.echo(f"and {len(troubles) - MAX_SHOWN} more; --json prints all")
    else:
        typer.echo(f"{found.digest[:12]}: rows, masks and {found.image_count} images are as they were frozen")
    if troubles:
        raise typer.Exit(1)


def _record(snapshot: Snapshot, name: str, services: Services) -> None:
    from maskloop.store.audit import INSTALLATION, AuditAction, AuditEntry
    from maskloop_studio.projects.audit_trail import command_line_actor, record

    entry = AuditEntry(
        project_id=snapshot.manifest.project_id or INSTALLATION,
        action=AuditAction.FROZEN,
        actor=command_line_actor(),
        subject=f"snapshot {snapshot.digest[:12]}",
        reason=name,
        facts={"snapshot": snapshot.digest, "images": dict(snapshot.manifest.counts["images"])},
    )
    record(entry, services.store)


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    manifest = snapshot.manifest
    return {
        "digest": snapshot.digest,
        "folder": str(snapshot.folder),
        "project": manifest.project_id,
        "rule": manifest.rule,
        "include": manifest.include,
        "images": snapshot.image_count,
        "objects": manifest.tables["objects"].rows,
        "counts": dict(manifest.counts),
        "categories": [vars(one) for one in manifest.categories],
    }


def _lines(snapshot: Snapshot) -> list[str]:
    manifest, counts = snapshot.manifest, snapshot.manifest.counts
    splits = ", ".join(f"{split} {count}" for split, count in counts["images"].items())
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts["kinds"].items()) or "none"
    classes = [f"  {one.id} {one.name}: {counts['categories'][str(one.id)]}" for one in manifest.categories]
    if len(classes) > MAX_SHOWN:
        classes = [*classes[:MAX_SHOWN], f"  and {len(classes) - MAX_SHOWN} more; --json prints all"]
    return [
        f"snapshot {snapshot.digest}",
        f"folder {snapshot.folder}",
        f"images {snapshot.image_count} ({splits}), without an object {counts['without_object']}",
        f"areas {manifest.tables['objects'].rows} ({kinds})",
        "classes",
        *classes,
    ]


def _diff_lines(diff: SnapshotDiff) -> list[str]:
    lines = [
        f"{name.removeprefix('images_')} images: {len(items)} {_some(items)}".rstrip()
        for name, items in vars(diff).items()
        if name.startswith("images_") and items
    ]
    for name in ("categories_added", "categories_removed"):
        if getattr(diff, name):
            lines.append(f"{name.replace('_', ' ')}: {', '.join(getattr(diff, name))}")
    counts = ", ".join(f"{count} {kind}" for kind, count in diff.counts().items())
    lines.append(f"objects: {counts}, {diff.unchanged} unchanged")
    for user, kinds in diff.by_annotator().items():
        who = "user not known" if user is None else f"user {user}"
        lines.append(f"  {who}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    lines += [f"  {_change_line(change)}" for change in diff.changes[:MAX_SHOWN]]
    if len(diff.changes) > MAX_SHOWN:
        lines.append(f"  and {len(diff.changes) - MAX_SHOWN} more; --json prints all")
    return lines


def _change_line(change: Change) -> str:
    labels = change.after if change.before in (None, change.after) else change.before
    if change.before is not None and change.after is not None and change.before != change.after:
        labels = f"{change.before} -> {change.after}"
    iou = "" if change.iou is None else f", IoU {change.iou:.2f}"
    return f"{change.kind} {change.item}: {labels}{iou}"


def _some(items: tuple[str, ...]) -> str:
    return f"({', '.join(items[:5])}{', ...' if len(items) > 5 else ''})"


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
