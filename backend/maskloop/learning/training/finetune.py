"""Fine-tuning: a base checkpoint and corrected images in, a checkpoint that learnt from them out."""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from maskloop.errors import TrainingError
from maskloop.learning.data.collate import Collator
from maskloop.learning.data.dataset import ExampleDataset, TrainingExample
from maskloop.learning.data.index_map import group_objects
from maskloop.learning.data.task_targets import TaskSampling
from maskloop.learning.training.input_size import fitting_size
from maskloop.learning.training.job import UNCONTROLLED, FinetuneJob, TrainingControl, TrainingRun
from maskloop.learning.training.training_loop import train_model
from maskloop.log import log_action
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, with_labels
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.segmentation.click_queries import ClickQueries, fitting_click_queries
from maskloop.segmentation.families import can_grow_queries, regrow_queries
from maskloop.segmentation.preprocess import resized_size
from maskloop.types import UNLABELLED, SegmentationTask

__all__ = ["finetune", "wanted_queries", "with_text_encoder"]

logger = logging.getLogger(__name__)
FITTING_SHARE = 0.95  # of the images, whose objects all have a query
SPARE = 1.25  # queries for each object of an image
MOST_QUERIES = 300  # a decoder's time grows with them


def finetune(job: FinetuneJob, control: TrainingControl = UNCONTROLLED) -> Checkpoint:
    """Return a copy of the job's base that has learnt from its examples.

    Where the process is killed and the same job starts again, training continues from the last state in
    `output_dir`. What the base knows about classes that stay is kept. Where objects are too small to be drawn
    the model sees its images larger. A Mask2Former whose images hold more objects than it has queries gets
    more of them. A OneFormer that was loaded without its text encoder is loaded again from its source.

    Args:
        job: base, examples, recipe, labels, task and folder.
        control: callbacks.

    Raises:
        TrainingError: no example, an example of a class that is not among the labels, or a loss that is not
            finite.
        TrainingStoppedError: `control.should_stop` returned True; the state is kept.
        ImageError: an example's image cannot be read.
        ModelLoadError: a OneFormer's source does not exist any more.
    """
    _check_examples(job)
    student = with_labels(with_text_encoder(job.base), job.class_names, seed=job.recipe.seed)
    larger = fitting_size(student.preprocessing, _drawn(job.examples), edge=job.recipe.edge)
    student = replace(student, preprocessing=larger)
    _add_queries(job, student)
    student = replace(student, click_queries=_click_queries(job, student))
    run = _training_run(job, student)
    _use_text_encoder(student, True)
    gain = train_model(student.model, run, control)
    _use_text_encoder(student, False)
    if student.click_queries is not None:
        student.click_queries.to("cpu").eval()
        is_kept = gain is not None and gain > 0
        log_action(logger, "click_queries_trained", gain=gain, kept=is_kept, steps=job.recipe.steps)
        if not is_kept:  # clicks are better answered by what the model finds anyway
            student = replace(student, click_queries=None)
    return replace(student, source=str(job.output_dir))


def _training_run(job: FinetuneJob, student: Checkpoint) -> TrainingRun:
    names, recipe = student.labels, job.recipe
    common: dict[str, Any] = {
        "labels": names,
        # No lambda: data workers are processes, and the function is pickled for them.
        "resize": functools.partial(resized_size, preprocessing=student.preprocessing),
        "max_canvas_hw": student.preprocessing.pad_hw,
        "seed": recipe.seed,
        "max_objects": _max_objects(student),
        "stuff_labels": _stuff_labels(student, job),
    }
    training = ExampleDataset(
        job.examples if recipe.deleted_weight > 1 else _without_deleted(job.examples),
        length=recipe.steps * recipe.batch,
        augmentation=recipe.augmentation,
        balance=recipe.balance,
        tasks=_task_sampling(job, student),
        **common,
    )
    validation = ExampleDataset(
        _without_deleted(job.validation), length=len(job.validation), augmentation=None, **common
    )
    return TrainingRun(
        dataset=training,
        collator=Collator(
            preprocessing=student.preprocessing,
            labels=names,
            task=job.task,
            task_text=student.task_text,
        ),
        recipe=recipe,
        state_dir=job.output_dir / "trainer",
        device=student.device,
        click_queries=student.click_queries,
        validation=validation if job.validation else None,
        fingerprint=_fingerprint(job, student),
    )


def _without_deleted(examples: Sequence[TrainingExample]) -> list[TrainingExample]:
    """Return the examples with deleted regions as plain background."""
    return [replace(one, deleted=()) for one in examples]


def _click_queries(job: FinetuneJob, student: Checkpoint) -> ClickQueries | None:
    """Return what is trained for clicks: a copy of the base's, else new ones; None where that is off."""
    if not job.recipe.click_queries:
        return None
    if job.base.click_queries is not None:
        return copy.deepcopy(job.base.click_queries)
    return fitting_click_queries(student.model, seed=job.recipe.seed)


def _check_examples(job: FinetuneJob) -> None:
    if not job.examples:
        raise TrainingError(
            f"training in {job.output_dir}",
            expected="at least one corrected image",
            got="none",
            remedy="submit annotations in Label Studio, then run `maskloop sync` and train again",
        )
    names = job.class_names
    for example in (*job.examples, *job.validation):
        labels = {one.label for one in (*example.segments, *example.boxes)}
        labels |= {one.label for other in example.others for one in other if one.label != UNLABELLED}
        unknown = sorted(labels - set(names))
        if unknown:
            raise TrainingError(
                f"training image {example.key}",
                expected=f"labels among {', '.join(names)}",
                got=", ".join(unknown),
                remedy="add the label to the label config or correct the annotation",
            )


def with_text_encoder(base: Checkpoint) -> Checkpoint:
    """Return the checkpoint with OneFormer's text encoder, which its loss needs and prediction does not."""
    if base.family != "oneformer" or base.model.config.is_training:
        return base
    return load_checkpoint(base.source, device=str(base.device), training=True)


def _use_text_encoder(checkpoint: Checkpoint, enabled: bool) -> None:
    # OneFormer reads this flag, instead of train() and eval(), to require texts and to apply dropout.
    for module in checkpoint.model.modules():
        if hasattr(module, "is_training"):
            module.is_training = enabled


def _stuff_labels(student: Checkpoint, job: FinetuneJob) -> frozenset[str]:
    """Return the classes whose segments of one image are one object."""
    if job.task is SegmentationTask.SEMANTIC:
        return frozenset(student.labels)
    return student.stuff_labels(job.kinds)


def _task_sampling(job: FinetuneJob, student: Checkpoint) -> TaskSampling | None:
    """Return how views get their tasks; None where all have the project's, as for families without tasks."""
    if job.recipe.tasks == "own" or student.task_text is None:
        return None
    stuff = student.stuff_labels(job.kinds)
    sampling = TaskSampling.of_project(job.task, labels=student.labels, stuff_labels=stuff)
    log_action(logger, "tasks_sampled", own=job.task, tasks=",".join(sampling.tasks))
    return sampling


def _drawn(examples: Sequence[TrainingExample]) -> Sequence[TrainingExample]:
    """Return what people drew; a model's own guesses say nothing of the objects that it cannot find."""
    return [example for example in examples if not example.guessed] or examples


def _add_queries(job: FinetuneJob, student: Checkpoint) -> None:
    """Give the student as many queries as nearly all of its images need, in place; each finds one object."""
    known = _max_objects(student)
    wanted = wanted_queries(_drawn(job.examples), known, stuff_labels=_stuff_labels(student, job))
    if wanted == known:
        return
    if not can_grow_queries(student.family):
        log_action(
            logger,
            "queries_too_few",
            level=logging.WARNING,
            queries=known,
            wanted=wanted,
            family=student.family,
            remedy="start from a Mask2Former, or from a checkpoint with more queries",
        )
        return
    regrow_queries(student.model, wanted, job.recipe.seed)
    log_action(logger, "queries_added", queries=wanted, before=known, images=len(job.examples))


def wanted_queries(examples: Sequence[TrainingExample], known: int, *, stuff_labels: Collection[str]) -> int:
    """Return how many queries a model should have for its images: `known`, or more where these do not do.

    They are enough for the objects of all but a twentieth of the images, a quarter more than objects since
    some queries learn places where nothing is; at most 300.

    Args:
        examples: to learn from.
        known: queries that the model has.
        stuff_labels: classes whose regions of one image are one object.
    """
    counts = sorted(
        len(group_objects((*example.segments, *example.boxes), stuff_labels)) for example in examples
    )
    usual = counts[math.ceil(FITTING_SHARE * len(counts)) - 1]
    if usual <= known:
        return known
    return max(known, min(math.ceil(SPARE * usual / 10) * 10, MOST_QUERIES))


def _max_objects(checkpoint: Checkpoint) -> int:
    """Return how many objects of one image the model can learn from: its number of queries."""
    config = checkpoint.model.config
    # MaskFormer stores the number with its transformer decoder.
    queries = int(getattr(config, "decoder_config", config).num_queries)
    # OneFormer compares each object with one text, and has fewer texts than queries.
    return queries if checkpoint.task_text is None else min(queries, checkpoint.task_text.text_count)


def _fingerprint(job: FinetuneJob, student: Checkpoint) -> str:
    """Return a SHA-256 that differs from that of any other base, data, labels, stuff or task."""
    identity = (job.base.family, job.base.source, job.class_names, str(job.task))
    digest = hashlib.sha256(repr(identity).encode())
    stuff = student.stuff_labels(job.kinds)
    if stuff != student.stuff_labels(ClassKinds()):  # else states of older versions are continued
        digest.update(repr(sorted(stuff)).encode())
    if student.preprocessing != job.base.preprocessing:  # the same
        digest.update(repr(student.preprocessing).encode())
    queries = _max_objects(student)
    if queries != _max_objects(job.base):  # the same
        digest.update(f"{queries} queries".encode())
    for parameter in job.base.model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    for example in (*job.examples, *job.validation):
        digest.update(f"{example.key}/{len(example.segments)}/{example.fresh}".encode())
        others = [part for other in example.others for part in other]
        if example.others:  # else states of older versions are continued
            digest.update(
                repr([(len(other), [p.is_box for p in other]) for other in example.others]).encode()
            )
        for segment in (*example.segments, *example.ignored, *example.boxes, *example.deleted, *others):
            digest.update(repr((segment.label, segment.offset_yx, segment.mask_hw.shape)).encode())
            digest.update(segment.mask_hw.tobytes())
    return digest.hexdigest()
