"""The training of a project: its corrections and labels in, a new version in the registry out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from maskloop.learning.registry import CHAMPION
from maskloop.log import log_action
from maskloop.store.jobs import Job, JobKind
from maskloop.types import PromotionMode
from maskloop_studio.dispatch import request
from maskloop_studio.formats.label_config import LabelMap
from maskloop_studio.projects.announcement import Announcer
from maskloop_studio.projects.correction_labels import add_correction_labels, match_correction_labels
from maskloop_studio.projects.freezing import note_learnt
from maskloop_studio.projects.frozen_corrections import TrainingImages, freeze_corrections
from maskloop_studio.projects.pool_choice import gather_pool
from maskloop_studio.projects.pool_images import PoolRequest

if TYPE_CHECKING:
    from maskloop.learning.data.training_set import LabelPlan
    from maskloop.learning.registry import ModelRegistry
    from maskloop.learning.training.job import TrainingProgress
    from maskloop.learning.training_job import TrainingJob, TrainingOutcome
    from maskloop.queue.lease import JobControl
    from maskloop.settings import Settings
    from maskloop.store.holdout import Judgement
    from maskloop.types import ModelVersion
    from maskloop_studio.projects.prediction_plan import PredictionPlan
    from maskloop_studio.services import Services

__all__ = [
    "StepLines",
    "champion_tag",
    "ensure_champion",
    "model_name",
    "plan_learning",
    "train_project",
]

logger = logging.getLogger(__name__)
STEP_LINE_S = 10.0  # between two lines about one training


def model_name(project_id: int) -> str:
    """Return the registered model's name of a project."""
    return f"maskloop-{project_id}"


def champion_tag(project_id: int, registry: ModelRegistry) -> str | None:
    """Return the tag of the version that serves, without a look at its files; None where none does."""
    name = model_name(project_id)
    number = registry.alias(name, CHAMPION)
    return None if number is None else f"{name}-v{number}"


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
    result = run_training(
        training_job,
        registry=services.registry,
        image_cache=services.image_cache,
        settings=services.settings,
        on_progress=report,
    )
    if result.decision.comparison is not None:
        services.store.holdout.add_judgement(_judgement(job, result))
    outcome = result.as_json()
    log_action(
        logger,
        "training_finished",
        training_id=job.job_id,
        promoted=outcome["promoted"],
        reason=outcome["reason"],
    )
    announcer.trained(str(outcome["version"]), str(outcome["release"]))
    if outcome["promoted"]:
        if services.settings.promotion is PromotionMode.TRIAL:
            services.store.trials.begin(
                job.project_id,
                new=str(outcome["version"]),
                old=str(outcome["base"]),
                after_version=services.store.corrections.last_version(job.project_id),
            )
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


def _judgement(job: Job, outcome: TrainingOutcome) -> Judgement:
    from maskloop.store.holdout import Judgement

    comparison = outcome.decision.comparison
    return Judgement(
        training_id=job.job_id,
        project_id=job.project_id,
        champion=outcome.base.tag,
        challenger=outcome.version.tag,
        images=outcome.challenger.images,
        required=outcome.decision.rule.required,
        confidence=None if comparison is None else comparison.confidence,
        promote=outcome.decision.promote,
    )


def _training_job(job: Job, control: JobControl, services: Services) -> TrainingJob:
    from maskloop.learning.training_job import TrainingJob

    store, project_id = services.store, job.project_id
    champion = ensure_champion(project_id, registry=services.registry, settings=services.settings)
    labels, prediction_plan = plan_learning(project_id, champion, services)
    learnt_through = store.trainings.trained_through(project_id, but=job.job_id)
    store.trainings.begin(job.job_id, project_id, through_version=store.corrections.last_version(project_id))
    work_dir = services.settings.runs_dir / job.name
    label_config = services.client.project(project_id).label_config
    frozen = freeze_corrections(
        project_id,
        work_dir / "snapshot.json",
        store=store,
        images=TrainingImages(services.image_cache, services.fetcher, services.settings, check=control.check),
        learnt_through=learnt_through,
    )
    dataset = note_learnt(
        frozen.train,
        frozen.holdout,
        label_config=label_config,
        store=store,
        settings=services.settings,
        reason=job.name,
    )
    train, holdout = match_correction_labels(
        frozen.train, frozen.holdout, label_config=label_config, settings=services.settings
    )
    labels = add_correction_labels(
        labels, train, holdout, model_labels=champion.labels, settings=services.settings
    )
    judgements = store.holdout.judgements(project_id)
    pool_request = PoolRequest(
        project_id=project_id,
        label_config=label_config,
        wanted=services.settings.train_pool,
        annotated={one.image_key for one in (*train, *holdout)},
        folder=work_dir / "pool",
        check=control.check,
    )
    pool = gather_pool(
        pool_request,
        services,
        champion=champion,
        classes=labels.without(services.settings.ignore_labels).classes,
        task=prediction_plan.task,
        train=train,
        but=job.job_id,
    )
    return TrainingJob(
        key=job.name,
        champion=champion,
        train=train,
        holdout=holdout,
        labels=labels,
        task=prediction_plan.task,
        thresholds=prediction_plan.thresholds,
        groups=frozen.groups,
        judged_before=sum(
            one.champion == champion.tag and one.training_id != job.job_id for one in judgements
        ),
        work_dir=work_dir,
        dataset=dataset,
        pool=pool.images,
        why_no_pool=pool.why_none,
        pool_verdict=pool.verdict,
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


def _class_of_label(label_map: LabelMap | None) -> dict[str, str]:
    """Return label -> class; empty where all labels become new classes."""
    classes: dict[str, str] = {}
    for name, targets in label_map.targets.items() if label_map is not None else ():
        for target in targets:
            classes.setdefault(target.label, name)
    return classes
