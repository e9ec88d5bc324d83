"""The training of a project: its corrections and labels in, a new version in the registry out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from maskloop.errors import ImageError
from maskloop.log import log_action
from maskloop.store.jobs import Job, JobKind
from maskloop_studio.dispatch import request
from maskloop_studio.formats.label_config import LabelMap
from maskloop_studio.projects.announcement import Announcer
from maskloop_studio.projects.correction_labels import add_correction_labels, match_correction_labels
from maskloop_studio.projects.freezing import note_learnt

if TYPE_CHECKING:
    from maskloop.learning.data.training_set import LabelPlan
    from maskloop.learning.registry import ModelRegistry
    from maskloop.learning.training.job import TrainingProgress
    from maskloop.learning.training_job import TrainingJob
    from maskloop.queue.lease import JobControl
    from maskloop.settings import Settings
    from maskloop.store.corrections import CorrectionRepository
    from maskloop.store.images import ImageCache
    from maskloop.types import Correction, ModelVersion
    from maskloop_studio.images.fetcher import ImageFetcher
    from maskloop_studio.projects.prediction_plan import PredictionPlan
    from maskloop_studio.services import Services

__all__ = [
    "StepLines",
    "ensure_champion",
    "ensure_image",
    "freeze_corrections",
    "model_name",
    "plan_learning",
    "train_project",
]

logger = logging.getLogger(__name__)
STEP_LINE_S = 10.0  # between two lines about one training


def model_name(project_id: int) -> str:
    """Return the registered model's name of a project."""
    return f"maskloop-{project_id}"


def ensure_champion(project_id: int, *, registry: ModelRegistry, settings: Settings) -> ModelVersion:
    """Return a project's champion; where it has none, register the model of the settings as version 1."""
    from maskloop.learning.registration import register_base

    name = model_name(project_id)
    return registry.champion(name) or register_base(name, settings=settings, registry=registry)


def train_project(job: Job, control: JobControl, services: Services) -> dict[str, object]:
    """Train a new version of a project's model, evaluate it, and promote it if it is better.

    Restarted after a kill, it continues from the last saved state.

    Returns:
        The outcome as plain values.

    Raises:
        MaskloopError: the training failed.
    """
    from maskloop.learning.cycle import run_training

    lines = StepLines(job.job_id)

    def report(progress: TrainingProgress) -> None:
        lines.note(progress)
        measured = {"images_per_s": progress.images_per_s, "memory_mb": progress.memory_mb}
        known = {name: value for name, value in measured.items() if value is not None}
        control.progress(progress.step, progress.steps, loss=progress.loss, eta_s=progress.eta_s, **known)

    training_job = _training_job(job, control, services)
    announcer = Announcer(
        job.project_id,
        settings=services.settings,
        client=services.client,
        projects=services.store.projects,
    )
    announcer.training(training_job.champion.tag)
    outcome = run_training(
        training_job,
        registry=services.registry,
        image_cache=services.image_cache,
        settings=services.settings,
        on_progress=report,
    ).as_json()
    log_action(
        logger,
        "training_finished",
        training_id=job.job_id,
        promoted=outcome["promoted"],
        reason=outcome["reason"],
    )
    announcer.trained(str(outcome["version"]), str(outcome["release"]))
    if outcome["promoted"]:
        # Before the job ends: killed in between, the training runs again and requests it again.
        request(
            JobKind.PRELABEL,
            job.project_id,
            f"{outcome['version']} was promoted",
            store=services.store,
            queue=services.queue,
        )
    return outcome


class StepLines:
    """Steps and loss of a training as lines of the log, a few of them a minute."""

    def __init__(self, training_id: int, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._training_id, self._clock_s = training_id, clock_s
        self._due_s = float("-inf")

    def note(self, progress: TrainingProgress) -> None:
        """Log how far it is, where the last line is old enough or this is the last step."""
        at = self._clock_s()
        if at < self._due_s and progress.step < progress.steps:
            return
        self._due_s = at + STEP_LINE_S
        log_action(
            logger,
            "training_step",
            training_id=self._training_id,
            step=progress.step,
            steps=progress.steps,
            loss=round(progress.loss, 4),
            eta_s=round(progress.eta_s),
        )


def _training_job(job: Job, control: JobControl, services: Services) -> TrainingJob:
    from maskloop.learning.training_job import TrainingJob

    store, project_id = services.store, job.project_id
    champion = ensure_champion(project_id, registry=services.registry, settings=services.settings)
    labels, prediction_plan = plan_learning(project_id, champion, services)
    store.trainings.begin(job.job_id, project_id, through_version=store.corrections.last_version(project_id))
    work_dir = services.settings.runs_dir / job.name
    label_config = services.client.project(project_id).label_config
    frozen = freeze_corrections(project_id, store.corrections, work_dir / "snapshot.json")
    dataset = note_learnt(
        *frozen, label_config=label_config, store=store, settings=services.settings, reason=job.name
    )
    train, holdout = match_correction_labels(*frozen, label_config=label_config, settings=services.settings)
    labels = add_correction_labels(
        labels, train, holdout, model_labels=champion.labels, settings=services.settings
    )
    for correction in (*train, *holdout):
        control.check()
        ensure_image(correction, image_cache=services.image_cache, fetcher=services.fetcher)
    return TrainingJob(
        key=job.name,
        champion=champion,
        train=train,
        holdout=holdout,
        labels=labels,
        task=prediction_plan.task,
        thresholds=prediction_plan.thresholds,
        work_dir=work_dir,
        dataset=dataset,
    )


def plan_learning(
    project_id: int, model: ModelVersion, services: Services
) -> tuple[LabelPlan, PredictionPlan]:
    """Return the classes of a project's next model, and how the project is predicted.

    Raises:
        LabelConfigError: the label config has no image or no control for segments.
        StudioError: Label Studio does not answer.
    """
    from maskloop.learning.data.training_set import LabelPlan
    from maskloop_studio.projects.prediction_plan import plan_project

    project = plan_project(
        project_id,
        model,
        settings=services.settings,
        client=services.client,
        projects=services.store.projects,
    )
    prediction_plan = project.of_project
    class_of_label = _class_of_label(prediction_plan.label_map)
    return LabelPlan(labels=project.config.all_labels, class_of_label=class_of_label), prediction_plan


def freeze_corrections(
    project_id: int, corrections: CorrectionRepository, snapshot: Path
) -> tuple[tuple[Correction, ...], tuple[Correction, ...]]:
    """Return the corrections of a training and those of its holdout, the same ones again after a kill.

    The first call writes the snapshot; each call reads every correction, and decodes its masks, once.

    Args:
        project_id: Label Studio's number.
        corrections: the stored corrections.
        snapshot: file that lists the annotation versions of this training.
    """
    from maskloop.learning.data.snapshot import SnapshotManifest

    if snapshot.exists():
        manifest = SnapshotManifest.read(snapshot)
        return corrections.at(manifest.version_ids("train")), corrections.at(manifest.version_ids("holdout"))
    train, holdout = (
        tuple(sorted(corrections.of(project_id, split=split), key=_by_version))
        for split in ("train", "holdout")
    )
    SnapshotManifest.of(train=train, holdout=holdout).write(snapshot)
    return train, holdout


def _by_version(correction: Correction) -> tuple[int, str, int]:
    return correction.version_id, correction.view, correction.image_index


def ensure_image(correction: Correction, *, image_cache: ImageCache, fetcher: ImageFetcher) -> None:
    """Fetch a correction's image where this machine does not have it.

    Raises:
        ImageError: it cannot be fetched, or its address has another image now.
    """
    if image_cache.path(correction.image_key).exists():
        return
    data = fetcher.fetch(correction.image_uri, task_id=correction.task_id)
    if image_cache.put(data) != correction.image_key:
        raise ImageError(
            f"task {correction.task_id}, image {correction.image_uri[:200]}",
            expected=f"the image that was annotated (SHA-256 {correction.image_key})",
            got="another image at the same address",
            remedy="annotate the task again, or copy the old image into MASKLOOP_HOME/images",
        )


def _class_of_label(label_map: LabelMap | None) -> dict[str, str]:
    """Return label -> class; empty where all labels become new classes."""
    classes: dict[str, str] = {}
    for name, targets in label_map.targets.items() if label_map is not None else ():
        for target in targets:
            classes.setdefault(target.label, name)
    return classes
