"""One turn of the loop: corrections -> training set -> fine-tuning -> evaluation -> gate -> registry."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Sequence

from maskloop.errors import TrainingError
from maskloop.learning.challenger_training import choose_recipe, train_challenger, train_part
from maskloop.learning.cross_validation import MIN_IMAGES, count_groups, cross_validate
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.holdout_choice import HoldoutRule
from maskloop.learning.data.training_set import TrainingSet, build_training_set, observed_kinds
from maskloop.learning.evaluation.anchoring import measure_anchoring
from maskloop.learning.evaluation.evaluate import evaluate_side_by_side, predict_examples
from maskloop.learning.evaluation.gate import GateRule, decide, leave_open
from maskloop.learning.evaluation.ground_truth import GroundTruth
from maskloop.learning.evaluation.prediction_metrics import Evaluation
from maskloop.learning.evaluation.showing import Showing, read_showing
from maskloop.learning.evaluation.showing_search import ShowingRule, find_showing
from maskloop.learning.registration import find_registered, learnt_versions, register_challenger
from maskloop.learning.registry import ModelRegistry
from maskloop.learning.registry.promotion import release
from maskloop.learning.training.input_size import cost_ratio
from maskloop.learning.training.job import TrainingControl, TrainingProgress
from maskloop.learning.training.run_log import RunLog
from maskloop.learning.training_job import (
    Challenger,
    GateReport,
    JudgedBy,
    TrainingJob,
    TrainingOutcome,
)
from maskloop.learning.unlabelled_pool import choose_pool
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.segmentation.preprocess import Preprocessing
from maskloop.settings import Settings
from maskloop.store.holdout import is_blind
from maskloop.store.images import ImageCache
from maskloop.tracing import span
from maskloop.types import Prediction, SegmentationTask

__all__ = ["run_training", "told_size"]

logger = logging.getLogger(__name__)

_Unseen = tuple[list[Prediction], list[GroundTruth]]  # of images that the model has not learnt from


def run_training(
    job: TrainingJob,
    *,
    registry: ModelRegistry,
    image_cache: ImageCache,
    settings: Settings,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainingOutcome:
    """Fine-tune the champion, compare both models on the holdout, register the new one, promote if better.

    Restarted after a kill with the same job, it continues from the last saved state and does not register a
    second version.

    Args:
        job: champion, corrections, classes, task and folder.
        registry: holds the champion, gets the new version.
        image_cache: holds the corrections' images.
        settings: which corrections are used, hyperparameters, gate, promotion.
        on_progress: called every few training steps.

    Raises:
        TrainingError: no correction to learn from, or the training diverged.
    """
    started = time.monotonic()
    training_set = _build_training_set(job, image_cache, settings)
    job = _with_observed_kinds(job, training_set)
    if training_set.boxes is not None:
        log_action(logger, "boxes_ignored", training=job.key, boxes=training_set.boxes)
    if training_set.several is not None:
        log_action(logger, "annotators_compared", training=job.key, annotators=training_set.several)
    champion = load_checkpoint(job.champion.path, device=settings.device)
    pool = choose_pool(
        job, training_set, champion, registry=registry, settings=settings, on_progress=on_progress
    )
    training_set = dataclasses.replace(training_set, pool=pool.examples)
    job = dataclasses.replace(job, why_no_pool=pool.why_none, pool_verdict=pool.verdict)
    with RunLog(registry, job.champion.name, job.key) as run_log:
        challenger = _find_challenger(job, training_set, champion, registry, settings)
        if challenger is None:
            control = TrainingControl(on_progress=_call_both(run_log.record, on_progress))
            with span("fine-tune", images=len(training_set.examples)):
                challenger = train_challenger(job, training_set, champion, settings, control)
        with span("judge", images=len(training_set.holdout_examples)):
            report = _evaluate(
                job, training_set, champion, challenger, settings=settings, on_progress=on_progress
            )
            report = told_size(
                report, before=champion.preprocessing, after=challenger.checkpoint.preprocessing
            )
        version = challenger.version or register_challenger(
            job, challenger, training_set, report, registry=registry, settings=settings, run_id=run_log.run_id
        )
    decision = report.decision
    with span("release", version=version.tag, better=decision.promote, reason=decision.reason):
        result = release(
            version,
            better=decision.promote,
            ask=decision.ask,
            reason=decision.reason,
            mode=settings.promotion,
            registry=registry,
        )
    shutil.rmtree(job.work_dir, ignore_errors=True)  # not earlier: a killed training continues from it
    log_action(
        logger,
        "challenger_evaluated",
        model_version=version.tag,
        release=result,
        reason=decision.reason,
        showing=report.showing.in_words(),
    )
    return TrainingOutcome(
        champion=report.champion.metrics,
        challenger=report.challenger.metrics,
        decision=decision,
        showing=report.showing,
        release=result,
        version=version,
        base=job.champion,
        train_images=len(training_set.train),
        pool=training_set.pool_use,
        why_no_pool=job.why_no_pool,
        pool_verdict=job.pool_verdict,
        judged_by=report.judged_by,
        images_needed=report.images_needed,
        anchoring=report.anchoring,
        holdout_gaps=training_set.holdout_gaps,
        boxes=training_set.boxes,
        seconds=time.monotonic() - started,
    )


def _build_training_set(job: TrainingJob, image_cache: ImageCache, settings: Settings) -> TrainingSet:
    training_set = build_training_set(
        job.train,
        job.holdout,
        plan=job.labels,
        learnt_versions=learnt_versions(job.champion),
        image_cache=image_cache,
        settings=settings,
        groups=job.groups,
    )
    if not any(example.judges for example in training_set.examples):
        raise TrainingError(
            f"training of {job.champion.name}",
            expected="at least one correction outside the holdout that is not of boxes only",
            got=f"{len(training_set.examples)} of boxes only (and {len(training_set.holdout_examples)} "
            "others in the holdout)",
            remedy="correct more tasks, draw masks instead of boxes, or lower MASKLOOP_HOLDOUT_FRACTION",
        )
    return training_set


def _with_observed_kinds(job: TrainingJob, training_set: TrainingSet) -> TrainingJob:
    """Return the job with what the annotations show of things and stuff; it matters for panoptic models."""
    if job.task is not SegmentationTask.PANOPTIC:
        return job
    kinds = dataclasses.replace(job.thresholds.kinds, observed=observed_kinds(training_set.examples))
    return dataclasses.replace(job, thresholds=dataclasses.replace(job.thresholds, kinds=kinds))


def _find_challenger(
    job: TrainingJob,
    training_set: TrainingSet,
    champion: Checkpoint,
    registry: ModelRegistry,
    settings: Settings,
) -> Challenger | None:
    """Return the model that this training registered before it was killed, or None."""
    version = find_registered(job.champion.name, job.key, registry)
    if version is None:
        return None
    return Challenger(
        checkpoint=load_checkpoint(version.path, device=settings.device),
        recipe=choose_recipe(champion, training_set, settings),
        version=version,
    )


def _evaluate(
    job: TrainingJob,
    training_set: TrainingSet,
    champion: Checkpoint,
    challenger: Challenger,
    *,
    settings: Settings,
    on_progress: Callable[[TrainingProgress], None] | None,
) -> GateReport:
    """Judge both models on the holdout, or by cross-validation where it is too small, and decide."""
    rule = GateRule.from_settings(
        settings,
        judged_before=job.judged_before,
        dearer=cost_ratio(champion.preprocessing, challenger.checkpoint.preprocessing),
    )
    holdout, labels = training_set.holdout_examples, challenger.checkpoint.labels
    # What a version that was registered before a kill was saved with is not looked for again.
    saved = None if challenger.version is None else read_showing(challenger.version.path)
    unseen: list[_Unseen] = []

    def look(model: Checkpoint, examples: Sequence[TrainingExample]) -> None:
        if saved is None:
            unseen.append(
                predict_examples(model, examples, labels=labels, task=job.task, thresholds=job.thresholds)
            )

    def showing() -> Showing:
        return saved or _find_showing(unseen, labels, settings)

    # Validation images are not learnt from either: they only say when to stop.
    look(challenger.checkpoint, (*holdout, *training_set.validation))
    pool = (*training_set.examples, *training_set.validation, *holdout)
    holdout_rule = HoldoutRule.from_settings(settings)
    needed = holdout_rule.missing(count_groups(pool), count_groups(holdout))

    def evaluate(model: Checkpoint, examples: Sequence[TrainingExample]) -> tuple[Evaluation, ...]:
        return evaluate_side_by_side(
            [champion, model],
            examples,
            labels=training_set.plan.classes,
            task=job.task,
            thresholds=job.thresholds,
        )

    if not needed:
        before, after = evaluate(challenger.checkpoint, holdout)
        blind = [is_blind(one.image_key, settings.blind_below) for one in training_set.holdout]
        return GateReport(
            champion=before,
            challenger=after,
            showing=showing(),
            decision=decide(before, after, rule),
            anchoring=measure_anchoring(before, blind, seed=settings.seed),
        )
    place = (
        f"{needed} more annotated images are needed for a holdout of {holdout_rule.least} "
        f"({count_groups(holdout)} now)"
    )
    judged = [*holdout, *(one for one in training_set.examples if one.fresh and one.judges)]
    if settings.early_judging == "ask" or count_groups(judged) < MIN_IMAGES:
        before, after = evaluate(challenger.checkpoint, holdout)
        return GateReport(
            champion=before,
            challenger=after,
            showing=showing(),
            decision=leave_open(f"not judged yet: {place}; a person decides", rule),
            judged_by=JudgedBy.NOBODY,
            images_needed=needed,
        )

    def train(examples: Sequence[TrainingExample], number: int) -> Checkpoint:
        part = dataclasses.replace(training_set, examples=tuple(examples), validation=())
        return train_part(
            dataclasses.replace(job, work_dir=job.work_dir / f"part-{number}"),
            part,
            champion,
            settings=settings,
            on_progress=on_progress,
        )

    def evaluate_part(model: Checkpoint, examples: Sequence[TrainingExample]) -> tuple[Evaluation, ...]:
        if model is not challenger.checkpoint:
            look(model, examples)
        return evaluate(model, examples)

    before, after = cross_validate(
        training_set.examples, holdout, challenger=challenger.checkpoint, train=train, evaluate=evaluate_part
    )
    decision = decide(before, after, rule)
    reason = f"cross-validated on {count_groups(judged)} images, {place}; {decision.reason}"
    return GateReport(
        champion=before,
        challenger=after,
        showing=showing(),
        decision=dataclasses.replace(decision, reason=reason),
        judged_by=JudgedBy.CROSS_VALIDATION,
        images_needed=needed,
    )


def told_size(report: GateReport, *, before: Preprocessing, after: Preprocessing) -> GateReport:
    """Return the report whose reason says where the challenger sees its images at another size."""
    if after.shortest_edge == before.shortest_edge:
        return report
    size = (
        f"it sees images with {after.shortest_edge} pixels on the shorter side, {before.shortest_edge} before"
    )
    decision = dataclasses.replace(report.decision, reason=f"{report.decision.reason}; {size}")
    return dataclasses.replace(report, decision=decision)


def _find_showing(unseen: Sequence[_Unseen], labels: Sequence[str], settings: Settings) -> Showing:
    """Return which segments annotators are shown.

    Args:
        unseen: predictions and truth: of the challenger, and of the models of the cross-validation where
            there is one, since a handful of holdout images says little.
        labels: of the challenger.
        settings: when showing is worth it.
    """
    found = [prediction for predictions, _ in unseen for prediction in predictions]
    truths = [truth for _, true in unseen for truth in true]
    return find_showing(found, truths, labels=labels, rule=ShowingRule.from_settings(settings))


def _call_both(
    first: Callable[[TrainingProgress], None], second: Callable[[TrainingProgress], None] | None
) -> Callable[[TrainingProgress], None]:
    def call(progress: TrainingProgress) -> None:
        first(progress)
        if second is not None:
            second(progress)

    return call
