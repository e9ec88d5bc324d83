"""A training from Label Studio's side: which labels there are, and what follows a promotion."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from maskloop.errors import ImageError
from maskloop.log import log_action
from maskloop.store.jobs import Job, JobKind
from maskloop_studio.dispatch import request
from maskloop_studio.formats.label_config import LabelMap

if TYPE_CHECKING:
    from maskloop.learning.data.training_set import LabelPlan
    from maskloop.learning.training.loop import TrainingProgress
    from maskloop.queue.lease import JobControl
    from maskloop.types import Correction, ModelVersion
    from maskloop_studio.projects.prediction_plan import PredictionPlan
    from maskloop_studio.services import Services

__all__ = ["bring_image", "ensure_champion", "model_name", "plan_learning", "train_project"]

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


def train_project(job: Job, control: JobControl, services: Services) -> dict[str, object]:
    """Train, judge and perhaps promote; killed anywhere, it goes on from its last checkpoint.

    Returns:
        The verdict, as plain values.

    Raises:
        MaskloopError: the training failed.
    """
    outcome = _train(job, control, services)
    log_action(
        logger,
        "training_finished",
        training_id=job.job_id,
        promoted=outcome["promoted"],
        reason=outcome["reason"],
    )
    if outcome["promoted"]:
        # Wanted before the job ends: killed in between, it is trained again and wanted again.
        request(
            JobKind.PRELABEL,
            job.project_id,
            f"{outcome['version']} was promoted",
            store=services.store,
            queue=services.queue,
        )
    return outcome


def _train(job: Job, control: JobControl, services: Services) -> dict[str, object]:
    from maskloop.learning.cycle import train_and_judge

    store, settings, project_id = services.store, services.settings, job.project_id
    champion = ensure_champion(project_id, services)
    plan, asked = plan_learning(project_id, champion, services)
    store.trainings.begin(job.job_id, project_id, through_version=store.corrections.last_version(project_id))
    train, holdout = _frozen_corrections(job, services)
    for correction in (*train, *holdout):
        control.check()
        bring_image(correction, services)

    def note(progress: TrainingProgress) -> None:
        control.progress(progress.step, progress.steps, loss=progress.loss, eta_s=progress.eta_s)

    verdict = train_and_judge(
        champion,
        train=train,
        holdout=holdout,
        plan=plan,
        image_cache=services.image_cache,
        registry=services.registry,
        settings=settings,
        task=asked.task,
        thresholds=asked.thresholds,
        key=job.name,
        work_dir=settings.runs_dir / job.name,
        on_progress=note,
    )
    return verdict.as_json()


def plan_learning(
    project_id: int, model: ModelVersion, services: Services
) -> tuple[LabelPlan, PredictionPlan]:
    """Return which classes a project's next model has, and how a model is asked and drawn there.

    Raises:
        LabelConfigError: the label config has no image or nothing to draw with.
        StudioError: Label Studio does not answer.
    """
    from maskloop.learning.data.training_set import LabelPlan
    from maskloop_studio.projects.prediction_plan import plan_project

    config, asked = plan_project(project_id, model, services)
    labels = LabelPlan(labels=config.all_labels, class_of_label=_class_of_label(asked.label_map))
    return labels, asked


def _frozen_corrections(
    job: Job, services: Services
) -> tuple[tuple[Correction, ...], tuple[Correction, ...]]:
    """Return what a training learns from and is judged on; after a kill the same, whatever came since."""
    from maskloop.learning.data.snapshot import SnapshotManifest

    book, work_dir = services.store.corrections, services.settings.runs_dir / job.name
    note = work_dir / "snapshot.json"
    if not note.exists():
        SnapshotManifest.of(
            train=book.of(job.project_id, split="train"), holdout=book.of(job.project_id, split="holdout")
        ).write(note)
    frozen = SnapshotManifest.read(note)
    return book.at(frozen.version_ids("train")), book.at(frozen.version_ids("holdout"))


def bring_image(correction: Correction, services: Services) -> None:
    """Fetch a correction's image where another machine took the correction in.

    Raises:
        ImageError: it cannot be had any more, or is another one by now.
    """
    cache = services.image_cache
    if cache.path(correction.image_key).exists():
        return
    data = services.fetcher.fetch(correction.image_uri, task_id=correction.task_id)
    if cache.put(data) != correction.image_key:
        raise ImageError(
            f"task {correction.task_id}, image {correction.image_uri[:200]}",
            expected=f"the image that was annotated (SHA-256 {correction.image_key})",
            got="another one under the same address",
            remedy="annotate the task again, or copy the old image into MASKLOOP_HOME/images",
        )


def _class_of_label(label_map: LabelMap | None) -> dict[str, str]:
    """Return label -> class; empty where all labels become new classes."""
    classes: dict[str, str] = {}
    for name, targets in label_map.targets.items() if label_map is not None else ():
        for target in targets:
            classes.setdefault(target.label, name)
    return classes
