"""Snapshots by command: of a project, or of a folder in COCO's form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maskloop_studio.exchange.stored_predictions import stored_predictions
from maskloop_studio.projects.freezing import freeze_tasks
from maskloop_studio.runtime.progress_bar import progress_bar

if TYPE_CHECKING:
    from maskloop.curation.snapshots.snapshot_folder import Snapshot
    from maskloop_studio.services import Services

__all__ = ["make_folder_snapshot", "make_project_snapshot", "read_label_config"]


def make_project_snapshot(project_id: int, services: Services, *, include: str = "") -> tuple[Snapshot, int]:
    """Write the snapshot of a project; return it, and how many annotations are left out of it.

    Args:
        project_id: Label Studio's number.
        services: database, images, Label Studio.
        include: "predictions:VERSION" adds these predictions of tasks without an annotation.

    Raises:
        MaskloopError: there is no such project, or the snapshot cannot be written.
    """
    store = services.store
    snapshot = freeze_tasks(
        project_id,
        label_config=read_label_config(project_id, services),
        store=store,
        settings=services.settings,
        include=include,
        predicted=stored_predictions(project_id, include, services) if include else (),
    )
    left_out = store.annotations.count_set_aside(project_id) + len(store.corrections.underived(project_id))
    return snapshot, left_out


def read_label_config(project_id: int, services: Services) -> str:
    """Return a project's label config: the stored one where it is connected, else Label Studio's.

    Raises:
        StudioError: it is not connected, and Label Studio does not know it or does not answer.
    """
    stored = services.store.projects.label_config(project_id)
    return services.client.project(project_id).label_config if stored is None else stored


def make_folder_snapshot(folder: Path, services: Services, *, panoptic: bool | None) -> Snapshot:
    """Write the snapshot of a folder in COCO's form.

    Raises:
        CodecError: the folder is not as COCO has it.
        ResourceError: the disk is full.
    """
    from maskloop.curation.imports.coco_folder import open_coco_folder
    from maskloop.curation.imports.folder_snapshot import freeze_folder

    opened = open_coco_folder(folder, panoptic=panoptic)
    with progress_bar() as bar:
        shown = bar.add_task("images", total=len(opened))
        return freeze_folder(
            opened,
            cache=services.image_cache,
            root=services.settings.snapshots_dir,
            on_image=lambda done: bar.update(shown, completed=done),
        )
