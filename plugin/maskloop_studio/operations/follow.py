"""What the command line shows while something long runs, and of what there is."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from maskloop.errors import ConfigurationError, TrainingError
from maskloop.store.jobs import JobStatus
from maskloop_studio.training import model_name

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.learning.training import TrainingProgress
    from maskloop.store.database import Store
    from maskloop.store.trainings import Training
    from maskloop_studio.services import Services

__all__ = [
    "build_base",
    "follow_sync",
    "follow_training",
    "print_versions",
    "progress_bar",
    "wait_for_training",
]

POLL_S = 0.5
EVENTS_PATIENCE_S = 60.0  # for what a worker has in hand
FAMILIES = ("mask2former", "oneformer")


def progress_bar() -> Progress:
    """Return a progress bar for a terminal; elsewhere it stays silent."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not Console(stderr=True).is_terminal,
        transient=True,
    )


def wait_for_training(
    training_id: int, store: Store, *, timeout_s: float, heartbeat: Callable[[], None] = lambda: None
) -> Training:
    """Return a training when it has ended, showing its progress.

    Args:
        training_id: which.
        store: where its row is.
        timeout_s: how long to wait.
        heartbeat: called about twice a second meanwhile.

    Raises:
        TrainingError: it failed, or did not end in time.
    """
    deadline = time.monotonic() + timeout_s
    with progress_bar() as bar:
        shown = bar.add_task(f"training {training_id}", total=None)
        while time.monotonic() < deadline:
            training = store.trainings.get(training_id)
            if training is not None and training.status == "finished":
                return training
            if training is None or training.status == "failed":
                error = training.error if training else "its row is gone"
                raise _training_error(training_id, f"{error}", "see logs/train.log in MASKLOOP_HOME")
            bar.update(shown, completed=training.step, total=training.steps or None)
            heartbeat()
            time.sleep(POLL_S)
    raise _training_error(
        training_id,
        f"none after {timeout_s:.0f} s",
        "is a worker for the queue `train` running? `maskloop up`",
    )


def follow_training(training_id: int, store: Store) -> None:
    """Show a training until its end, and its verdict."""
    outcome = wait_for_training(training_id, store, timeout_s=24 * 3600).outcome or {}
    print(
        f"{outcome['version']}: {'promoted' if outcome['promoted'] else 'not promoted'}; {outcome['reason']}"
    )


def follow_sync(project_id: int, services: Services, *, full: bool, as_json: bool) -> None:
    """Compare a project with Label Studio, work off what was found, and tell how that went."""
    from maskloop_studio.jobs import work_on
    from maskloop_studio.sync import sync_project

    with progress_bar() as bar:
        reading = bar.add_task("reading", total=None)
        taking = bar.add_task("taking in", total=None)

        def note_page(checked: int, total: int) -> None:
            bar.update(reading, completed=checked, total=max(checked, total))

        report = sync_project(
            project_id,
            services,
            run=lambda job_id: work_on(job_id, services),
            full=full,
            on_page=note_page,
            on_event=lambda done: bar.update(taking, completed=done),
        )
        left = _wait_for_events(report.event_ids, services.store)
    if as_json:
        print(json.dumps({**dataclasses.asdict(report), "left": left}))
        return
    print(
        f"{report.checked} tasks read: {report.missed} annotations were missed, "
        f"{report.changed} had changed, {report.deleted} were deleted"
    )
    if left:
        print(f"{left} of them could not be taken in yet: see `maskloop jobs list --project {project_id}`")


def _wait_for_events(event_ids: Sequence[int], store: Store) -> int:
    """Wait for events that a worker has in hand; return how many did not end well."""
    deadline = time.monotonic() + EVENTS_PATIENCE_S
    while True:
        jobs = [job for number in event_ids if (job := store.jobs.get(number)) is not None]
        if not any(job.status is JobStatus.RUNNING for job in jobs) or time.monotonic() > deadline:
            return sum(job.status is not JobStatus.DONE for job in jobs)
        time.sleep(POLL_S)


def print_versions(project_id: int, registry: ModelRegistry, *, as_json: bool) -> None:
    """Print a project's model versions."""
    name = model_name(project_id)
    versions, champion = registry.versions(name), registry.champion(name)
    number = champion.number if champion else None
    if as_json:
        rows = [
            {
                "version": version.tag,
                "champion": version.number == number,
                "parent": version.parent,
                "labels": version.labels,
                "metrics": dataclasses.asdict(version.metrics) if version.metrics else None,
            }
            for version in versions
        ]
        print(json.dumps(rows))
        return
    table = Table("version", "", "parent", "AP50", "PQ", "mIoU", "labels")
    for version in versions:
        metrics = version.metrics
        numbers = (
            [f"{value:.3f}" for value in (metrics.ap50, metrics.pq, metrics.miou)] if metrics else [""] * 3
        )
        table.add_row(
            version.tag,
            "champion" if version.number == number else "",
            f"v{version.parent}" if version.parent else "",
            *numbers,
            ", ".join(version.labels),
        )
    Console().print(table)


def build_base(folder: Path, *, family: str, seed: int, steps: int | None) -> None:
    """Train a base model, showing its progress, and print how good it is."""
    from maskloop.learning.base_model import build_base_model

    if family not in FAMILIES:
        raise ConfigurationError(
            "--family", expected=" or ".join(FAMILIES), got=repr(family), remedy="choose one of them"
        )
    with progress_bar() as bar:
        shown = bar.add_task(f"training {family}", total=None)

        def note(progress: TrainingProgress) -> None:
            bar.update(shown, completed=progress.step, total=progress.steps)

        chosen = cast(Literal["mask2former", "oneformer"], family)
        metrics = build_base_model(folder, family=chosen, seed=seed, steps=steps, on_progress=note)
    for domain, judged in metrics.items():
        print(f"{domain}: AP50 {judged.ap50:.3f}, PQ {judged.pq:.3f}, mIoU {judged.miou:.3f}")


def _training_error(training_id: int, got: str, remedy: str) -> TrainingError:
    return TrainingError(f"training {training_id}", expected="an end", got=got, remedy=remedy)
