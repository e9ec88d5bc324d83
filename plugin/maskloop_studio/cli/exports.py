"""`maskloop export`: a project or a snapshot as a folder that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskloop_studio.cli.parameters import JsonOption

if TYPE_CHECKING:
    from maskloop.curation.exports.export import ExportResult
    from maskloop.curation.snapshots.snapshot_folder import Snapshot
    from maskloop_studio.services import Services

__all__ = ["export_command"]

FORMAT_NAMES = (
    "coco, coco-panoptic, semantic-png, yolo-seg, cityscapes, hf, hf-semantic, parquet, labelme, cvat, "
    "label-studio"
)
SPLITS = ("train", "validation")


def export_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT|SNAPSHOT", help="A project's number, which is frozen first, or a snapshot."
        ),
    ],
    *,
    form: Annotated[str, typer.Option("--format", help=f"One of {FORMAT_NAMES}.")],
    out: Annotated[Path, typer.Option(help="The new folder.")],
    split: Annotated[
        list[str] | None, typer.Option(help="train or validation; may be given twice.", show_default="both")
    ] = None,
    images: Annotated[str, typer.Option(help="copy, link (hard links) or none.")] = "copy",
    labels: Annotated[
        list[str] | None, typer.Option(help="Only this class; may be given several times.")
    ] = None,
    include: Annotated[
        str,
        typer.Option(help="predictions:VERSION adds its predictions of images without an annotation."),
    ] = "",
    polygons: Annotated[bool, typer.Option(help="coco: polygons in place of RLE.")] = False,
    licence: Annotated[str, typer.Option(help="Of images and annotations, for the card.")] = "unknown",
    as_json: JsonOption = False,
) -> None:
    """Write a data set as a folder in another tool's form, with a card of what is in it and what is lost.

    Class numbers are the same in every export of a project. Stopped at any time, the same command goes on;
    the folder appears under its name once it is whole. Images that are gone are left out and named: exit
    code 1.
    """
    from maskloop.curation.exports.export import export_snapshot
    from maskloop.curation.exports.format import ExportPlan, ImagesMode
    from maskloop_studio.exchange.exporting import fetch_from, find_format
    from maskloop_studio.runtime.progress_bar import progress_bar
    from maskloop_studio.services import process_services

    splits = tuple(dict.fromkeys(split or SPLITS))
    if not set(splits) <= set(SPLITS):
        raise typer.BadParameter(
            f"expected train or validation, got {', '.join(splits)}", param_hint="--split"
        )
    if images not in tuple(ImagesMode):
        raise typer.BadParameter(f"expected copy, link or none, got {images}", param_hint="--images")
    services = process_services()
    snapshot = _find(source, include, services)
    plan = ExportPlan(
        format=form,
        splits=splits,
        images=ImagesMode(images),
        labels=tuple(labels or ()),
        polygons=polygons,
        licence=licence,
    )
    with progress_bar() as bar:
        shown = bar.add_task("images", total=sum(snapshot.manifest.counts["images"][name] for name in splits))
        result = export_snapshot(
            snapshot,
            plan,
            find_format(form, snapshot),
            out,
            cache=services.image_cache,
            fetch=fetch_from(services),
            on_image=lambda done: bar.update(shown, completed=done),
        )
    _record(source, form, snapshot, result, services)
    if as_json:
        typer.echo(json.dumps({"snapshot": snapshot.digest, **result.as_json()}))
    else:
        _print(result, snapshot)
    if result.failed:
        raise typer.Exit(1)


def _record(source: str, form: str, snapshot: Snapshot, result: ExportResult, services: Services) -> None:
    from maskloop.store.audit import INSTALLATION, AuditAction, AuditEntry
    from maskloop_studio.projects.audit_trail import command_line_actor, record

    entry = AuditEntry(
        project_id=int(source) if _is_project(source) else INSTALLATION,
        action=AuditAction.EXPORTED,
        actor=command_line_actor(),
        subject=f"snapshot {snapshot.digest[:12]}",
        reason=f"{form} to {result.folder}",
        facts={"format": form, "snapshot": snapshot.digest, **result.as_json()},
    )
    record(entry, services.store)


def _find(source: str, include: str, services: Services) -> Snapshot:
    from maskloop_studio.cli.snapshots import snapshot_library
    from maskloop_studio.exchange.making import make_project_snapshot

    library = snapshot_library(services)
    if not _is_project(source):
        if include:
            raise typer.BadParameter("a snapshot is what it is: name a project", param_hint="--include")
        return library.find(source)
    snapshot, left_out = make_project_snapshot(int(source), services, include=include)
    library.note(snapshot, reason="export")
    if left_out:
        typer.echo(
            f"left out: {left_out} annotations that could not be read (`maskloop jobs list`)", err=True
        )
    return snapshot


def _is_project(source: str) -> bool:
    return source.isascii() and source.isdecimal() and len(source) < 10


def _print(result: ExportResult, snapshot: Snapshot) -> None:
    splits = ", ".join(f"{split} {count}" for split, count in sorted(result.images.items())) or "no image"
    typer.echo(f"{result.folder}: {splits}; snapshot {snapshot.digest[:12]}")
    for name, count in result.counts.items():
        if count:
            typer.echo(f"  {name}: {count}")
    for name, value in result.least.items():
        typer.echo(f"  least {name}: {value:.4f}")
    if result.failed:
        typer.echo(f"{result.failed} images are left out (left-out.txt):", err=True)
        for reason in result.failures:
            typer.echo(f"  {reason}", err=True)
