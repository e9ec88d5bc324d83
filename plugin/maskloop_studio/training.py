"""A training from Label Studio's side: which labels there are, and what follows a promotion."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop_studio.job_specs import queue_or_wait, renewal_job
from maskloop_studio.label_config import LabelMap, parse_label_config

if TYPE_CHECKING:
    from maskloop.learning.training import TrainingProgress
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = ["ensure_champion", "model_name", "run_training_job"]

logger = logging.getLogger(__name__)


def model_name(project_id: int) -> str:
    """Return the registered model's name of a project."""
    return f"maskloop-{project_id}"


def ensure_champion(project_id: int, services: Services) -> ModelVersion:
    """Return a project's champion; where it has none yet, the model of the settings becomes version 1."""
    from maskloop.learning.cycle import register_base

    return services.registry.champion(model_name(project_id)) or register_base(
        model_name(project_id), settings=services.settings, registry=services.registry
    )


def run_training_job(training_id: int, services: Services) -> None:
    """Train, judge and perhaps promote; the row tells how it went whatever happens.

    Raises:
        MaskloopError: the training failed; it is noted in its row as well.
    """
    store = services.store
    training = store.trainings.get(training_id)
    if training is None or training.status in ("finished", "failed"):
        return
    try:
        outcome = _train(training_id, training.project_id, services)
    except Exception as exc:
        # Also what nobody foresaw has to end in the row, or the project would wait for ever.
        store.trainings.fail(training_id, str(exc))
        log_action(logger, "training failed", level=logging.ERROR, training_id=training_id, error=exc)
        raise
    store.trainings.finish(training_id, outcome)
    log_action(
        logger,
        "training finished",
        training_id=training_id,
        promoted=outcome["promoted"],
        reason=outcome["reason"],
    )
    if outcome["promoted"]:
        queue_or_wait(services.queue, renewal_job(training.project_id))


def _train(training_id: int, project_id: int, services: Services) -> dict[str, object]:
    from maskloop.learning.cycle import LabelPlan, train_and_judge
    from maskloop_studio.serving.options import parse_options, plan_prediction

    store, settings = services.store, services.settings
    champion = ensure_champion(project_id, services)
    config = parse_label_config(services.client.project(project_id).label_config)
    asked = plan_prediction(
        settings,
        parse_options(store.projects.options(project_id)),
        config,
        champion.labels,
        model_version=champion.tag,
    )
    store.trainings.start(training_id, through_sequence=store.corrections.last_sequence(project_id))

    def note(progress: TrainingProgress) -> None:
        store.trainings.note_progress(training_id, step=progress.step, steps=progress.steps)

    verdict = train_and_judge(
        champion,
        train=store.corrections.of(project_id, split="train"),
        holdout=store.corrections.of(project_id, split="holdout"),
        plan=LabelPlan(labels=config.all_labels, class_of_label=_class_of_label(asked.label_map)),
        image_cache=services.image_cache,
        registry=services.registry,
        settings=settings,
        task=asked.task,
        thresholds=asked.thresholds,
        work_dir=settings.runs_dir / f"training-{training_id}",
        on_progress=note,
    )
    return verdict.as_json()


def _class_of_label(label_map: LabelMap | None) -> dict[str, str]:
    """Return label -> class; empty where all labels become new classes."""
    classes: dict[str, str] = {}
    for name, targets in label_map.targets.items() if label_map is not None else ():
        for target in targets:
            classes.setdefault(target.label, name)
    return classes
