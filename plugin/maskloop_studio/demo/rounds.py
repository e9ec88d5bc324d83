"""The demo's rounds: a simulated annotator corrects tasks in Label Studio's order, and maskloop learns."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from maskloop.errors import StudioError
from maskloop.learning.evaluation.annotation_cost import weights_from_settings, work_saved
from maskloop.store.holdout import content_position
from maskloop.types import EditCounts, HoldoutMetrics
from maskloop_studio.demo.annotator import AnnotatedTask, SimulatedAnnotator
from maskloop_studio.demo.images import DemoImage
from maskloop_studio.demo.report import RoundReport
from maskloop_studio.formats.label_config import LabelConfig
from maskloop_studio.runtime.follow import wait_for_training
from maskloop_studio.runtime.progress_bar import progress_bar
from maskloop_studio.services import Services

__all__ = ["DemoLoop", "TaskPlan", "plan_tasks"]

PATIENCE_S = 900.0  # for one training or one prelabelling on a slow machine


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """The tasks of the holdout, and how many are corrected in a round."""

    images: Mapping[int, DemoImage]  # task -> its image with the true segments
    holdout: tuple[int, ...]
    per_round: int


def plan_tasks(
    project_id: int,
    images: Mapping[int, DemoImage],
    *,
    holdout_fraction: float,
    rounds: int,
    per_round: int,
) -> TaskPlan:
    """Split a project's tasks into the holdout and those to correct.

    Args:
        project_id: Label Studio's number; for errors.
        images: task -> its image with the true segments.
        holdout_fraction: share of the tasks that is in the holdout.
        rounds: number of trainings.
        per_round: images to correct in each round, fewer where there are not enough.

    Raises:
        StudioError: too few tasks for the holdout or for the rounds.
    """
    holdout = tuple(
        task_id
        for task_id, image in sorted(images.items())
        if content_position(hashlib.sha256(image.data).hexdigest()) < holdout_fraction
    )
    teachable = len(images) - len(holdout)
    if not holdout or teachable < rounds:
        raise StudioError(
            f"demo project {project_id}",
            expected=f"at least one task in the holdout and {rounds} to learn from",
            got=f"{len(holdout)} and {teachable}",
            remedy="give more images, or fewer --rounds",
        )
    # Where there are enough, some stay unlabelled, so that the editor shows predictions in the end.
    spare = min(teachable // 4, teachable - rounds)
    return TaskPlan(images=images, holdout=holdout, per_round=min(per_round, (teachable - spare) // rounds))


@dataclass(frozen=True, kw_only=True)
class DemoLoop:
    """One project's rounds."""

    project_id: int
    plan: TaskPlan
    services: Services
    annotator: SimulatedAnnotator
    label_config: LabelConfig
    heartbeat: Callable[[], None]  # called while it waits: restarts parts that have ended

    def label_holdout(self) -> None:
        """Annotate the holdout, once, before the first training."""
        with progress_bar() as bar:
            for task_id in bar.track(self.plan.holdout, description="labelling the holdout"):
                self._annotate(task_id)
        self._wait_for_corrections(len(self.plan.holdout))

    def run_round(self, number: int) -> RoundReport:
        """Correct the next tasks in Label Studio's order, and wait for the training on them.

        Args:
            number: 1, 2, 3 ...
        """
        started = time.monotonic()
        tasks = self._correct(f"round {number}: correcting")
        edits = sum((task.edits for task in tasks), EditCounts())
        self._wait_for_corrections(len(self.plan.holdout) + number * self.plan.per_round)
        training_id = self._training_of_round(number)
        training = wait_for_training(
            training_id, self.services.store, timeout_s=PATIENCE_S, heartbeat=self.heartbeat
        )
        outcome = training.outcome or {}
        promoted = bool(outcome["promoted"])
        champion = str(outcome["version"] if promoted else outcome["base"])
        before, challenger = _metrics(outcome["champion_metrics"]), _metrics(outcome["challenger_metrics"])
        if self.services.client.count_tasks(self.project_id, only_unlabelled=True):
            self._wait(
                lambda: self.services.client.project(self.project_id).model_version == champion,
                f"predictions of {champion} in Label Studio",
            )
        return RoundReport(
            number=number,
            corrected=self.plan.per_round,
            edits=edits,
            work_saved=work_saved(edits, weights_from_settings(self.services.settings.edit_seconds)),
            regions_drawn=sum(task.regions_drawn for task in tasks),
            objects=sum(task.objects for task in tasks),
            fragments=sum(task.fragments for task in tasks),
            before=before,
            metrics=challenger if promoted else before,
            challenger=challenger,
            champion=champion,
            promoted=promoted,
            reason=str(outcome["reason"]),
            seconds=time.monotonic() - started,
            showing=str(_showing(outcome).get("text", "")),
        )

    def wait_for_predictions(self, model_version: str) -> None:
        """Wait until every unlabelled task has a prediction of a version."""
        tasks = [task.id for task in self.services.client.iter_tasks(self.project_id, only_unlabelled=True)]
        self._wait(lambda: set(tasks) <= self._settled(model_version), f"predictions of {len(tasks)} tasks")

    def _correct(self, description: str) -> list[AnnotatedTask]:
        done: list[AnnotatedTask] = []
        with progress_bar() as bar:
            for _ in bar.track(range(self.plan.per_round), description=description):
                task = self.services.client.next_task(self.project_id)
                if task is None:
                    raise StudioError(
                        f"project {self.project_id}",
                        expected="a next task to label",
                        got="none",
                        remedy="another user labelled tasks of it; run the demo again",
                    )
                done.append(self._annotate(int(task["id"])))
        return done

    def _annotate(self, task_id: int) -> AnnotatedTask:
        image = self.plan.images[task_id]
        return self.annotator.annotate(
            task_id, image.segments, size_hw=image.size_hw, config=self.label_config
        )

    def _training_of_round(self, number: int) -> int:
        self._wait(
            lambda: len(self.services.store.trainings.of(self.project_id)) >= number,
            f"training {number} to begin",
        )
        return self.services.store.trainings.of(self.project_id)[number - 1].training_id

    def _settled(self, model_version: str) -> set[int]:
        pushed = self.services.store.pushes.of(self.project_id, model_version)
        return {task_id for task_id, prediction_id in pushed.items() if prediction_id is not None}

    def _wait_for_corrections(self, count: int) -> None:
        # Of both sides: the first training may move some to the holdout.
        corrections = self.services.store.corrections
        self._wait(lambda: corrections.count(self.project_id) >= count, f"{count} stored corrections")

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if time.monotonic() > deadline:
                raise StudioError(
                    f"demo project {self.project_id}",
                    expected=what,
                    got=f"nothing of it in {PATIENCE_S:.0f} s",
                    remedy=f"read the logs in {self.services.settings.home / 'logs'}",
                )
            self.heartbeat()
            time.sleep(0.3)


def _showing(outcome: Mapping[str, object]) -> Mapping[str, object]:
    found = outcome.get("showing")
    return found if isinstance(found, dict) else {}


def _metrics(values: object) -> HoldoutMetrics:
    assert isinstance(values, dict)
    return HoldoutMetrics(**values)
