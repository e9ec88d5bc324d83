"""`maskloop evaluate`: how good a model version is on a project's holdout, class by class."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from maskloop.errors import TrainingError
from maskloop_studio.projects.correction_labels import add_correction_labels, match_correction_labels
from maskloop_studio.projects.training import ensure_champion, ensure_image, model_name, plan_learning

if TYPE_CHECKING:
    from maskloop.learning.evaluation.prediction_metrics import Evaluation
    from maskloop_studio.services import Services

__all__ = ["print_evaluation"]

SHOWN = ("ap50", "pq", "iou", "boundary_iou")


def print_evaluation(project_id: int, number: int | None, services: Services, *, as_json: bool) -> None:
    """Evaluate a version on the holdout as the gate does, and print the metrics.

    Args:
        project_id: Label Studio's number.
        number: the version's; None for the champion.
        services: registry, stored corrections, images and settings.
        as_json: print JSON, with the metrics of each image.

    Raises:
        RegistryError: no such version.
        TrainingError: the holdout is empty.
    """
    name = model_name(project_id)
    champion = ensure_champion(project_id, registry=services.registry, settings=services.settings)
    version = champion if number is None else services.registry.get(name, number)
    plan, prediction_plan = plan_learning(project_id, version, services)
    (holdout,) = match_correction_labels(
        services.store.corrections.of(project_id, split="holdout"),
        label_config=services.client.project(project_id).label_config,
        settings=services.settings,
    )
    plan = add_correction_labels(plan, holdout, model_labels=version.labels, settings=services.settings)
    for correction in holdout:
        ensure_image(correction, image_cache=services.image_cache, fetcher=services.fetcher)

    from maskloop.learning.data.training_set import build_training_set
    from maskloop.learning.evaluation.evaluate import evaluate_side_by_side
    from maskloop.segmentation.checkpoint import load_checkpoint

    training_set = build_training_set(
        (),
        holdout,
        plan=plan,
        learnt_versions=(),
        image_cache=services.image_cache,
        settings=services.settings,
    )
    if not training_set.holdout_examples:
        raise TrainingError(
            f"project {project_id}",
            expected="at least one correction in the holdout",
            got="none",
            remedy="annotate more tasks: a share of them, MASKLOOP_HOLDOUT_FRACTION, is the holdout",
        )
    (evaluation,) = evaluate_side_by_side(
        [load_checkpoint(version.path, device=services.settings.device)],
        training_set.holdout_examples,
        labels=training_set.plan.classes,
        task=prediction_plan.task,
        thresholds=prediction_plan.thresholds,
    )
    if as_json:
        values = {
            "version": version.tag,
            "metrics": dataclasses.asdict(evaluation.metrics),
            "images": evaluation.per_image(),
            "lacking": training_set.holdout_gaps,
        }
        print(json.dumps(values))
        return
    _print_table(version.tag, evaluation)
    if training_set.holdout_gaps:
        print(f"note: {training_set.holdout_gaps}")


def _print_table(tag: str, evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    metrics = evaluation.metrics
    table = Table(
        Column("class", overflow="fold"), "images", "objects", "AP50", "PQ", "IoU", "boundary IoU", title=tag
    )
    for label, numbers in evaluation.per_class().items():
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
