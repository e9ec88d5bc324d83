"""One turn of learning: corrections in, a judged and perhaps promoted model version out."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from maskloop.errors import TrainingError
from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.learning.data.training_set import LabelPlan, Material, gather_material
from maskloop.learning.evaluation.evaluate import judge_checkpoints
from maskloop.learning.evaluation.gate import GateRule, PromotionDecision, decide
from maskloop.learning.evaluation.metrics import Judgement
from maskloop.learning.registry import ModelRegistry
from maskloop.learning.registry.model_card import (
    SNAPSHOT_FILE,
    ModelCard,
    ModelOrigin,
    code_version,
    learning_settings,
    origin_of_source,
    origin_of_version,
    write_card,
)
from maskloop.learning.registry.promotion import Release, release
from maskloop.learning.training.distributed import finetune_in_processes
from maskloop.learning.training.loop import TrainingProgress
from maskloop.learning.training.recipe import FinetuneRecipe, choose_recipe
from maskloop.learning.training.run_log import TrainingJournal
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.hub import find_folder
from maskloop.segmentation.postprocess import Thresholds
from maskloop.settings import Settings
from maskloop.store.images import ImageCache
from maskloop.types import Correction, HoldoutMetrics, ModelVersion, SegmentationTask

__all__ = ["Verdict", "register_base", "train_and_judge"]

logger = logging.getLogger(__name__)
TRAINING_KEY = "training"  # of a version's metadata
JUDGEMENT_FILE = "judgement.json"  # in a version's folder: what the gate saw, image by image


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a training came to."""

    champion: HoldoutMetrics  # as it was before, on the holdout
    challenger: HoldoutMetrics  # the new model, on the same holdout
    decision: PromotionDecision
    release: Release  # what became of the new model
    version: ModelVersion  # the new model
    base: ModelVersion  # what it was trained from
    train_images: int
    lacking: str | None  # what the holdout lacks to judge every class, in words
    seconds: float

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "promoted": self.release is Release.PROMOTED,
            "release": self.release.value,
            "reason": self.decision.reason,
            "decision": self.decision.as_json(),
            "base": self.base.tag,
            "version": self.version.tag,
            "champion_metrics": dataclasses.asdict(self.champion),
            "challenger_metrics": dataclasses.asdict(self.challenger),
            "train_images": self.train_images,
            "holdout_images": self.challenger.images,
            "holdout_lacks": self.lacking,
            "seconds": round(self.seconds, 2),
        }


def register_base(name: str, *, settings: Settings, registry: ModelRegistry) -> ModelVersion:
    """Make the model of the settings version 1 and champion of a registered model.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    checkpoint = load_checkpoint(settings.model, device="cpu", training=True)
    origin = origin_of_source(settings.model, find_folder(settings.model))
    card = ModelCard(name=name, origin=origin, labels=checkpoint.labels, code=code_version())
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_checkpoint(checkpoint, Path(scratch) / "checkpoint")
        write_card(folder, card)
        version = registry.register(
            name,
            folder,
            labels=checkpoint.labels,
            metrics=None,
            parent=None,
            metadata=card.as_metadata() | {"source": settings.model},
        )
    registry.promote(name, version.number, reason="the model of the settings")
    log_action(logger, "base_model_registered", model_version=version.tag, source=settings.model)
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
    material = gather_material(
        train, holdout, plan=plan, seen=_seen_versions(champion), image_cache=image_cache, settings=settings
    )
    if not material.examples:
        raise TrainingError(
            f"training of {champion.name}",
            expected="at least one correction outside the holdout",
            got=f"none (and {len(material.judged)} in the holdout)",
            remedy="correct more tasks, draw masks instead of boxes, or lower MASKLOOP_HOLDOUT_FRACTION",
        )
    base = load_checkpoint(champion.path, device=settings.device)
    recipe = _recipe_for(base, material, settings)
    with TrainingJournal(registry, champion.name, key) as journal:

        def follow(progress: TrainingProgress) -> None:
            journal.note(progress)
            if on_progress is not None:
                on_progress(progress)

        version = _registered(champion.name, key, registry)
        challenger = (
            load_checkpoint(version.path, device=settings.device)
            if version is not None
            else finetune_in_processes(
                base,
                material.examples,
                processes=settings.train_processes,
                validation=material.validation,
                labels=material.plan.classes,
                task=task,
                recipe=recipe,
                output_dir=work_dir,
                on_progress=follow,
            )
        )
        before, after = judge_checkpoints(
            [base, challenger],
            material.judged,
            labels=material.plan.classes,
            task=task,
            thresholds=thresholds,
        )
        decision = decide(before, after, GateRule.from_settings(settings))
        if version is None:
            folder = save_checkpoint(challenger, work_dir / "checkpoint")
            _write_judgement(folder / JUDGEMENT_FILE, before, after, decision)
            card = _describe(champion, challenger, material, after, decision, folder, task, settings)
            version = registry.register(
                champion.name,
                folder,
                labels=challenger.labels,
                metrics=after.metrics,
                parent=champion.number,
                run_id=journal.run_id,
                metadata=card.as_metadata()
                | {TRAINING_KEY: key, **_told_of_training(decision, recipe, settings)},
            )
    became = release(
        version, better=decision.promote, reason=decision.reason, mode=settings.promotion, registry=registry
    )
    shutil.rmtree(work_dir, ignore_errors=True)  # only now: until here a kill resumes from it
    log_action(logger, "challenger_judged", model_version=version.tag, became=became, reason=decision.reason)
    return Verdict(
        champion=before.metrics,
        challenger=after.metrics,
        decision=decision,
        release=became,
        version=version,
        base=champion,
        train_images=len(material.train),
        lacking=material.lacking,
        seconds=time.monotonic() - started,
    )


def _told_of_training(
    decision: PromotionDecision, recipe: FinetuneRecipe, settings: Settings
) -> dict[str, str]:
    return {
        "gate": json.dumps(decision.as_json()),
        "settings": json.dumps(learning_settings(settings)),
        "recipe": json.dumps(dataclasses.asdict(recipe), default=str),
    }


def _describe(
    champion: ModelVersion,
    challenger: Checkpoint,
    material: Material,
    judgement: Judgement,
    decision: PromotionDecision,
    folder: Path,
    task: SegmentationTask,
    settings: Settings,
) -> ModelCard:
    """Put the snapshot and the card beside a new version's weights; return the card."""
    manifest = SnapshotManifest.of(train=material.train, holdout=material.holdout)
    manifest.write(folder / SNAPSHOT_FILE)
    card = ModelCard(
        name=champion.name,
        origin=_origin(champion, settings),
        labels=challenger.labels,
        parent=champion.tag,
        task=str(task),
        metrics=judgement.metrics,
        decision=decision.reason,
        train_images=len(material.train),
        snapshot=manifest.digest,
        seed=settings.seed,
        code=code_version(),
    )
    write_card(folder, card)
    return card


def _origin(champion: ModelVersion, settings: Settings) -> ModelOrigin:
    """Return what the champion's line began with: without a card, the model of the settings."""
    return origin_of_version(champion.path, fallback=origin_of_source(settings.model, None))


def _registered(name: str, key: str, registry: ModelRegistry) -> ModelVersion | None:
    """Return the version that a training registered before it was killed, or None."""
    newest_first = reversed(registry.versions(name))
    return next(
        (made for made in newest_first if registry.metadata(name, made.number).get(TRAINING_KEY) == key), None
    )


def _recipe_for(base: Checkpoint, material: Material, settings: Settings) -> FinetuneRecipe:
    return choose_recipe(
        len(material.examples),
        sum(len(example.segments) for example in material.examples),
        len(material.plan.classes),
        settings,
        new_classes=len(set(material.plan.classes) - set(base.labels)),
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
    )


def _write_judgement(
    target: Path, champion: Judgement, challenger: Judgement, decision: PromotionDecision
) -> None:
    """Keep beside a version what the gate saw of it, image by image."""
    told = {
        "decision": decision.as_json(),
        "champion": {"metrics": dataclasses.asdict(champion.metrics), "images": champion.per_image()},
        "challenger": {"metrics": dataclasses.asdict(challenger.metrics), "images": challenger.per_image()},
    }
    target.write_text(json.dumps(told, indent=1), encoding="utf-8")


def _seen_versions(champion: ModelVersion) -> frozenset[int]:
    """Return the rows that the champion has learnt from; none where its folder does not say."""
    snapshot = champion.path / SNAPSHOT_FILE
    return frozenset(SnapshotManifest.read(snapshot).version_ids("train") if snapshot.exists() else ())
