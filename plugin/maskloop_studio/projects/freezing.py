"""A project of Label Studio -> a snapshot, without asking Label Studio where the project is connected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.projects.correction_labels import current_label

if TYPE_CHECKING:
    from maskloop.curation.snapshots.freeze import FreezeRules
    from maskloop.curation.snapshots.snapshot_folder import Snapshot
    from maskloop.settings import Settings
    from maskloop.store.corrections import TaskCorrections
    from maskloop.store.database import Store
    from maskloop.types import Correction

__all__ = ["freeze_tasks", "note_learnt"]


def freeze_tasks(
    project_id: int,
    *,
    label_config: str,
    store: Store,
    settings: Settings,
    include: str = "",
    predicted: Iterable[TaskCorrections] = (),
) -> Snapshot:
    """Write the snapshot of a project as the database has it now.

    Args:
        project_id: Label Studio's number.
        label_config: the project's (XML).
        store: the database.
        settings: which annotation of a task counts, renamed and ignored labels, the home.
        include: "predictions:VERSION" where predictions stand in for tasks without an annotation.
        predicted: these predictions, by task number.

    Raises:
        LabelConfigError: the label config cannot be read.
        StoreError: the database does not answer.
        ResourceError: the snapshot cannot be written.
    """
    from maskloop.curation.snapshots.freeze import freeze_project

    return freeze_project(
        store.corrections.by_task(project_id),
        _rules(project_id, label_config, settings, include),
        datasets=store.datasets,
        annotations=store.annotations,
        root=settings.snapshots_dir,
        predicted=predicted,
    )


def note_learnt(
    train: Sequence[Correction],
    holdout: Sequence[Correction],
    *,
    label_config: str,
    store: Store,
    settings: Settings,
    reason: str,
) -> str | None:
    """Write the snapshot of the corrections of one training; return its digest, None where there are none.

    It is the one that `freeze_tasks` makes of the project at that moment.

    Args:
        train: outside the holdout, of one project, with the labels that they are stored with.
        holdout: for evaluation only.
        label_config: the project's (XML).
        store: the database.
        settings: as for `freeze_tasks`.
        reason: the training's name.

    Raises:
        MaskloopError: as `freeze_tasks`.
    """
    from maskloop.curation.snapshots.freeze import freeze_project
    from maskloop.curation.snapshots.library import SnapshotLibrary
    from maskloop.store.corrections import TaskCorrections

    of_task: dict[tuple[int, str], list[Correction]] = {}
    for split, corrections in (("train", train), ("holdout", holdout)):
        for one in corrections:
            of_task.setdefault((one.task_id, split), []).append(one)
    if not of_task:
        return None
    tasks = [
        TaskCorrections(task_id=task_id, split=split, corrections=tuple(found))
        for (task_id, split), found in sorted(of_task.items())
    ]
    snapshot = freeze_project(
        tasks,
        _rules(tasks[0].corrections[0].project_id, label_config, settings, ""),
        datasets=store.datasets,
        annotations=store.annotations,
        root=settings.snapshots_dir,
    )
    library = SnapshotLibrary(root=settings.snapshots_dir, datasets=store.datasets)
    library.note(snapshot, reason=reason)
    return snapshot.digest


def _rules(project_id: int, label_config: str, settings: Settings, include: str) -> FreezeRules:
    from maskloop.curation.snapshots.freeze import FreezeRules

    config = parse_label_config(label_config)

    @lru_cache(maxsize=100_000)
    def label_now(label: str) -> str | None:
        # Labels that come with each task were matched when it was taken in.
        return label if config.is_dynamic else current_label(label, config, settings)

    return FreezeRules(
        project_id=project_id,
        labels=config.all_labels,
        stuff_labels=config.stuff_labels,
        ignored_labels=frozenset(settings.ignore_labels),
        label_now=label_now,
        rule=settings.annotation_rule,
        include=include,
    )
