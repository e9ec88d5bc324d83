"""`maskloop evaluate`: how good a model version is on a project's holdout, class by class."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from maskloop.errors import TrainingError
from maskloop.learning.evaluation.intervals import ALL_CLASSES, ScoreIntervals, score_intervals
from maskloop.types import SegmentationTask
from maskloop_studio.projects.correction_labels import add_correction_labels, match_correction_labels
from maskloop_studio.projects.frozen_corrections import TrainingImages, near_groups
from maskloop_studio.projects.training import ensure_champion, model_name, plan_learning

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
    images = TrainingImages(services.image_cache, services.fetcher, services.settings)
    images.ensure(holdout)

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
        groups=near_groups(holdout, store=services.store, images=images),
    )
    if not training_set.holdout_examples:
        raise TrainingError(
            f"project {project_id}",
            expected="at least one correction in the holdout",
            got="none",
            remedy="annotate more tasks: a share of them, MASKLOOP_HOLDOUT_FRACTION, is the holdout",
        )
    checkpoint = load_checkpoint(version.path, device=services.settings.device)
    # As served, then everything that the model finds: AP of the two tells what the threshold hides.
    thresholds = [prediction_plan.thresholds]
    if prediction_plan.task is SegmentationTask.INSTANCE:
        thresholds.append(dataclasses.replace(prediction_plan.thresholds, score=0.0, score_of_label={}))
    evaluation, *whole = (
        evaluate_side_by_side(
            [checkpoint],
            training_set.holdout_examples,
            labels=training_set.plan.classes,
            task=prediction_plan.task,
            thresholds=one,
        )[0]
        for one in thresholds
    )
    intervals = score_intervals(evaluation, seed=services.settings.seed)
    unfiltered = {name: getattr(whole[0].metrics, name) for name in ("ap50", "ap")} if whole else {}
    notes = [
        note
        for note in (
            training_set.holdout_gaps,
            training_set.boxes,
            _optimism(version.tag, project_id, services),
        )
        if note
    ]
    if as_json:
        values = {
            "version": version.tag,
            "metrics": dataclasses.asdict(evaluation.metrics),
            "intervals": {label or "all": scores for label, scores in intervals.items()},
            "without_threshold": unfiltered,
            "images": evaluation.per_image(),
            "lacking": training_set.holdout_gaps,
            "notes": notes,
        }
        print(json.dumps(values))
        return
    _print_table(version.tag, evaluation, intervals)
    print("below a score: 90 % of such holdouts would give a value between the two")
    if unfiltered:
        metrics = evaluation.metrics
        print(f"AP50 / AP at the served thresholds: {_shown(metrics.ap50)} / {_shown(metrics.ap)};")
        print(f"of all that the model finds: {_shown(unfiltered['ap50'])} / {_shown(unfiltered['ap'])}")
    for note in notes:
        print(f"note: {note}")


def _optimism(tag: str, project_id: int, services: Services) -> str | None:
    """Return that a version was chosen on the images that it is judged on; None where it was not."""
    judgements = services.store.holdout.judgements(project_id)
    chosen = next((one for one in judgements if one.challenger == tag and one.promote), None)
    if chosen is None:
        return None
    tried = [one for one in judgements if one.training_id <= chosen.training_id]
    return (
        f"the score is optimistic: these images chose the version, with {sum(one.promote for one in tried)} "
        f"promotions among {len(tried)} challengers so far; new images of the holdout make it fairer"
    )


def _print_table(tag: str, evaluation: Evaluation, intervals: ScoreIntervals | None = None) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    metrics = evaluation.metrics
    table = Table(
        Column("class", overflow="fold"), "images", "objects", "AP50", "PQ", "IoU", "boundary IoU", title=tag
    )
    spread = intervals or {}
    for label, numbers in evaluation.per_class().items():
        table.add_row(
            label,
            f"{numbers['images']:.0f}",
            f"{numbers['objects']:.0f}",
            *(_with_interval(numbers.get(name), spread.get(label, {}).get(name)) for name in SHOWN),
        )
    table.add_section()
    overall = (metrics.ap50, metrics.pq, metrics.miou, metrics.boundary_iou)
    of_all = spread.get(ALL_CLASSES, {})
    cells = [_with_interval(value, of_all.get(name)) for name, value in zip(SHOWN, overall, strict=True)]
    table.add_row("all", str(metrics.images), "", *cells)
    Console().print(table)


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    return _shown(value) + (f"\n{interval[0]:.2f}-{interval[1]:.2f}" if interval else "")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
