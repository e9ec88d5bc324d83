"""A training set and images that nobody has annotated: what the champion is sure of there is learnt too.

With MASKLOOP_TRAIN_POOL_CHECK only where the project's own cross-validation says that it helps.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskloop.errors import DamagedVersionError
from maskloop.learning.challenger_training import train_part
from maskloop.learning.cross_validation import count_groups, group_of
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.data.pseudo_labels import describe_pool, pseudo_examples, why_no_pool
from maskloop.learning.data.training_set import TrainingSet, example_key
from maskloop.learning.evaluation.evaluate import evaluate_side_by_side
from maskloop.learning.evaluation.prediction_metrics import Evaluation
from maskloop.learning.evaluation.showing import read_showing
from maskloop.learning.pool_check import PoolFold, fold_scores, make_folds
from maskloop.learning.pool_verdict import LEAST_FOLDS, PoolSubject, PoolVerdict, judge_folds
from maskloop.learning.registration import POOL_CHECK_KEY, find_registered
from maskloop.learning.registry import ModelRegistry
from maskloop.learning.registry.model_card import ModelOrigin, origin_of_version
from maskloop.learning.training.job import TrainingProgress
from maskloop.learning.training_job import TrainingJob
from maskloop.learning.unseen import learnt_images
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint
from maskloop.settings import Settings
from maskloop.tracing import span
from maskloop.types import ModelVersion, SegmentationTask

__all__ = ["PoolChoice", "base_name", "choose_pool", "pool_obstacle"]

logger = logging.getLogger(__name__)
LEAST_IMAGES = 8  # annotated, that judge: two or three a fold
LEAST_POOL = 8  # unlabelled, with pseudo-labels
EACH_FOLD = "each fold's own model"


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolChoice:
    """What a training takes from images that nobody has annotated, and why."""

    examples: tuple[TrainingExample, ...] = ()
    why_none: str | None = None  # None also where none were asked for
    verdict: PoolVerdict | None = None  # of the cross-validation; None: there was none


@dataclass(frozen=True, kw_only=True, eq=False)
class _Start:
    """Where all trainings of a cross-validation start from."""

    version: ModelVersion
    judging: frozenset[str]  # keys of the examples that it has not learnt from, as far as they judge
    images: int  # of these, where copies count once


def base_name(champion: ModelVersion) -> str:
    """Return the name of the model that the project's first version was made from, as its card has it."""
    return origin_of_version(champion.path, fallback=ModelOrigin(base_model="", licence="")).base_model


def pool_obstacle(champion: ModelVersion, *, task: SegmentationTask, classes: Collection[str]) -> str | None:
    """Return why a version cannot label images for its successor; None where it can.

    Args:
        champion: the version.
        task: of the project.
        classes: of its successor.
    """
    return why_no_pool(task, known=champion.labels, classes=classes, floors=_floors(champion))


def choose_pool(
    job: TrainingJob,
    training_set: TrainingSet,
    champion: Checkpoint,
    *,
    registry: ModelRegistry,
    settings: Settings,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> PoolChoice:
    """Return what the champion is sure of on images that nobody has annotated, where that is to be learnt.

    Args:
        job: the images, and what an earlier training found out about them.
        training_set: the annotated images.
        champion: labels the images.
        registry: has the version that a cross-validation starts from.
        settings: whether there is a cross-validation.
        on_progress: gets the steps of its trainings.
    """
    choice = _choose(job, training_set, champion, registry, settings, on_progress=on_progress)
    use = describe_pool(choice.examples)
    if use is not None:
        log_action(
            logger,
            "pool_used",
            training=job.key,
            teacher=job.champion.tag,
            candidates=len(job.pool),
            **dataclasses.asdict(use),
        )
    elif choice.why_none is not None:
        log_action(logger, "pool_not_used", training=job.key, images=len(job.pool), reason=choice.why_none)
    return choice


def _choose(
    job: TrainingJob,
    training_set: TrainingSet,
    champion: Checkpoint,
    registry: ModelRegistry,
    settings: Settings,
    *,
    on_progress: Callable[[TrainingProgress], None] | None,
) -> PoolChoice:
    verdict = job.pool_verdict or _registered_verdict(job, registry)
    if verdict is not None and not verdict.use:
        return PoolChoice(why_none=verdict.in_words(), verdict=verdict)
    if not job.pool:
        return PoolChoice(why_none=job.why_no_pool, verdict=verdict)
    classes = training_set.plan.classes
    why_not = pool_obstacle(job.champion, task=job.task, classes=classes)
    if why_not is not None:
        return PoolChoice(why_none=why_not, verdict=verdict)
    start = None
    if settings.train_pool_check and verdict is None:
        start = _find_start(job, training_set, registry)
    if isinstance(start, str):
        return PoolChoice(why_none=_unchecked(start))
    with span("pseudo-label", images=len(job.pool)):
        pool = _label(job, champion, classes, kept_in=job.work_dir / "pseudo-labels.json")
    if not pool:
        return PoolChoice(why_none="the served version finds nothing on them", verdict=verdict)
    if start is None:
        return PoolChoice(examples=pool, verdict=verdict)
    if len(pool) < LEAST_POOL:
        few = f"the served version finds something on {len(pool)} unlabelled images, not on {LEAST_POOL}"
        return PoolChoice(why_none=_unchecked(few))
    with span("check-pool", images=start.images):
        found = _check(
            job, training_set, start, pool, champion=champion, settings=settings, on_progress=on_progress
        )
    if isinstance(found, str):
        return PoolChoice(why_none=_unchecked(found))
    log_action(logger, "pool_checked", training=job.key, use=found.use, reason=found.in_words())
    if not found.use:
        return PoolChoice(why_none=found.in_words(), verdict=found)
    return PoolChoice(examples=pool, verdict=found)


def _registered_verdict(job: TrainingJob, registry: ModelRegistry) -> PoolVerdict | None:
    """Return the verdict that this training stored with its version before it was killed, or None."""
    version = find_registered(job.champion.name, job.key, registry) if job.pool else None
    if version is None:
        return None
    kept = registry.metadata(version.name, version.number).get(POOL_CHECK_KEY)
    return None if kept is None else PoolVerdict.from_json(json.loads(kept))


def _unchecked(reason: str) -> str:
    return f"not cross-validated (MASKLOOP_TRAIN_POOL_CHECK), and so not used: {reason}"


def _find_start(job: TrainingJob, training_set: TrainingSet, registry: ModelRegistry) -> _Start | str:
    """Return the version to start from and the images that judge, new to it; or why there is none.

    The champion, as in the training itself, where at least half of the annotated images are new to it: else
    the newest version that has learnt from none, which leaves more images to judge.
    """
    every = [one for one in training_set.examples if one.judges]
    if count_groups(every) < LEAST_IMAGES:
        return f"{count_groups(every)} annotated images outside the holdout, {LEAST_IMAGES} are needed"
    versions = registry.versions(job.champion.name)
    learnt = learnt_images(versions)
    known = learnt[job.champion.number]
    seen = {example_key(one) for one in training_set.train if known.has(one.task_id, one.image_key)}
    seen_groups = {group_of(one) for one in training_set.examples if one.key in seen}
    fresh = [one for one in every if group_of(one) not in seen_groups]
    own = _Start(
        version=job.champion, judging=frozenset(one.key for one in fresh), images=count_groups(fresh)
    )
    if own.images >= max(LEAST_IMAGES, count_groups(every) / 2):
        return own
    untaught = [one for one in versions if not learnt[one.number].tasks]
    if untaught:
        try:
            return _Start(
                version=registry.get(job.champion.name, untaught[-1].number),
                judging=frozenset(one.key for one in every),
                images=count_groups(every),
            )
        except DamagedVersionError as exc:
            log_action(logger, "pool_start_damaged", level=logging.WARNING, training=job.key, error=exc)
    if own.images >= LEAST_IMAGES:
        return own
    return (
        f"the served version has learnt from all but {own.images} of the annotated images, {LEAST_IMAGES} "
        "new ones are needed, and the first version, which has learnt from none, was removed or is damaged"
    )


def _check(
    job: TrainingJob,
    training_set: TrainingSet,
    start: _Start,
    pool: Sequence[TrainingExample],
    *,
    champion: Checkpoint,
    settings: Settings,
    on_progress: Callable[[TrainingProgress], None] | None,
) -> PoolVerdict | str:
    """Return what the cross-validation says; or why it says nothing.

    Pseudo-labels tell what their teacher has learnt, so it must not have learnt from the images that judge.
    Where they are new to the champion, it labels as it will. Else each fold's model without the pool does,
    which stands in for a champion that has not learnt from that fold.
    """
    folds = make_folds(training_set.examples, start.judging, job.work_dir / "pool-check")
    if len(folds) < LEAST_FOLDS:
        return f"objects on the images of {len(folds)} of the folds, {LEAST_FOLDS} are needed"
    classes = training_set.plan.classes
    champion_starts = start.version.number == job.champion.number
    base = champion if champion_starts else load_checkpoint(start.version.path, device=settings.device)

    def train(fold: PoolFold, guessed: Sequence[TrainingExample], folder: Path) -> Checkpoint:
        validation = tuple(one for one in training_set.validation if not fold.leaves_out(one))
        part = dataclasses.replace(
            training_set, examples=fold.rest, validation=validation, pool=tuple(guessed)
        )
        return train_part(
            dataclasses.replace(job, work_dir=folder), part, base, settings=settings, on_progress=on_progress
        )

    def label(fold: PoolFold, model: Checkpoint) -> Sequence[TrainingExample]:
        if champion_starts:
            return pool
        return _label(job, model, classes, kept_in=fold.folder / "pseudo-labels.json")

    def evaluate(models: Sequence[Checkpoint], examples: Sequence[TrainingExample]) -> Sequence[Evaluation]:
        return evaluate_side_by_side(
            models, examples, labels=classes, task=job.task, thresholds=job.thresholds
        )

    scores = fold_scores(
        folds,
        train=train,
        label=label,
        evaluate=evaluate,
        near_distance=settings.near_distance,
    )
    use, gain, needed = judge_folds(scores)
    return PoolVerdict(
        use=use,
        gain=gain,
        needed=needed,
        folds=scores,
        start=start.version.tag,
        teacher=job.champion.tag if champion_starts else EACH_FOLD,
        subject=PoolSubject.of(
            job.train,
            base=base_name(job.champion),
            classes=classes,
            task=job.task,
            wanted=settings.train_pool,
        ),
        training=job.key,
    )


def _label(
    job: TrainingJob, teacher: Checkpoint, classes: Sequence[str], *, kept_in: Path
) -> tuple[TrainingExample, ...]:
    return pseudo_examples(
        teacher,
        job.pool,
        labels=classes,
        thresholds=job.thresholds,
        floors=_floors(job.champion),
        kept_in=kept_in,
    )


def _floors(version: ModelVersion) -> Mapping[str, float]:
    shown = read_showing(version.path)
    return {} if shown is None else shown.floors
