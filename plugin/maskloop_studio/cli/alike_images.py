"""`maskloop images`: images that are there twice, nearly twice, or unlike all others."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from maskloop_studio.cli.parameters import JsonOption, ProjectArgument

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
    tab: Annotated[
        bool, typer.Option("--tab", help="Make a tab in Label Studio, with copies side by side.")
    ] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Remove that tab, and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List images that are there twice or nearly so (--duplicates), or unlike all others (--outliers).

    Files and perceptual hashes are known of annotated images, what a model sees of those that the champion
    predicted (`maskloop prelabel`).
    """
    from maskloop.curation.duplicates.alike import find_alike, find_outliers
    from maskloop_studio.projects.audit_trail import record_cleared
    from maskloop_studio.projects.task_image_facts import task_image_facts
    from maskloop_studio.review.duplicates_tab import remove_duplicates_tab, show_duplicates
    from maskloop_studio.services import process_services

    services = process_services()
    if clear:
        tasks = remove_duplicates_tab(project, client=services.client)
        record_cleared(
            project,
            "the tab of duplicates",
            command="maskloop images --clear",
            tasks=tasks,
            store=services.store,
        )
        typer.echo(f"removed the tab of duplicates: {tasks} tasks of project {project}")
        return
    facts = task_image_facts(project, services)
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
        if tab:
            tasks = show_duplicates(project, pairs[:top], client=services.client)
            typer.echo(f"in Label Studio: {tasks} tasks in the tab 'maskloop: duplicates'", err=True)
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
