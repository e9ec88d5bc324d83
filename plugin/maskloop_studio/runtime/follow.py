"""Progress of jobs that the command line waits for."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from maskloop.errors import ConfigurationError, TrainingError
from maskloop.store.jobs import JobStatus
from maskloop_studio.runtime.progress_bar import progress_bar

if TYPE_CHECKING:
    from maskloop.learning.training.job import TrainingProgress
    from maskloop.store.database import Store
    from maskloop.store.trainings import Training
    from maskloop.types import HoldoutMetrics
    from maskloop_studio.services import Services

__all__ = [
    "build_base",
    "follow_sync",
    "follow_training",
    "wait_for_training",
]

POLL_S = 0.5
EVENTS_PATIENCE_S = 60.0  # for events that a worker has begun
FAMILIES = ("mask2former", "oneformer")
BECAME = {  # release of a trained version -> what is printed; the other releases are promoted or not
    "waiting": "better; `maskloop models promote` makes it the champion",
    "shadow": "better; predicts as a shadow until `maskloop models promote` makes it the champion",
}


def wait_for_training(
    training_id: int, store: Store, *, timeout_s: float, heartbeat: Callable[[], None] = lambda: None
) -> Training:
    """Wait for a training, showing its progress, and return it when it has finished.

    Args:
        training_id: its number.
        store: where its row is.
        timeout_s: how long to wait.
        heartbeat: called about twice a second meanwhile.

    Raises:
        TrainingError: it failed, was cancelled, or did not end in time.
    """
    deadline = time.monotonic() + timeout_s
    with progress_bar() as bar:
        shown = bar.add_task(f"training {training_id}", total=None)
        while time.monotonic() < deadline:
            training = store.trainings.get(training_id)
            if training is not None and training.status == "finished":
                return training
            if training is not None and training.status in ("cancelled", "dropped"):
                raise _training_error(
                    training_id, f"it was {training.status}", "run `maskloop train` for a new one"
                )
            if training is None or training.status not in ("queued", "running"):
                error = (training.error or training.status) if training else "its row is gone"
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
    verdict = BECAME.get(str(outcome.get("release")), "promoted" if outcome["promoted"] else "not promoted")
    decision = outcome.get("decision")
    if isinstance(decision, dict) and decision.get("ask"):
        verdict = "not promoted by itself; `maskloop models promote` makes it the champion"
    print(f"{outcome['version']}: {verdict}; {outcome['reason']}")
    showing = outcome.get("showing")
    if isinstance(showing, dict):
        print(f"for annotators: {showing.get('text')}")
    if outcome.get("holdout_lacks"):
        print(f"note: {outcome['holdout_lacks']}")
    if outcome.get("boxes"):
        print(f"note: {outcome['boxes']}")


def follow_sync(project_id: int, services: Services, *, full: bool, as_json: bool) -> None:
    """Compare a project with Label Studio, take in the differences, and print how many there were."""
    from maskloop_studio.intake.reconcile import sync_project
    from maskloop_studio.intake.set_aside_report import set_aside_lines
    from maskloop_studio.runtime.tasks import work_on

    with progress_bar() as bar:
        reading = bar.add_task("reading", total=None)
        taking = bar.add_task("taking in", total=None)

        def note_page(checked: int, total: int) -> None:
            bar.update(reading, completed=checked, total=max(checked, total))

        report = sync_project(
            project_id,
            store=services.store,
            client=services.client,
            settings=services.settings,
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
    if report.project_away:
        print(f"Label Studio does not find project {project_id}; its annotations are kept until it is back")
    if report.webhooks_reactivated:
        print(f"{report.webhooks_reactivated} webhooks were off and are on again")
    if left:
        print(f"{left} of them could not be taken in yet: see `maskloop jobs list --project {project_id}`")
    for line in set_aside_lines(project_id, services.store.annotations):
        print(line)


def _wait_for_events(event_ids: Sequence[int], store: Store) -> int:
    """Wait for events that a worker has begun; return how many were not taken in."""
    deadline = time.monotonic() + EVENTS_PATIENCE_S
    while True:
        jobs = [job for number in event_ids if (job := store.jobs.get(number)) is not None]
        if not any(job.status is JobStatus.RUNNING for job in jobs) or time.monotonic() > deadline:
            return sum(job.status is not JobStatus.DONE for job in jobs)
        time.sleep(POLL_S)


def build_base(folder: Path, *, family: str, seed: int, steps: int | None, photos: Path | None) -> None:
    """Train a base model, showing its progress, and print its figures."""
    if family not in FAMILIES:
        raise ConfigurationError(
            "--family", expected=" or ".join(FAMILIES), got=repr(family), remedy="choose one of them"
        )
    if photos is not None and family != "mask2former":
        raise ConfigurationError(
            "--photos", expected="--family mask2former", got=repr(family), remedy="leave out one of the two"
        )
    with progress_bar() as bar:
        shown = bar.add_task(f"training {family}", total=None)

        def note(progress: TrainingProgress) -> None:
            bar.update(shown, completed=progress.step, total=progress.steps)

        metrics: dict[str, HoldoutMetrics]
        if photos is not None:
            from maskloop.lab.photo_base import PHOTO_STEPS, build_photo_base

            count = PHOTO_STEPS if steps is None else steps
            metrics = {"scenes": build_photo_base(photos, folder, seed=seed, steps=count, on_progress=note)}
        else:
            from maskloop.lab.base_model import build_base_model

            chosen = cast(Literal["mask2former", "oneformer"], family)
            made = build_base_model(folder, family=chosen, seed=seed, steps=steps, on_progress=note)
            metrics = {str(domain): judged for domain, judged in made.items()}
    for domain, judged in metrics.items():
        print(f"{domain}: AP50 {judged.ap50:.3f}, PQ {judged.pq:.3f}, mIoU {judged.miou:.3f}")


def _training_error(training_id: int, got: str, remedy: str) -> TrainingError:
    return TrainingError(f"training {training_id}", expected="an end", got=got, remedy=remedy)
