"""The champion fine-tuned on a training set, or on a part of it for a cross-validation, as settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable

from maskloop.learning.data.training_set import TrainingSet
from maskloop.learning.training.distributed import finetune_in_processes
from maskloop.learning.training.job import FinetuneJob, TrainingControl, TrainingProgress
from maskloop.learning.training.recipe import FinetuneRecipe, recipe_for
from maskloop.learning.training_job import Challenger, TrainingJob
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint, declare_kinds, load_checkpoint, save_checkpoint
from maskloop.settings import Settings

__all__ = ["choose_recipe", "train_challenger", "train_part"]

logger = logging.getLogger(__name__)


def train_challenger(
    job: TrainingJob,
    training_set: TrainingSet,
    champion: Checkpoint,
    settings: Settings,
    control: TrainingControl,
) -> Challenger:
    """Return the champion fine-tuned on a training set.

    Raises:
        TrainingError: as `finetune_in_processes` does.
    """
    recipe = choose_recipe(champion, training_set, settings)
    finetune_job = FinetuneJob(
        base=champion,
        examples=training_set.learnt,
        validation=training_set.validation,
        labels=training_set.plan.classes,
        task=job.task,
        kinds=job.thresholds.kinds,
        recipe=recipe,
        output_dir=job.work_dir,
    )
    checkpoint = finetune_in_processes(finetune_job, control, processes=settings.train_processes)
    # Saved with the version, so that it is served as it was trained.
    settled = declare_kinds(checkpoint, job.thresholds.kinds.observed)
    return Challenger(checkpoint=settled, recipe=recipe)


def choose_recipe(base: Checkpoint, training_set: TrainingSet, settings: Settings) -> FinetuneRecipe:
    """Return the recipe for a training set."""
    return recipe_for(base, training_set.learnt, training_set.plan.classes, settings)


def train_part(
    job: TrainingJob,
    part: TrainingSet,
    champion: Checkpoint,
    *,
    settings: Settings,
    on_progress: Callable[[TrainingProgress], None] | None,
) -> Checkpoint:
    """Return the champion fine-tuned on a part of the examples; once, also where the training is killed.

    Args:
        job: with the folder of this part alone.
        part: what is learnt.
        champion: where it starts.
        settings: of the training.
        on_progress: called every few steps.
    """
    done = job.work_dir / "done"
    if not done.exists():
        control = TrainingControl(on_progress=on_progress)
        trained = train_challenger(job, part, champion, settings, control)
        save_checkpoint(trained.checkpoint, job.work_dir / "saved").rename(done)
        log_action(
            logger, "part_trained", training=job.key, part=job.work_dir.name, images=len(part.examples)
        )
    return load_checkpoint(done, device=settings.device)
