"""Checkpoints as registered versions: their files, their model card and their metadata."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
from pathlib import Path

from maskloop.learning.data.snapshot import SnapshotManifest
from maskloop.learning.data.training_set import TrainingSet
from maskloop.learning.evaluation.showing import write_showing
from maskloop.learning.registry import ModelRegistry
from maskloop.learning.registry.model_card import (
    SNAPSHOT_FILE,
    ModelCard,
    code_version,
    learning_settings,
    origin_of_source,
    origin_of_version,
    write_card,
)
from maskloop.learning.training_job import Challenger, GateReport, TrainingJob
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import load_checkpoint, save_checkpoint
from maskloop.segmentation.hub import find_folder
from maskloop.settings import Settings
from maskloop.types import ModelVersion

__all__ = [
    "EVALUATION_FILE",
    "POOL_CHECK_KEY",
    "find_registered",
    "learnt_versions",
    "register_base",
    "register_challenger",
]

logger = logging.getLogger(__name__)
TRAINING_KEY = "training"  # key of a version's metadata
POOL_CHECK_KEY = "pool_check"  # the same; what the cross-validation of unlabelled images found, as JSON
EVALUATION_FILE = "judgement.json"  # in a version's folder: both evaluations of the gate, image by image


def register_base(name: str, *, settings: Settings, registry: ModelRegistry) -> ModelVersion:
    """Make the model of the settings version 1 and champion of a registered model.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    checkpoint = load_checkpoint(settings.model, device="cpu", training=True)
    origin = origin_of_source(settings.model, find_folder(settings.model))
    card = ModelCard(
        name=name,
        origin=origin,
        labels=checkpoint.labels,
        warnings=checkpoint.warnings,
        code=code_version(),
    )
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


def register_challenger(
    job: TrainingJob,
    challenger: Challenger,
    training_set: TrainingSet,
    report: GateReport,
    *,
    registry: ModelRegistry,
    settings: Settings,
    run_id: str | None,
) -> ModelVersion:
    """Register a fine-tuned checkpoint with its snapshot, its evaluations and its model card.

    Args:
        job: the training; the files are written into its folder first.
        challenger: the fine-tuned checkpoint and its recipe.
        training_set: the data that it was trained on.
        report: its evaluation.
        registry: gets the new version.
        settings: recorded in the metadata.
        run_id: the record of the training in the registry; None for a new one.
    """
    checkpoint, champion, verdict = challenger.checkpoint, job.champion, job.pool_verdict
    folder = save_checkpoint(checkpoint, job.work_dir / "checkpoint")
    manifest = SnapshotManifest.of(train=training_set.train, holdout=training_set.holdout)
    manifest.write(folder / SNAPSHOT_FILE)
    _write_evaluations(folder / EVALUATION_FILE, report)
    write_showing(folder, report.showing)
    card = ModelCard(
        name=champion.name,
        origin=origin_of_version(champion.path, fallback=origin_of_source(settings.model, None)),
        labels=checkpoint.labels,
        parent=champion.tag,
        task=str(job.task),
        metrics=report.challenger.metrics,
        decision=report.decision.reason,
        showing=report.showing.in_words(),
        train_images=len(training_set.train),
        pool_images=None if training_set.pool_use is None else training_set.pool_use.images,
        pool_note=job.why_no_pool if verdict is None else verdict.in_words(),
        snapshot=manifest.digest,
        dataset=job.dataset,
        seed=settings.seed,
        warnings=checkpoint.warnings,
        code=code_version(),
    )
    write_card(folder, card)
    return registry.register(
        champion.name,
        folder,
        labels=checkpoint.labels,
        metrics=report.challenger.metrics,
        parent=champion.number,
        run_id=run_id,
        metadata={
            **card.as_metadata(),
            TRAINING_KEY: job.key,
            **({} if verdict is None else {POOL_CHECK_KEY: json.dumps(verdict.as_json())}),
            "gate": json.dumps(report.decision.as_json()),
            "settings": json.dumps(learning_settings(settings)),
            "recipe": json.dumps(dataclasses.asdict(challenger.recipe), default=str),
        },
    )


def find_registered(name: str, key: str, registry: ModelRegistry) -> ModelVersion | None:
    """Return the version that a training registered before it was killed, or None."""
    newest_first = reversed(registry.versions(name))
    return next(
        (found for found in newest_first if registry.metadata(name, found.number).get(TRAINING_KEY) == key),
        None,
    )


def learnt_versions(champion: ModelVersion) -> frozenset[int]:
    """Return the annotation versions that the champion has learnt from; empty without a snapshot."""
    snapshot = champion.path / SNAPSHOT_FILE
    return frozenset(SnapshotManifest.read(snapshot).version_ids("train") if snapshot.exists() else ())


def _write_evaluations(target: Path, report: GateReport) -> None:
    sides = {"champion": report.champion, "challenger": report.challenger}
    content = {
        "decision": report.decision.as_json(),
        **{
            side: {"metrics": dataclasses.asdict(evaluation.metrics), "images": evaluation.per_image()}
            for side, evaluation in sides.items()
        },
    }
    target.write_text(json.dumps(content, indent=1), encoding="utf-8")
