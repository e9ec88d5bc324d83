"""One turn of learning: corrections in, a judged and perhaps promoted model version out."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from maskloop.errors import TrainingError
from maskloop.learning.choice import choose_corrections
from maskloop.learning.dataset import TrainingExample
from maskloop.learning.evaluation import evaluate_checkpoint
from maskloop.learning.finetune import finetune
from maskloop.learning.promotion import PromotionDecision, decide
from maskloop.learning.registry import ModelRegistry
from maskloop.learning.training import FinetuneRecipe, TrainingProgress
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.postprocess import Thresholds
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop.types import Correction, HoldoutMetrics, ModelVersion, Segment, SegmentationTask

__all__ = ["LabelPlan", "Verdict", "register_base", "train_and_judge"]

logger = logging.getLogger(__name__)
TRAINING_KEY = "training"  # of a version's metadata


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Which classes the next model has, and which of the annotators' labels is which class."""

    labels: tuple[str, ...]  # what annotators can choose
    class_of_label: Mapping[str, str]  # label -> class of the champion; a label not in it is a new class

    def class_for(self, label: str) -> str:
        """Return the model's class for an annotator's label."""
        return self.class_of_label.get(label, label)

    @property
    def classes(self) -> tuple[str, ...]:
        """The next model's classes."""
        return tuple(dict.fromkeys(self.class_for(label) for label in self.labels))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a training came to."""

    champion: HoldoutMetrics  # as it was before, on the holdout
    challenger: HoldoutMetrics  # the new model, on the same holdout
    decision: PromotionDecision
    version: ModelVersion  # the new model
    base: ModelVersion  # what it was trained from
    train_images: int
    seconds: float

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "promoted": self.decision.promote,
            "reason": self.decision.reason,
            "base": self.base.tag,
            "version": self.version.tag,
            "champion_metrics": dataclasses.asdict(self.champion),
            "challenger_metrics": dataclasses.asdict(self.challenger),
            "train_images": self.train_images,
            "holdout_images": self.challenger.images,
            "seconds": round(self.seconds, 2),
        }


def register_base(name: str, *, settings: Settings, registry: ModelRegistry) -> ModelVersion:
    """Make the model of the settings version 1 and champion of a registered model.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    checkpoint = load_checkpoint(settings.model, device="cpu", training=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_checkpoint(checkpoint, Path(scratch) / "checkpoint")
        version = registry.register(
            name,
            folder,
            labels=checkpoint.labels,
            metrics=None,
            parent=None,
            metadata={"source": settings.model},
        )
    registry.promote(name, version.number)
    log_action(logger, "base registered", model_version=version.tag, source=settings.model)
    return version


def train_and_judge(
    champion: ModelVersion,
    *,
    train: Iterable[Correction],
    holdout: Iterable[Correction],
    plan: LabelPlan,
    image_cache: ImageCache,
    registry: ModelRegistry,
    settings: Settings,
    task: SegmentationTask,
    thresholds: Thresholds,
    key: str,
    work_dir: Path,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> Verdict:
    """Fine-tune from the champion, judge both on the holdout, register the new one, promote it if better.

    Args:
        champion: what serves now.
        train: corrections to learn from; of several for one task one counts, by the rule of the settings.
        holdout: corrections to judge on; never learnt from.
        plan: the next model's classes.
        image_cache: holds the corrections' images.
        registry: takes the new version.
        settings: batch, steps, rate, seed, margin.
        task: what the project asks its model for.
        thresholds: as the model is served with.
        key: names this training; killed after it was registered, it is not registered a second time.
        work_dir: where a killed training finds its last checkpoint again.
        on_progress: told now and then how far it is.

    Raises:
        TrainingError: there is nothing to learn from, or training diverged.
    """
    started = time.monotonic()
    examples = _examples(train, plan, image_cache, settings)
    judged = _examples(holdout, plan, image_cache, settings)
    if not examples:
        raise TrainingError(
            f"training of {champion.name}",
            expected="at least one correction outside the holdout",
            got=f"none (and {len(judged)} in the holdout)",
            remedy="correct more tasks, draw masks instead of boxes, or lower MASKLOOP_HOLDOUT_FRACTION",
        )
    base = load_checkpoint(champion.path, device=settings.device)
    before = _judge(base, judged, plan, task, thresholds)
    version = _registered(champion.name, key, registry)
    if version is None or version.metrics is None:
        loss_curve: list[tuple[int, float]] = []

        def follow(progress: TrainingProgress) -> None:
            loss_curve.append((progress.step, progress.loss))
            if on_progress is not None:
                on_progress(progress)

        challenger = finetune(
            base,
            examples,
            labels=plan.classes,
            task=task,
            recipe=recipe_from(settings),
            output_dir=work_dir,
            on_progress=follow,
        )
        after = _judge(challenger, judged, plan, task, thresholds)
        decision = decide(before, after, margin=settings.promotion_margin)
        version = registry.register(
            champion.name,
            save_checkpoint(challenger, work_dir / "checkpoint"),
            labels=challenger.labels,
            metrics=after,
            parent=champion.number,
            loss_curve=loss_curve,
            metadata={
                TRAINING_KEY: key,
                "decision": decision.reason,
                "train_images": str(len(examples)),
                "seed": str(settings.seed),
            },
        )
    else:
        after = version.metrics
        decision = decide(before, after, margin=settings.promotion_margin)
    if decision.promote:
        registry.promote(champion.name, version.number)
    shutil.rmtree(work_dir, ignore_errors=True)  # only now: until here a kill resumes from it
    log_action(logger, "judged", model_version=version.tag, promoted=decision.promote, reason=decision.reason)
    return Verdict(
        champion=before,
        challenger=after,
        decision=decision,
        version=version,
        base=champion,
        train_images=len(examples),
        seconds=time.monotonic() - started,
    )


def _registered(name: str, key: str, registry: ModelRegistry) -> ModelVersion | None:
    """Return the version that a training registered before it was killed, or None."""
    newest_first = reversed(registry.versions(name))
    return next(
        (made for made in newest_first if registry.metadata(name, made.number).get(TRAINING_KEY) == key), None
    )


def recipe_from(settings: Settings) -> FinetuneRecipe:
    """Return the recipe that the settings describe."""
    return FinetuneRecipe(
        steps=settings.train_steps,
        batch=settings.train_batch,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )


def _judge(
    checkpoint: Checkpoint,
    examples: list[TrainingExample],
    plan: LabelPlan,
    task: SegmentationTask,
    thresholds: Thresholds,
) -> HoldoutMetrics:
    return evaluate_checkpoint(checkpoint, examples, labels=plan.classes, task=task, thresholds=thresholds)


def _examples(
    corrections: Iterable[Correction], plan: LabelPlan, image_cache: ImageCache, settings: Settings
) -> list[TrainingExample]:
    return [
        TrainingExample(
            image=image_cache.path(correction.image_key),
            segments=tuple(_as_class(segment, plan) for segment in correction.segments),
            key=f"{correction.project_id}/{correction.task_id}/{correction.annotation_id}",
        )
        for correction in choose_corrections(corrections, settings.annotation_rule)
        # A box taken for a mask would teach, and judge, that objects are boxes.
        if settings.learn_from_boxes or not correction.approximate
    ]


def _as_class(segment: Segment, plan: LabelPlan) -> Segment:
    return dataclasses.replace(segment, label=plan.class_for(segment.label))
