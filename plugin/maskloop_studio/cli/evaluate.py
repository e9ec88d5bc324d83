"""`maskloop evaluate`: how good a model version is on a project's holdout, class by class."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from maskloop.errors import TrainingError
from maskloop_studio.projects.training import bring_image, ensure_champion, model_name, plan_learning

if TYPE_CHECKING:
    from maskloop.learning.evaluation.metrics import Judgement
    from maskloop_studio.services import Services

__all__ = ["print_evaluation"]

SHOWN = ("ap50", "pq", "iou", "boundary_iou")


def print_evaluation(project_id: int, number: int | None, services: Services, *, as_json: bool) -> None:
    """Judge a version on the holdout as the gate does, and print the figures.

    Args:
        project_id: Label Studio's number.
        number: the version's; None for the champion.
        services: what to work with.
        as_json: print JSON, image by image.

    Raises:
        RegistryError: no such version.
        TrainingError: the holdout is empty.
    """
    name = model_name(project_id)
    champion = ensure_champion(project_id, services)
    version = champion if number is None else services.registry.get(name, number)
    plan, asked = plan_learning(project_id, version, services)
    holdout = services.store.corrections.of(project_id, split="holdout")
    for correction in holdout:
        bring_image(correction, services)

    from maskloop.learning.data.training_set import gather_material
    from maskloop.learning.evaluation.evaluate import judge_checkpoints
    from maskloop.segmentation.checkpoint import load_checkpoint

    material = gather_material(
        (), holdout, plan=plan, seen=(), image_cache=services.image_cache, settings=services.settings
    )
    if not material.judged:
        raise TrainingError(
            f"project {project_id}",
            expected="at least one correction in the holdout",
            got="none",
            remedy="annotate more tasks: a share of them, MASKLOOP_HOLDOUT_FRACTION, judges",
        )
    (judgement,) = judge_checkpoints(
        [load_checkpoint(version.path, device=services.settings.device)],
        material.judged,
        labels=material.plan.classes,
        task=asked.task,
        thresholds=asked.thresholds,
    )
    if as_json:
        judged = {
            "version": version.tag,
            "metrics": dataclasses.asdict(judgement.metrics),
            "images": judgement.per_image(),
            "lacking": material.lacking,
        }
        print(json.dumps(judged))
        return
    _print_table(version.tag, judgement)
    if material.lacking:
        print(f"note: {material.lacking}")


def _print_table(tag: str, judgement: Judgement) -> None:
    from rich.console import Console
    from rich.table import Table

    metrics = judgement.metrics
    table = Table("class", "images", "objects", "AP50", "PQ", "IoU", "boundary IoU", title=tag)
    for label, numbers in judgement.per_class().items():
        table.add_row(
            label,
            f"{numbers['images']:.0f}",
            f"{numbers['objects']:.0f}",
            *(_shown(numbers.get(name)) for name in SHOWN),
        )
    table.add_section()
    overall = (metrics.ap50, metrics.pq, metrics.miou, metrics.boundary_iou)
    table.add_row("all", str(metrics.images), "", *(_shown(value) for value in overall))
    Console().print(table)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
