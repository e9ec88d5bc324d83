"""Evidence for images that every version has learnt from: models trained in folds, on the other images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from maskloop.curation.review.look import look_at
from maskloop.curation.review.suspicion import Evidence
from maskloop.errors import TrainingError
from maskloop.learning.cross_validation import split_folds
from maskloop.learning.data.dataset import TrainingExample, load_example_image
from maskloop.learning.training.finetune import finetune
from maskloop.learning.training.job import FinetuneJob
from maskloop.learning.training.recipe import recipe_for
from maskloop.segmentation.checkpoint import Checkpoint
from maskloop.settings import Settings
from maskloop.types import SegmentationTask

__all__ = ["look_in_folds"]


def look_in_folds(
    base: Checkpoint,
    examples: Sequence[TrainingExample],
    wanted: Collection[str],
    *,
    labels: Sequence[str],
    task: SegmentationTask,
    folds: int,
    work_dir: Path,
    settings: Settings,
    say: Callable[[str], None],
) -> Iterator[tuple[str, Evidence]]:
    """Yield (key, evidence) of each wanted image, by a model that has learnt from none of its fold.

    Copies of an image are in one fold. Killed and called again with the same examples, a training continues.

    Args:
        base: a model that has learnt from none of the images.
        examples: all annotated images.
        wanted: keys of those that are judged.
        labels: classes of the models.
        task: of the project.
        folds: how many; fewer where there are fewer images.
        work_dir: of the trainings; removed at the end.
        settings: of the trainings.
        say: gets a line of progress for each training.

    Raises:
        TrainingError: too few images for two folds.
    """
    parts = split_folds(examples, folds)
    if len(parts) < 2:
        raise TrainingError(
            "review by folds",
            expected="annotated images that are not all copies of one, two at least",
            got=f"{len(examples)} images",
            remedy="annotate more tasks",
        )
    for number, part in enumerate(parts):
        judged = [one for one in part if one.key in wanted]
        if not judged:
            continue
        left_out = {one.key for one in part}
        rest = [one for one in examples if one.key not in left_out]
        recipe = recipe_for(base, rest, labels, settings)
        say(
            f"fold {number + 1} of {len(parts)}: {recipe.steps} steps on {len(rest)} images, "
            f"to judge {len(judged)} others"
        )
        student = finetune(
            FinetuneJob(
                base=base,
                examples=rest,
                recipe=recipe,
                output_dir=work_dir / str(number),
                labels=tuple(labels),
                task=task,
            )
        )
        for one in judged:
            yield one.key, look_at(student, load_example_image(one), task=task)
    shutil.rmtree(work_dir, ignore_errors=True)
