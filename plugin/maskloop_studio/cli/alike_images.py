"""`maskloop images`: images that are there twice, nearly twice, or unlike all others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from maskloop_studio.cli.parameters import JsonOption, ProjectArgument

if TYPE_CHECKING:
    from maskloop.curation.duplicates.alike import TaskImageFacts
    from maskloop_studio.services import Services

__all__ = ["images"]


def images(
    project: ProjectArgument,
    *,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Pairs of alike images.")] = False,
    outliers: Annotated[bool, typer.Option("--outliers", help="Images unlike all others.")] = False,
    hash_distance: Annotated[
        float, typer.Option(min=0, max=1, help="Most bits of the perceptual hash that may differ.")
    ] = 0.1,
    embedding_distance: Annotated[
        float, typer.Option(min=0, max=2, help="Most of 1 - cosine of what a model sees; 0: not compared.")
    ] = 0.02,
    top: Annotated[int, typer.Option(min=1, help="How many are listed.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List images that are there twice or nearly so (--duplicates), or unlike all others (--outliers).

    Files and perceptual hashes are known of annotated images, what a model sees of those that the champion
    predicted (`maskloop prelabel`).
    """
    from maskloop.curation.duplicates.alike import find_alike, find_outliers
    from maskloop_studio.services import process_services

    facts = _facts(project, process_services())
    both = not duplicates and not outliers
    found: dict[str, list[dict[str, object]]] = {}
    if duplicates or both:
        pairs = find_alike(facts, hash_distance=hash_distance, embedding_distance=embedding_distance)
        found["duplicates"] = [
            {
                "tasks": [one.first, one.second],
                "likeness": str(one.likeness),
                "distance": round(one.distance, 4),
            }
            for one in pairs[:top]
        ]
    if outliers or both:
        found["outliers"] = [
            {"task": task, "distance": round(distance, 4)} for task, distance in find_outliers(facts)[:top]
        ]
    if as_json:
        typer.echo(json.dumps({"project": project, "images": len(facts), **found}))
        return
    typer.echo(f"project {project}: {len(facts)} images are known")
    for one in found.get("duplicates", ()):
        typer.echo(f"duplicate: tasks {one['tasks']}, {one['likeness']}, distance {one['distance']}")
    for one in found.get("outliers", ()):
        typer.echo(f"outlier: task {one['task']}, distance {one['distance']} to its fifth neighbour")


def _facts(project_id: int, services: Services) -> list[TaskImageFacts]:
    """Return what is known of each task's first image."""
    from maskloop.curation.duplicates.alike import facts_of
    from maskloop_studio.projects.training import model_name

    keys: dict[int, str] = {}
    for one in services.store.corrections.stream(project_id):
        keys.setdefault(one.task_id, one.image_key)
    champion = services.registry.champion(model_name(project_id))
    embeddings = {}
    if champion is not None:
        for task in services.store.scores.pool_tasks(project_id, champion.tag):
            if task.embedding_d is not None:
                embeddings[task.task_id] = task.embedding_d.astype(np.float32)
    return facts_of(keys, services.store.holdout.hashes(keys.values()), embeddings)
