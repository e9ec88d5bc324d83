"""The training loop on transformers' Trainer: splits batches where memory runs out, continues after a kill.

`dataset` prepares the images, `finetune` and `lab.base_model` prepare the models.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from dataclasses import asdict

import torch
from accelerate import PartialState
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from maskloop.errors import TrainingError
from maskloop.learning.losses import accelerated
from maskloop.learning.losses.denoising import denoising
from maskloop.learning.losses.ignore_regions import ignoring
from maskloop.learning.training.click_training import ClickTrainer
from maskloop.learning.training.job import UNCONTROLLED, TrainingControl, TrainingRun, TrainingStoppedError
from maskloop.learning.training.loop_callback import LoopCallback
from maskloop.learning.training.resume import StateDir
from maskloop.log import log_action

__all__ = ["train_model"]

logger = logging.getLogger(__name__)
_MICRO_BATCH = "micro_batch"  # name of a number in the state's folder


def train_model(
    model: torch.nn.Module, run: TrainingRun, control: TrainingControl = UNCONTROLLED
) -> float | None:
    """Train the model in place on the items of a dataset, in their order.

    Where memory runs out, the batch is split into smaller parts and training continues from the last state.
    Processes that `accelerate launch` started share each batch.

    Args:
        model: a transformers segmentation model that computes a loss of its own.
        run: data, recipe, device and folder of the states.
        control: callbacks.

    Returns:
        How much better click queries answered first clicks than the model's best query did, in IoU, at the
        end; None where none were trained.

    Raises:
        TrainingError: the loss was not finite several times in a row, or memory does not hold one image.
        TrainingStoppedError: `control.should_stop` returned True; the state is kept.
    """
    from maskloop.learning.training.trainer import prepared_for_training  # transformers' Trainer: seconds

    if run.recipe.threads:
        torch.set_num_threads(run.recipe.threads)
    processes = PartialState(cpu=run.device.type == "cpu")
    states = StateDir(path=run.state_dir)
    if processes.is_main_process:
        states.claim({"recipe": asdict(run.recipe), "fingerprint": run.fingerprint})
    processes.wait_for_everyone()
    callback = LoopCallback(run, states, control)
    clicks = None
    if run.click_queries is not None:
        clicks = ClickTrainer(
            model, run.click_queries.to(run.device), steps=run.recipe.steps, seed=run.recipe.seed
        )
    with (
        _no_progress_bars(),
        ignoring(model),
        accelerated(model),
        denoising(model) if run.recipe.denoise else contextlib.nullcontext(),
        prepared_for_training(model, run.recipe),
        clicks.observing() if clicks is not None else contextlib.nullcontext(),
    ):
        initial = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        while not _train_within_memory(model, run, states, callback, clicks):
            gc.collect()
            if run.device.type == "cuda":
                torch.cuda.empty_cache()
            model.load_state_dict(initial)
    model.to(run.device).eval()
    if callback.stopped_at is not None:
        raise TrainingStoppedError(
            f"training in {run.state_dir}",
            expected=f"{callback.steps} steps",
            got=f"a request to stop after step {callback.stopped_at}",
            remedy="start it again to continue from there",
        )
    return None if clicks is None else clicks.gain


def _train_within_memory(
    model: torch.nn.Module,
    run: TrainingRun,
    states: StateDir,
    callback: LoopCallback,
    clicks: ClickTrainer | None,
) -> bool:
    """Train to the end and return True; return False where memory ran out: then try smaller parts."""
    from maskloop.learning.training.trainer import SegmentationTrainer, training_arguments

    processes = PartialState().num_processes
    largest = max(run.recipe.batch // processes, 1)
    micro_batch = int(states.read_number(_MICRO_BATCH, largest))
    trainer = SegmentationTrainer(
        recipe=run.recipe,
        click_trainer=clicks,
        model=model,
        args=training_arguments(
            run.recipe,
            output_dir=str(states.path),
            device=run.device,
            processes=processes,
            micro_batch=micro_batch,
            validated=run.validation is not None,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
        ),
        train_dataset=run.dataset,
        eval_dataset=run.validation,
        data_collator=run.collator,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    callback.attach(trainer)
    resume = states.newest()
    model.train()
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        trainer.use_average()
    except torch.OutOfMemoryError as exc:
        smaller = _next_part(largest, micro_batch)
        if smaller is None:
            raise TrainingError(
                f"training on {run.device}",
                expected="memory for one image at a time",
                got=str(exc).partition("\n")[0],
                remedy="lower the sizes in the model's preprocessor_config.json, or take a smaller model",
            ) from exc
        log_action(
            logger,
            "batch_split",
            level=logging.WARNING,
            reason="out of memory",
            images=smaller,
            batch=run.recipe.batch,
        )
        states.write_number(_MICRO_BATCH, smaller)
        if processes > 1:
            raise  # the other processes wait for this one: all have to start again
        return False
    return True


def _next_part(largest: int, tried: int) -> int | None:
    """Return the next smaller number of images that divides a batch, None after one."""
    return next((part for part in range(tried // 2, 0, -1) if largest % part == 0), None)


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
