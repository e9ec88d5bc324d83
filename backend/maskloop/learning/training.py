"""One training run through transformers' Trainer: recipe in, trained weights out, resumed after a kill.

What is trained on is `dataset`'s business, which checkpoint comes out `finetune`'s and `base_model`'s.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from maskloop.errors import TrainingError
from maskloop.learning.augmentation import Augmentation
from maskloop.learning.collate import Collator
from maskloop.learning.dataset import TrainingItem

__all__ = ["FinetuneRecipe", "TrainingProgress", "TrainingStoppedError", "train_model"]


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """How a training is done; the defaults suit a fine-tuning of the tiny base model on a CPU."""

    steps: int = 200  # optimiser steps
    batch: int = 4  # images in each
    learning_rate: float = 4e-4  # at its peak
    weight_decay: float = 0.05
    warmup: int = 20  # steps until the peak; a cosine to zero follows
    clip: float = 1.0  # largest norm of the gradient
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    save_every: int = 50  # steps between two states that a killed training resumes from
    threads: int = 0  # of torch on a CPU; 0 leaves the choice to torch

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.save_every) < 1 or min(self.warmup, self.threads) < 0:
            raise ValueError(f"FinetuneRecipe: expected at least one step and one image in each, got {self}")
        if not self.learning_rate > 0 or not self.clip > 0 or self.weight_decay < 0:
            raise ValueError(f"FinetuneRecipe: expected a positive learning rate and clip, got {self}")


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a training is."""

    step: int  # done
    steps: int  # in all
    loss: float  # mean since the last report
    eta_s: float  # seconds still to go, by the pace of this process


class TrainingStoppedError(TrainingError):
    """A training that ended early because it was asked to; the next one resumes from its state."""


def train_model(
    model: torch.nn.Module,
    dataset: Dataset[TrainingItem],
    collator: Collator,
    *,
    recipe: FinetuneRecipe,
    state_dir: Path,
    device: torch.device,
    fingerprint: str = "",
    on_progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Train the model in place on the dataset's items, in their order.

    Args:
        model: a transformers segmentation model with a loss of its own.
        dataset: at least steps x batch items.
        collator: makes batches of items.
        recipe: how.
        state_dir: where states are kept to resume from; one of the same recipe and fingerprint is
            continued, any other is deleted.
        device: where to train.
        fingerprint: tells apart what a state was trained on.
        on_progress: called every few steps and after the last.
        should_stop: asked after each step.

    Raises:
        TrainingError: the loss is not finite.
        TrainingStoppedError: `should_stop` said so; the state is kept.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    resume = _claim_state_dir(state_dir, {"recipe": asdict(recipe), "fingerprint": fingerprint})
    watcher = _Watcher(recipe.steps, on_progress, should_stop)
    trainer = _OrderedTrainer(
        model=model,
        args=_training_arguments(recipe, state_dir, device),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    model.train()
    with _no_progress_bars():
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    model.eval()
    if watcher.stopped_at is not None:
        raise TrainingStoppedError(
            f"training in {state_dir}",
            expected=f"{recipe.steps} steps",
            got=f"a request to stop after step {watcher.stopped_at}",
            remedy="start it again to go on from there",
        )


class _OrderedTrainer(Trainer):
    """Takes items in the dataset's order, which is shuffled already and the same after a restart."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        outputs = model(**inputs)
        loss = outputs.loss.mean()  # OneFormer's has shape (1,)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # Trainer's own count does not know OneFormer, which has two main inputs

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(cast(Any, train_dataset or self.train_dataset))


class _Watcher(TrainerCallback):
    """Reports progress, stops on request, and ends a training that has diverged."""

    def __init__(
        self,
        steps: int,
        on_progress: Callable[[TrainingProgress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._steps = steps
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._first_step = 0
        self.stopped_at: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started, self._first_step = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        asked = self._should_stop is not None and self._should_stop()
        if asked and state.global_step < self._steps:
            self.stopped_at = state.global_step
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"training step {state.global_step}",
                expected="a finite loss",
                got=str(loss),
                remedy="lower the learning rate (MASKLOOP_LEARNING_RATE) and train again",
            )
        if self._on_progress is not None:
            done = max(state.global_step - self._first_step, 1)
            pace_s = (time.monotonic() - self._started) / done
            self._on_progress(
                TrainingProgress(
                    step=state.global_step,
                    steps=self._steps,
                    loss=loss,
                    eta_s=pace_s * (self._steps - state.global_step),
                )
            )


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    # transformers draws one for each state it saves.
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _training_arguments(recipe: FinetuneRecipe, state_dir: Path, device: torch.device) -> TrainingArguments:
    on_cpu = device.type == "cpu"
    return TrainingArguments(
        output_dir=str(state_dir),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=min(recipe.warmup, recipe.steps // 2),
        lr_scheduler_type="cosine",
        max_grad_norm=recipe.clip,
        seed=recipe.seed,
        use_cpu=on_cpu,
        bf16=not on_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=min(10, recipe.steps),
        logging_nan_inf_filter=False,
        report_to=[],
        log_level="warning",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
    )


def _claim_state_dir(state_dir: Path, identity: dict[str, Any]) -> Path | None:
    """Return the newest whole state of the same training; delete what belongs to any other."""
    note = state_dir / "identity.json"
    wanted = json.dumps(identity, sort_keys=True)
    if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(state_dir, ignore_errors=True)
        state_dir.mkdir(parents=True)
        note.write_text(wanted, encoding="utf-8")
        return None
    states = sorted(state_dir.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while states:
        newest = states.pop()
        if _is_whole(newest):
            return newest
        shutil.rmtree(newest)
    return None


def _is_whole(state: Path) -> bool:
    # Trainer writes trainer_state.json last.
    try:
        json.loads((state / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((state / name).is_file() for name in ("optimizer.pt", "scheduler.pt"))
