"""One training run through transformers' Trainer: recipe in, trained weights out, resumed after a kill.

What is trained on is `dataset`'s business, which checkpoint comes out `finetune`'s and `base_model`'s.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from maskloop.errors import TrainingError
from maskloop.learning.data.collate import Collator
from maskloop.learning.data.dataset import TrainingItem
from maskloop.learning.losses import accelerated
from maskloop.learning.losses.ignore_regions import ignoring
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.learning.training.resume import StateDir
from maskloop.learning.training.schedule import PACE_STEPS, affordable_steps, should_give_up
from maskloop.learning.training.trainer import SegmentationTrainer, prepared_for_training, training_arguments
from maskloop.log import log_action

__all__ = ["FinetuneRecipe", "TrainingProgress", "TrainingStoppedError", "train_model"]

_LOG = logging.getLogger(__name__)
_MICRO_BATCH = "micro_batch"  # notes in the state's folder
_STEPS = "steps"
_SPENT_S = "spent_s"


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
    validation: Dataset[TrainingItem] | None = None,
    fingerprint: str = "",
    on_progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Train the model in place on the dataset's items, in their order.

    Where memory runs out, batches are made in smaller parts and it goes on from the last state. Started by
    `accelerate launch`, all processes share each batch.

    Args:
        model: a transformers segmentation model with a loss of its own.
        dataset: at least steps x batch items.
        collator: makes batches of items.
        recipe: how.
        state_dir: where states are kept to resume from; one of the same recipe and fingerprint is
            continued, any other is deleted.
        device: where to train.
        validation: items whose loss says when to stop, and which of the states was best; none to go on to
            the end.
        fingerprint: tells apart what a state was trained on.
        on_progress: called every few steps and after the last.
        should_stop: asked after each step.

    Raises:
        TrainingError: the loss is not finite several times in a row, or memory does not even hold one image.
        TrainingStoppedError: `should_stop` said so; the state is kept.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    shared = PartialState(cpu=device.type == "cpu")
    states = StateDir(path=state_dir)
    if shared.is_main_process:
        states.claim({"recipe": asdict(recipe), "fingerprint": fingerprint})
    shared.wait_for_everyone()
    first = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    watcher = _Watcher(recipe, states, on_progress, should_stop)
    with _no_progress_bars(), ignoring(model), accelerated(model), prepared_for_training(model, recipe):
        while not _run(model, dataset, validation, collator, recipe, states, device, watcher):
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            model.load_state_dict(first)
    model.to(device).eval()
    if watcher.stopped_at is not None:
        raise TrainingStoppedError(
            f"training in {state_dir}",
            expected=f"{watcher.steps} steps",
            got=f"a request to stop after step {watcher.stopped_at}",
            remedy="start it again to go on from there",
        )


def _run(
    model: torch.nn.Module,
    dataset: Dataset[TrainingItem],
    validation: Dataset[TrainingItem] | None,
    collator: Collator,
    recipe: FinetuneRecipe,
    states: StateDir,
    device: torch.device,
    watcher: _Watcher,
) -> bool:
    """Train to the end and return True, or False where memory ran out and smaller parts are to be tried."""
    processes = PartialState().num_processes
    most = max(recipe.batch // processes, 1)
    micro_batch = int(states.noted(_MICRO_BATCH, most))
    trainer = SegmentationTrainer(
        recipe=recipe,
        model=model,
        args=training_arguments(
            recipe,
            output_dir=str(states.path),
            device=device,
            processes=processes,
            micro_batch=micro_batch,
            validated=validation is not None,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
        ),
        train_dataset=dataset,
        eval_dataset=validation,
        data_collator=collator,
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    watcher.follow(trainer)
    resume = states.newest()
    model.train()
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except torch.OutOfMemoryError as exc:
        smaller = _next_part(most, micro_batch)
        if smaller is None:
            raise TrainingError(
                f"training on {device}",
                expected="memory for one image at a time",
                got=str(exc).partition("\n")[0],
                remedy="lower the sizes in the model's preprocessor_config.json, or take a smaller model",
            ) from exc
        log_action(
            _LOG,
            "batch_split",
            level=logging.WARNING,
            reason="out of memory",
            images=smaller,
            batch=recipe.batch,
        )
        states.note(_MICRO_BATCH, smaller)
        if processes > 1:
            raise  # the others still wait for this one: all have to start again
        return False
    return True


def _next_part(most: int, tried: int) -> int | None:
    """Return the next smaller number of images that divides a batch, None after one."""
    return next((part for part in range(tried // 2, 0, -1) if most % part == 0), None)


class _Watcher(TrainerCallback):
    """Reports progress, stops on request or for want of gain, and fits the steps into the time there is."""

    def __init__(
        self,
        recipe: FinetuneRecipe,
        states: StateDir,
        on_progress: Callable[[TrainingProgress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._recipe = recipe
        self._states = states
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._first_step = 0
        self._spent_s = 0.0
        self._trainer: SegmentationTrainer | None = None
        self.steps = recipe.steps
        self.stopped_at: int | None = None

    def follow(self, trainer: SegmentationTrainer) -> None:
        """Watch this trainer from now on."""
        self._trainer = trainer
        self.steps = trainer.planned_steps = int(self._states.noted(_STEPS, self._recipe.steps))
        self._spent_s = self._states.noted(_SPENT_S, 0.0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started, self._first_step = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step
        self._fit_time(step)
        asked = self._should_stop is not None and bool(_agreed(float(self._should_stop())))
        if step >= self.steps:
            control.should_log = control.should_training_stop = True
            control.should_evaluate = control.should_save = args.load_best_model_at_end
        elif asked:
            self.stopped_at = step
            control.should_save = True
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if should_give_up(losses, self._recipe.patience):
            log_action(
                _LOG,
                "training_stopped_early",
                reason="the validation loss no longer falls",
                step=state.global_step,
                validations=len(losses),
            )
            control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._states.note(_SPENT_S, self._spent_s + time.monotonic() - self._started)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs or self._on_progress is None or not state.is_world_process_zero:
            return
        done = max(state.global_step - self._first_step, 1)
        pace_s = (time.monotonic() - self._started) / done
        self._on_progress(
            TrainingProgress(
                step=state.global_step,
                steps=self.steps,
                loss=float(logs["loss"]),
                eta_s=pace_s * max(self.steps - state.global_step, 0),
            )
        )

    def _fit_time(self, step: int) -> None:
        done = step - self._first_step
        if self._recipe.minutes is None or done < PACE_STEPS:
            return
        here_s = time.monotonic() - self._started
        affordable = affordable_steps(
            steps=self.steps,
            done=step,
            spent_s=self._spent_s + here_s,
            pace_s=here_s / done,
            limit_s=60 * self._recipe.minutes,
        )
        agreed = int(_agreed(affordable))
        if agreed < self.steps and self._trainer is not None:
            self.steps = self._trainer.planned_steps = agreed
            if PartialState().is_main_process:
                self._states.note(_STEPS, agreed)


def _agreed(value: float) -> float:
    """Return what the first process says, on all of them."""
    shared = PartialState()
    if shared.num_processes == 1:
        return value
    return float(broadcast(torch.tensor(value, device=shared.device)))


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
