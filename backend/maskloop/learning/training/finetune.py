"""Fine-tuning: a base checkpoint and corrected images in, a better checkpoint out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskloop.errors import TrainingError
from maskloop.learning.data.collate import Collator
from maskloop.learning.data.dataset import ExampleDataset, TrainingExample
from maskloop.learning.training.loop import TrainingProgress, TrainingStoppedError, train_model
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, with_labels
from maskloop.segmentation.preprocess import resized_size
from maskloop.types import SegmentationTask

__all__ = [
    "FinetuneRecipe",
    "TrainingProgress",
    "TrainingStoppedError",
    "finetune",
    "merged_labels",
    "with_text_encoder",
]


def finetune(
    base: Checkpoint,
    examples: Sequence[TrainingExample],
    *,
    recipe: FinetuneRecipe,
    output_dir: Path,
    labels: Sequence[str] | None = None,
    task: SegmentationTask = SegmentationTask.INSTANCE,
    validation: Sequence[TrainingExample] = (),
    on_progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Checkpoint:
    """Return a copy of the base that has learnt from the examples; the base is left as it is.

    Called again with the same arguments after the process was killed, it goes on from the last state
    in `output_dir`.

    Args:
        base: where to start; a OneFormer that was loaded without its text encoder is loaded once more from
            its source.
        examples: at least one; those without segments teach that nothing is there.
        recipe: how.
        output_dir: where states are kept to resume from, in its folder "trainer".
        labels: classes the result knows; None for the base's and whatever else the examples name. What the
            model knows of a class that stays is kept.
        task: what a segment means; for "semantic" all of one class make up one area.
        validation: images that are not learnt from; their loss says when to stop and which state was best.
        on_progress: called every few steps.
        should_stop: asked after each step.

    Raises:
        TrainingError: an EoMT, no example, an example of a class that is not among the labels, or a loss
            that is not finite.
        TrainingStoppedError: `should_stop` said so; the state is kept.
        ImageError: an example's image cannot be read.
        ModelLoadError: a OneFormer's source is gone.
    """
    _check_family(base)
    names = merged_labels(base.labels, examples) if labels is None else tuple(labels)
    _check_examples(examples, validation, names, output_dir)
    student = with_labels(with_text_encoder(base), names, seed=recipe.seed)
    things = {names[index] for index in student.thing_ids}
    whole = (
        names if task is SegmentationTask.SEMANTIC else tuple(name for name in names if name not in things)
    )
    common: dict[str, Any] = {
        "labels": names,
        # No lambda: what makes batches may be another process that is told all of this.
        "resize": functools.partial(resized_size, preprocessing=student.preprocessing),
        "seed": recipe.seed,
        "max_objects": _max_objects(student),
        "stuff_labels": whole,
    }
    dataset = ExampleDataset(
        examples,
        length=recipe.steps * recipe.batch,
        augmentation=recipe.augmentation,
        balance=recipe.balance,
        **common,
    )
    judged = ExampleDataset(validation, length=len(validation), augmentation=None, **common)
    _use_text_encoder(student, True)
    train_model(
        student.model,
        dataset,
        Collator(preprocessing=student.preprocessing, labels=names, task=task, task_text=student.task_text),
        recipe=recipe,
        state_dir=output_dir / "trainer",
        device=student.device,
        validation=judged if validation else None,
        fingerprint=_fingerprint(base, (*examples, *validation), names, task),
        on_progress=on_progress,
        should_stop=should_stop,
    )
    _use_text_encoder(student, False)
    return replace(student, source=str(output_dir))


def merged_labels(known: Sequence[str], examples: Sequence[TrainingExample]) -> tuple[str, ...]:
    """Return the known labels, then those that only the examples name, in alphabetical order."""
    named = {segment.label for example in examples for segment in example.segments}
    return (*known, *sorted(named - set(known)))


def _check_family(base: Checkpoint) -> None:
    # Its loss compares masks and logits by relative place: on a padded square they would not lie together.
    if base.family == "eomt":
        raise TrainingError(
            f"fine-tuning of {base.source}",
            expected="a Mask2Former, OneFormer or MaskFormer",
            got="an EoMT, which can be served only",
            remedy="choose another MASKLOOP_MODEL for projects that learn",
        )


def _check_examples(
    examples: Sequence[TrainingExample],
    validation: Sequence[TrainingExample],
    names: tuple[str, ...],
    output_dir: Path,
) -> None:
    if not examples:
        raise TrainingError(
            f"training in {output_dir}",
            expected="at least one corrected image",
            got="none",
            remedy="submit annotations in Label Studio, then run `maskloop sync` and train again",
        )
    for example in (*examples, *validation):
        unknown = sorted({segment.label for segment in example.segments} - set(names))
        if unknown:
            raise TrainingError(
                f"training image {example.key}",
                expected=f"labels among {', '.join(names)}",
                got=", ".join(unknown),
                remedy="add the label to the label config or correct the annotation",
            )


def with_text_encoder(base: Checkpoint) -> Checkpoint:
    """Return a OneFormer as its loss needs it, which is more than what is loaded for prediction."""
    if base.family != "oneformer" or base.model.config.is_training:
        return base
    return load_checkpoint(base.source, device=str(base.device), training=True)


def _use_text_encoder(checkpoint: Checkpoint, wanted: bool) -> None:
    # OneFormer asks for texts, and keeps its dropout, by these flags and not by train() and eval().
    for module in checkpoint.model.modules():
        if hasattr(module, "is_training"):
            module.is_training = wanted


def _max_objects(checkpoint: Checkpoint) -> int:
    config = checkpoint.model.config
    # MaskFormer keeps the number with its transformer decoder.
    queries = int(getattr(config, "decoder_config", config).num_queries)
    # OneFormer holds each object against one text, and has fewer of those.
    return queries if checkpoint.task_text is None else min(queries, checkpoint.task_text.text_count)


def _fingerprint(
    base: Checkpoint, examples: Sequence[TrainingExample], names: tuple[str, ...], task: SegmentationTask
) -> str:
    """Return what tells this training from others of the same recipe, as a SHA-256."""
    digest = hashlib.sha256(repr((base.family, base.source, names, str(task))).encode())
    for parameter in base.model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    for example in examples:
        digest.update(f"{example.key}/{len(example.segments)}/{example.fresh}".encode())
        for segment in (*example.segments, *example.ignored):
            digest.update(repr((segment.label, segment.offset_yx, segment.mask_hw.shape)).encode())
            digest.update(segment.mask_hw.tobytes())
    return digest.hexdigest()
