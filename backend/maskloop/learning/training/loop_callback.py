"""What happens between the steps of a training: progress, requests to stop, early stop, time limit."""

from __future__ import annotations

import logging
import resource
import time
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from maskloop.learning.training.job import TrainingControl, TrainingProgress, TrainingRun
from maskloop.learning.training.resume import StateDir
from maskloop.learning.training.schedule import PACE_STEPS, affordable_steps, should_give_up
from maskloop.log import log_action

if TYPE_CHECKING:
    from maskloop.learning.training.trainer import SegmentationTrainer

__all__ = ["LoopCallback"]

logger = logging.getLogger(__name__)
_STEPS = "steps"  # names of numbers in the state's folder
_SPENT_S = "spent_s"


class LoopCallback(TrainerCallback):
    """Reports progress, stops on request or without gain, and reduces the steps to a time limit."""

    def __init__(self, run: TrainingRun, states: StateDir, control: TrainingControl) -> None:
        self._recipe = run.recipe
        self._states = states
        self._control = control
        self._started = time.monotonic()
        self._first_step = 0
        self._spent_s = 0.0
        self._trainer: SegmentationTrainer | None = None
        self.steps = run.recipe.steps
        self.stopped_at: int | None = None  # step after which a request stopped the training

    def attach(self, trainer: SegmentationTrainer) -> None:
        """Apply to a trainer, with the number of steps and the time of its last state."""
        self._trainer = trainer
        self.steps = trainer.planned_steps = int(self._states.read_number(_STEPS, self._recipe.steps))
        self._spent_s = self._states.read_number(_SPENT_S, 0.0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._started, self._first_step = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop after the last step or on request."""
        step = state.global_step
        self._fit_time_limit(step)
        should_stop = self._control.should_stop
        stop_requested = should_stop is not None and bool(_from_main_process(float(should_stop())))
        if step >= self.steps:
            control.should_log = control.should_training_stop = True
            control.should_evaluate = control.should_save = args.load_best_model_at_end
        elif stop_requested:
            self.stopped_at = step
            control.should_save = True
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop where the validation loss no longer falls."""
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if should_give_up(losses, self._recipe.patience):
            log_action(
                logger,
                "training_stopped_early",
                step=state.global_step,
                validations=len(losses),
                best_loss=min(losses),
            )
            control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Store the time that the training took so far."""
        if state.is_world_process_zero:
            self._states.write_number(_SPENT_S, self._spent_s + time.monotonic() - self._started)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the progress."""
        on_progress = self._control.on_progress
        if not logs or "loss" not in logs or on_progress is None or not state.is_world_process_zero:
            return
        done = max(state.global_step - self._first_step, 1)
        pace_s = (time.monotonic() - self._started) / done
        on_progress(
            TrainingProgress(
                step=state.global_step,
                steps=self.steps,
                loss=float(logs["loss"]),
                eta_s=pace_s * max(self.steps - state.global_step, 0),
                images_per_s=self._recipe.batch / pace_s if pace_s > 0 else None,
                memory_mb=_most_memory_mb(),
            )
        )

    def _fit_time_limit(self, step: int) -> None:
        done = step - self._first_step
        if self._recipe.minutes is None or done < PACE_STEPS:
            return
        elapsed_s = time.monotonic() - self._started
        affordable = affordable_steps(
            steps=self.steps,
            done=step,
            spent_s=self._spent_s + elapsed_s,
            pace_s=elapsed_s / done,
            limit_s=60 * self._recipe.minutes,
        )
        steps = int(_from_main_process(affordable))
        if steps < self.steps and self._trainer is not None:
            self.steps = self._trainer.planned_steps = steps
            if PartialState().is_main_process:
                self._states.write_number(_STEPS, steps)


def _most_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def _from_main_process(value: float) -> float:
    """Return the value of the first process, in all processes."""
    state = PartialState()
    if state.num_processes == 1:
        return value
    return float(broadcast(torch.tensor(value, device=state.device)))
