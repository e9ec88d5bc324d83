"""A whole simulation: every strategy with every seed, seeds side by side, kept in a folder to go on from.

`python -m maskloop.lab.simulation.experiment FOLDER SEED` is one of the processes that work side by side.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from maskloop.errors import ConfigurationError, MaskloopError, TrainingError
from maskloop.files import write_whole
from maskloop.lab.simulation.data import MADE_UP_IMAGES, ExperimentData, load_data
from maskloop.lab.simulation.learner import ModelLearner
from maskloop.lab.simulation.loop import Budget, Point, run_cell
from maskloop.lab.simulation.outcome import Run
from maskloop.learning.evaluation.annotation_cost import DEFAULT_WEIGHTS, EditWeights, edits_cost_s
from maskloop.learning.registry.model_card import code_version, learning_settings
from maskloop.processes import end, spawn
from maskloop.segmentation.hub import find_folder
from maskloop.selection.strategies import find_strategy
from maskloop.settings import Settings, load_settings

__all__ = ["BASELINE", "Plan", "SeedResult", "Simulation", "model_digest", "simulate"]

BASELINE = "random"
POLL_S = 0.3
PLAN_FILE = "plan.json"
FORM = 2  # of what is kept of a training; 2: objects found, and edits
COMMAND_SETTINGS = ("model", "train_steps", "train_minutes")  # that the command line may set


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is simulated."""

    data: str  # a folder, or "made-up"
    strategies: tuple[str, ...]
    seeds: int
    rounds: int
    start: int = 8
    per_round: int = 8
    random_share: float = 0.0
    clusters: int | None = None
    holdout: float = 0.3
    limit: int | None = None  # images of the pool
    images: int = MADE_UP_IMAGES  # that are made up
    tile: int | None = None  # pixels
    edge: int | None = None  # pixels: the shorter side that the model sees
    warm: bool = False  # whether a round goes on from the model of the last one
    metric: str = "score"
    jobs: int = 1

    @property
    def budget(self) -> Budget:
        """When how many images are labelled."""
        return Budget(
            start=self.start,
            per_round=self.per_round,
            rounds=self.rounds,
            random_share=self.random_share,
            clusters=self.clusters,
        )


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """What one seed came to."""

    seed: int
    full: Mapping[str, float]  # quality with the whole pool labelled
    points: Mapping[str, tuple[Point, ...]]  # strategy -> its curve


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """What all seeds that are done came to."""

    plan: Plan
    data: ExperimentData
    results: tuple[SeedResult, ...]

    def runs(self, strategy: str, weights: EditWeights = DEFAULT_WEIGHTS) -> list[Run]:
        """Return the curves of one strategy in the metric of the plan, one a seed; edits cost the weights."""
        return [
            Run(
                seed=result.seed,
                labels=tuple(point.labels for point in result.points[strategy]),
                objects=tuple(point.objects for point in result.points[strategy]),
                quality=tuple(point.quality[self.plan.metric] for point in result.points[strategy]),
                seconds=_seconds(result.points[strategy], weights),
            )
            for result in self.results
        ]


def _seconds(points: Sequence[Point], weights: EditWeights) -> tuple[float, ...] | None:
    edits = [point.edits for point in points if point.edits is not None]
    return tuple(edits_cost_s(one, weights) for one in edits) if len(edits) == len(points) else None


def simulate(
    plan: Plan,
    *,
    settings: Settings,
    work: Path,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
    on_seed: Callable[[Simulation], None] = lambda _: None,
) -> Simulation:
    """Run what is missing of a plan, and return all of it.

    Args:
        plan: what is simulated.
        settings: model, task, thresholds and how is learnt.
        work: where every training's outcome is kept; killed at any time, the same call goes on.
        on_step: called with how many trainings are done, and of how many.
        on_seed: called after each seed, with all that are done.

    Raises:
        ConfigurationError: an unknown strategy or too few images.
        CodecError: the folder is not in COCO form.
        MaskloopError: any error of a training.
    """
    for name in plan.strategies:
        find_strategy(name)
    data = load_data(plan.data, holdout=plan.holdout, limit=plan.limit, tile=plan.tile, images=plan.images)
    if plan.start >= len(data.pool):
        raise ConfigurationError(
            f"simulate --data {plan.data}",
            expected=f"a pool of more than the {plan.start} images that it starts with",
            got=f"{len(data.pool)}",
            remedy="give more images, or a smaller --start",
        )
    folder = work / _fingerprint(plan, data, settings)
    steps = plan.seeds * (1 + len(plan.strategies) * (1 + _rounds(plan, data)))

    def report_steps() -> None:
        on_step(sum(_steps_done(folder, seed) for seed in range(plan.seeds)), steps)

    def finished() -> Simulation:
        done = [_read_seed(plan, folder, seed) for seed in range(plan.seeds)]
        return Simulation(plan=plan, data=data, results=tuple(one for one in done if one is not None))

    missing = [seed for seed in range(plan.seeds) if _read_seed(plan, folder, seed) is None]
    if plan.jobs == 1:
        for seed in missing:
            _run_seed(plan, data, settings, folder, seed=seed, on_step=report_steps)
            on_seed(finished())
    else:
        _run_in_processes(
            plan, settings, folder, missing, on_poll=report_steps, on_seed=lambda: on_seed(finished())
        )
    return finished()


def _run_seed(
    plan: Plan,
    data: ExperimentData,
    settings: Settings,
    folder: Path,
    *,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Do one seed: the whole pool once, then every strategy from the same starting set."""
    steps = folder / "steps" / str(seed)
    steps.parent.mkdir(parents=True, exist_ok=True)
    steps.write_bytes(b"")

    def step(_: object = None) -> None:
        with steps.open("ab") as file:
            file.write(b".")
        on_step()

    learner = ModelLearner(
        data, settings=settings, folder=folder / "trainings", edge=plan.edge, warm=plan.warm
    )
    everything = range(len(data.pool))
    full = learner.learn(everything, seed=seed, previous=None, score_pool=False)
    step()
    objects_n = [len(example.segments) for example in data.pool]
    points = {
        name: run_cell(learner, objects_n, strategy=name, budget=plan.budget, seed=seed, on_point=step)
        for name in plan.strategies
    }
    record = {
        "full": full.quality,
        "points": {name: [dataclasses.asdict(point) for point in curve] for name, curve in points.items()},
    }
    _write(_seed_file(plan, folder, seed), record)


def _run_in_processes(
    plan: Plan,
    settings: Settings,
    folder: Path,
    seeds: list[int],
    *,
    on_poll: Callable[[], None],
    on_seed: Callable[[], None],
) -> None:
    chosen = {name: getattr(settings, name) for name in COMMAND_SETTINGS}
    _write(folder / PLAN_FILE, {"plan": dataclasses.asdict(plan), "settings": chosen})
    waiting, running = list(seeds), dict[int, Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < plan.jobs:
                seed = waiting.pop(0)
                command = [sys.executable, "-m", "maskloop.lab.simulation.experiment", str(folder), str(seed)]
                running[seed] = spawn(command, log_path=_log_file(folder, seed))
            time.sleep(POLL_S)
            on_poll()
            for seed in [seed for seed, process in running.items() if process.poll() is not None]:
                running.pop(seed)
                if _read_seed(plan, folder, seed) is None:
                    raise _failure(folder, seed)
                on_seed()
    finally:
        for process in running.values():
            end(process)


def _failure(folder: Path, seed: int) -> MaskloopError:
    log = _log_file(folder, seed)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return TrainingError(
        f"simulate, seed {seed}",
        expected="a process that ends with a result",
        got=lines[-1] if lines else "none",
        remedy=f"see {log}, then run the same command again: it goes on",
    )


def _fingerprint(plan: Plan, data: ExperimentData, settings: Settings) -> str:
    """Return a name for all that decides what a training comes to."""
    record: dict[str, object] = {
        "version": code_version().version,
        "form": FORM,
        "data": data.digest,
        "model": model_digest(settings.model),
        "task": settings.task,
        "settings": {name: value for name, value in learning_settings(settings).items() if name != "seed"},
        "thresholds": settings.model_dump(
            mode="json", include={name for name in Settings.model_fields if "threshold" in name}
        ),
        "edge": plan.edge,
        "warm": plan.warm,
    }
    if settings.stuff_labels:
        record["stuff"] = sorted(settings.stuff_labels)
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:16]


@functools.cache
def model_digest(source: str) -> str:
    """Return the SHA-256 of a model's weights and configuration."""
    digest = hashlib.sha256()
    for path in sorted(find_folder(source).iterdir()):
        if path.suffix in (".json", ".safetensors"):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _rounds(plan: Plan, data: ExperimentData) -> int:
    return min(plan.rounds, -(-(len(data.pool) - plan.start) // plan.per_round))


def _seed_file(plan: Plan, folder: Path, seed: int) -> Path:
    record = json.dumps([list(plan.strategies), dataclasses.asdict(plan.budget)])
    return folder / "seeds" / f"{hashlib.sha256(record.encode()).hexdigest()[:16]}-{seed}.json"


def _log_file(folder: Path, seed: int) -> Path:
    return folder / "logs" / f"{seed}.log"


def _steps_done(folder: Path, seed: int) -> int:
    path = folder / "steps" / str(seed)
    return path.stat().st_size if path.is_file() else 0


def _read_seed(plan: Plan, folder: Path, seed: int) -> SeedResult | None:
    path = _seed_file(plan, folder, seed)
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    points = {name: tuple(_read_point(point) for point in curve) for name, curve in record["points"].items()}
    return SeedResult(seed=seed, full=record["full"], points=points)


def _read_point(point: Mapping[str, Any]) -> Point:
    edits = point["edits"]
    return Point(
        **{**point, "chosen": tuple(point["chosen"]), "edits": None if edits is None else tuple(edits)}
    )


def _write(path: Path, record: object) -> None:
    write_whole(path, json.dumps(record))


def _main(folder: Path, seed: int) -> int:
    record = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    plan = Plan(**{**record["plan"], "strategies": tuple(record["plan"]["strategies"])})
    data = load_data(plan.data, holdout=plan.holdout, limit=plan.limit, tile=plan.tile, images=plan.images)
    settings = load_settings().model_copy(update=record["settings"])
    try:
        _run_seed(plan, data, settings, folder, seed=seed)
    except MaskloopError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), int(sys.argv[2])))
