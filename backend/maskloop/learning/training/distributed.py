"""Fine-tuning in several processes of this machine, one per GPU, started by `accelerate launch`.

The calling process writes the job into a folder, starts `python -m maskloop.learning.training.distributed
FOLDER` once for each process, and reads the outcome from the folder. The processes share each batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accelerate import PartialState

from maskloop.errors import MaskloopError, TrainingError
from maskloop.files import write_whole
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.training.finetune import finetune, with_text_encoder
from maskloop.learning.training.job import (
    UNCONTROLLED,
    FinetuneJob,
    TrainingControl,
    TrainingProgress,
    TrainingStoppedError,
)
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.processes import end, spawn
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maskloop.segmentation.class_kinds import ClassKinds
from maskloop.types import SegmentationTask

__all__ = ["finetune_in_processes", "main"]

_JOB = "job.pickle"
_BASE = "base"
_RESULT = "result"
_PROGRESS = "progress.jsonl"
_OUTCOME = "outcome.json"
_STOP = "stop"
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class _LaunchedJob:
    """A FinetuneJob as it is written for the processes; its base lies in a folder beside it."""

    examples: tuple[TrainingExample, ...]
    validation: tuple[TrainingExample, ...]
    labels: tuple[str, ...] | None
    task: SegmentationTask
    kinds: ClassKinds
    recipe: FinetuneRecipe
    device: str  # "cpu", or "cuda" for one GPU each
    parent: int  # process id of the caller


def finetune_in_processes(
    job: FinetuneJob, control: TrainingControl = UNCONTROLLED, *, processes: int
) -> Checkpoint:
    """Return what `finetune` returns, trained by several processes of this machine.

    Args:
        job: as for `finetune`; the recipe's batch is the sum over all processes.
        control: as for `finetune`; `should_stop` is called a few times a second.
        processes: number of processes; fewer are started where they could not share a batch evenly, and with
            one this is `finetune`.

    Raises:
        TrainingError: as `finetune` does, or a process died.
        TrainingStoppedError: `control.should_stop` returned True; the state is kept.
    """
    count = next(count for count in range(processes, 0, -1) if job.recipe.batch % count == 0)
    if count == 1:
        return finetune(job, control)
    folder, device = job.output_dir / "launch", job.base.device
    _write_job(folder, job)
    while True:
        part = _micro_batch(job.output_dir)
        code = _wait(_start(folder, count, device.type), folder, control)
        if code == 0 or _micro_batch(job.output_dir) == part:
            break  # else memory ran out, and the next start uses a smaller part
    _raise_outcome(folder, code)
    return replace(
        load_checkpoint(folder / _RESULT, device=str(device), training=job.base.family == "oneformer"),
        source=str(job.output_dir),
    )


def main(folder: Path) -> int:
    """Run one of the processes of a job; the first process writes progress and outcome.

    Returns:
        0, also where the job was stopped or failed with an error that the outcome holds; 1 where memory
        ran out.
    """
    launched: _LaunchedJob = pickle.loads((folder / _JOB).read_bytes())  # noqa: S301 - written by _write_job
    state = PartialState(cpu=launched.device == "cpu")
    job = FinetuneJob(
        base=load_checkpoint(folder / _BASE, device=str(state.device), training=True),
        examples=launched.examples,
        validation=launched.validation,
        labels=launched.labels,
        task=launched.task,
        kinds=launched.kinds,
        recipe=launched.recipe,
        output_dir=folder.parent,
    )
    control = TrainingControl(
        on_progress=lambda progress: _append(folder / _PROGRESS, asdict(progress)),
        should_stop=lambda: (folder / _STOP).exists() or not _is_alive(launched.parent),
    )
    outcome: dict[str, object] = {}
    try:
        trained = finetune(job, control)
    except MaskloopError as exc:
        kind = "stopped" if isinstance(exc, TrainingStoppedError) else "failed"
        outcome = {kind: [exc.place, exc.expected, exc.got, exc.remedy]}
    else:
        _write_json(folder / f"rank-{state.process_index}.json", {"weights": _digest(trained)})
        if state.is_main_process:
            save_checkpoint(trained, folder / _RESULT)
    if state.is_main_process or "failed" in outcome:
        _write_json(folder / _OUTCOME, outcome)
    state.wait_for_everyone()
    state.destroy_process_group()
    return 0


def _write_job(folder: Path, job: FinetuneJob) -> None:
    launched = _LaunchedJob(
        examples=tuple(job.examples),
        validation=tuple(job.validation),
        labels=None if job.labels is None else tuple(job.labels),
        task=job.task,
        kinds=job.kinds,
        recipe=job.recipe,
        device=job.base.device.type,
        parent=os.getpid(),
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_checkpoint(with_text_encoder(job.base), folder / _BASE)
    (folder / _JOB).write_bytes(pickle.dumps(launched))


def _start(folder: Path, processes: int, device: str) -> subprocess.Popen[bytes]:
    # An own file, so that no other configuration of this machine is read. "MULTI_GPU" starts torchrun on a
    # CPU too (gloo, by ACCELERATE_USE_CPU); accelerate's type for a CPU would start one process only.
    config = folder / "accelerate.json"
    _write_json(
        config,
        {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": "MULTI_GPU",
            "mixed_precision": "no",  # autocast follows the recipe
            "use_cpu": False,
            "num_processes": processes,
            "num_machines": 1,
            "main_process_port": 0,
            "debug": False,
        },
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--dynamo_backend", "no", "-m", "maskloop.learning.training.distributed", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": str(device == "cpu")}
    return spawn(command, log_path=folder / "log.txt", env=environment)


def _wait(process: subprocess.Popen[bytes], folder: Path, control: TrainingControl) -> int:
    """Wait for the processes, report their progress meanwhile, and return the exit code."""
    reported = 0
    try:
        while True:
            code = process.poll()
            if control.on_progress is not None:
                reported = _report(folder / _PROGRESS, reported, control.on_progress)
            if code is not None:
                return code
            if control.should_stop is not None and control.should_stop():
                (folder / _STOP).touch()
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:  # an exception ended the wait
            end(process)


def _is_alive(process_id: int) -> bool:
    # A caller that was killed cannot request a stop; started again, it would train the same job twice.
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _report(path: Path, reported: int, on_progress: Callable[[TrainingProgress], None]) -> int:
    """Report the lines of the progress file that are new, and return how many lines it has."""
    if not path.exists():
        return reported
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last line may be half written
    for line in lines[reported:]:
        on_progress(TrainingProgress(**json.loads(line)))
    return len(lines)


def _raise_outcome(folder: Path, code: int) -> None:
    path = folder / _OUTCOME
    outcome = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    for kind, error in (("stopped", TrainingStoppedError), ("failed", TrainingError)):
        if outcome is not None and kind in outcome:
            place, expected, got, remedy = outcome[kind]
            raise error(place, expected=expected, got=got, remedy=remedy)
    if code != 0 or outcome is None:
        raise TrainingError(
            f"training in several processes ({folder})",
            expected="exit code 0 of each process",
            got=f"exit code {code}",
            remedy=f"read {folder / 'log.txt'}, or train in one process (MASKLOOP_TRAIN_PROCESSES=1)",
        )


def _micro_batch(output_dir: Path) -> bytes:
    """Return the stored size of the parts of a batch, empty where it was never reduced."""
    path = output_dir / "trainer" / "micro_batch.json"
    return path.read_bytes() if path.exists() else b""


def _digest(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    for parameter in checkpoint.model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _append(path: Path, value: dict[str, object]) -> None:
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(value) + "\n")


def _write_json(path: Path, value: dict[str, object]) -> None:
    write_whole(path, json.dumps(value))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
