"""Fine-tuning in several processes of this machine, one a GPU, started by `accelerate launch`.

The calling process writes a job into a folder, starts `python -m maskloop.learning.training.distributed
FOLDER` once for each process, and reads the outcome from the folder. The processes share each step's images.
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accelerate import PartialState

from maskloop.errors import MaskloopError, TrainingError
from maskloop.files import write_whole
from maskloop.learning.data.dataset import TrainingExample
from maskloop.learning.training.finetune import finetune, with_text_encoder
from maskloop.learning.training.loop import TrainingProgress, TrainingStoppedError
from maskloop.learning.training.recipe import FinetuneRecipe
from maskloop.processes import end, spawn
from maskloop.segmentation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
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
class _Job:
    """What the processes are to do."""

    examples: tuple[TrainingExample, ...]
    validation: tuple[TrainingExample, ...]
    labels: tuple[str, ...] | None
    task: SegmentationTask
    recipe: FinetuneRecipe
    device: str  # "cpu", or "cuda" for one GPU each
    asker: int  # number of the process that waits for the outcome


def finetune_in_processes(
    base: Checkpoint,
    examples: Sequence[TrainingExample],
    *,
    processes: int,
    recipe: FinetuneRecipe,
    output_dir: Path,
    labels: Sequence[str] | None = None,
    task: SegmentationTask = SegmentationTask.INSTANCE,
    validation: Sequence[TrainingExample] = (),
    on_progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Checkpoint:
    """Return what `finetune` returns, trained by several processes; with one it is the same as `finetune`.

    Args:
        base: as for `finetune`.
        examples: as for `finetune`.
        processes: how many; fewer where they could not share a batch evenly.
        recipe: as for `finetune`; its batch is the sum over all processes.
        output_dir: as for `finetune`; the job lies in its folder "launch".
        labels: as for `finetune`.
        task: as for `finetune`.
        validation: as for `finetune`.
        on_progress: as for `finetune`; told a moment later.
        should_stop: asked a few times a second.

    Raises:
        TrainingError: as `finetune` does, or a process died.
        TrainingStoppedError: `should_stop` said so; the state is kept.
    """
    shared = next(count for count in range(processes, 0, -1) if recipe.batch % count == 0)
    if shared == 1:
        return finetune(
            base,
            examples,
            recipe=recipe,
            output_dir=output_dir,
            labels=labels,
            task=task,
            validation=validation,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    folder = output_dir / "launch"
    job = _Job(
        examples=tuple(examples),
        validation=tuple(validation),
        labels=None if labels is None else tuple(labels),
        task=task,
        recipe=recipe,
        device=base.device.type,
        asker=os.getpid(),
    )
    _write_job(folder, base, job)
    while True:
        part = _memory_note(output_dir)
        code = _watch(_start(folder, shared, base.device.type), folder, on_progress, should_stop)
        if code == 0 or _memory_note(output_dir) == part:
            break  # memory that ran out has left a smaller part to try
    _raise_outcome(folder, code)
    return replace(
        load_checkpoint(folder / _RESULT, device=str(base.device), training=base.family == "oneformer"),
        source=str(output_dir),
    )


def main(folder: Path) -> int:
    """Do one process's share of a job; the first process writes progress and outcome.

    Returns:
        0, also where the job was stopped or failed with an error that the outcome holds; 1 where memory
        ran out.
    """
    job: _Job = pickle.loads((folder / _JOB).read_bytes())  # noqa: S301 - our own, written a moment ago
    shared = PartialState(cpu=job.device == "cpu")
    base = load_checkpoint(folder / _BASE, device=str(shared.device), training=True)
    outcome: dict[str, object] = {}
    try:
        trained = finetune(
            base,
            job.examples,
            recipe=job.recipe,
            output_dir=folder.parent,
            labels=job.labels,
            task=job.task,
            validation=job.validation,
            on_progress=lambda progress: _append(folder / _PROGRESS, asdict(progress)),
            should_stop=lambda: (folder / _STOP).exists() or not _is_alive(job.asker),
        )
    except MaskloopError as exc:
        kind = "stopped" if isinstance(exc, TrainingStoppedError) else "failed"
        outcome = {kind: [exc.place, exc.expected, exc.got, exc.remedy]}
    else:
        _write_json(folder / f"rank-{shared.process_index}.json", {"weights": _digest(trained)})
        if shared.is_main_process:
            save_checkpoint(trained, folder / _RESULT)
    if shared.is_main_process or "failed" in outcome:
        _write_json(folder / _OUTCOME, outcome)
    shared.wait_for_everyone()
    shared.destroy_process_group()
    return 0


def _write_job(folder: Path, base: Checkpoint, job: _Job) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_checkpoint(with_text_encoder(base), folder / _BASE)
    (folder / _JOB).write_bytes(pickle.dumps(job))


def _start(folder: Path, processes: int, device: str) -> subprocess.Popen[bytes]:
    # A file of our own, so that none on this machine is read. On a CPU "MULTI_GPU" starts torchrun as well,
    # and gloo follows from ACCELERATE_USE_CPU; accelerate's own word for a CPU starts one process alone.
    config = folder / "accelerate.json"
    _write_json(
        config,
        {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": "MULTI_GPU",
            "mixed_precision": "no",  # the recipe says what autocast does
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


def _watch(
    process: subprocess.Popen[bytes],
    folder: Path,
    on_progress: Callable[[TrainingProgress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> int:
    told = 0
    try:
        while True:
            code = process.poll()
            told = _tell(folder / _PROGRESS, told, on_progress)
            if code is not None:
                return code
            if should_stop is not None and should_stop():
                (folder / _STOP).touch()
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:  # ended by an exception: leave nobody behind
            end(process)


def _is_alive(number: int) -> bool:
    # Killed, it could not say stop; asked for again, the same job would be trained twice at once
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _tell(path: Path, told: int, on_progress: Callable[[TrainingProgress], None] | None) -> int:
    if on_progress is None or not path.exists():
        return told
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last one may be half written
    for line in lines[told:]:
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
            expected="all of them to end well",
            got=f"exit code {code}",
            remedy=f"read {folder / 'log.txt'}, or train in one process (MASKLOOP_TRAIN_PROCESSES=1)",
        )


def _memory_note(output_dir: Path) -> bytes:
    note = output_dir / "trainer" / "micro_batch.json"
    return note.read_bytes() if note.exists() else b""


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
