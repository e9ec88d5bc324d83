"""What is known of each task's first image: its file, its perceptual hash, what the champion sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskloop_studio.projects.training import champion_tag

if TYPE_CHECKING:
    from maskloop.curation.duplicates.alike import TaskImageFacts
    from maskloop_studio.services import Services

__all__ = ["task_image_facts"]


def task_image_facts(
    project_id: int, services: Services, *, newest: int | None = None
) -> list[TaskImageFacts]:
    """Return what is known of the tasks' images, by task number.

    Args:
        project_id: Label Studio's number.
        services: database and registry.
        newest: only this many tasks, those with the highest numbers; all by default.

    Raises:
        MaskloopError: database or registry does not answer.
    """
    from maskloop.curation.duplicates.alike import facts_of

    keys = services.store.overview.image_keys(project_id)
    champion = champion_tag(project_id, services.registry)
    embeddings = {}
    if champion is not None:
        for task in services.store.scores.pool_tasks(project_id, champion):
            if task.embedding_d is not None:
                embeddings[task.task_id] = task.embedding_d
    if newest is not None:
        kept = frozenset(sorted({*keys, *embeddings})[-newest:])
        keys = {task: key for task, key in keys.items() if task in kept}
        embeddings = {task: value for task, value in embeddings.items() if task in kept}
    floats = {task: value.astype(np.float32) for task, value in embeddings.items()}
    return facts_of(keys, services.store.holdout.hashes(keys.values()), floats)
