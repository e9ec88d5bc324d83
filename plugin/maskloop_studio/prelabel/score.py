"""Predict a project's unlabelled tasks in shards, which all predict workers share."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

from maskloop.errors import MaskloopError
from maskloop.learning.evaluation.trial import is_old_versions
from maskloop.log import log_action, log_failures
from maskloop.prefetch import prefetch_map
from maskloop.queue.lease import run_job
from maskloop.store.jobs import LEASE_S, Job, JobKind, JobStatus
from maskloop.store.scores import ScoredTask
from maskloop.types import Prediction, PredictionFailure, version_number
from maskloop_studio.dispatch import job_spec, queue_or_wait
from maskloop_studio.images.image_pipeline import ImageInput
from maskloop_studio.prelabel.progress import CHAMPION_S, OnProgress, is_outdated
from maskloop_studio.prelabel.push import PushTarget, mend_doubles
from maskloop_studio.projects.prediction_plan import plan_project
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.queue.lease import JobControl
    from maskloop.store.trials import Trial
    from maskloop.types import ImageResult, ModelVersion
    from maskloop_studio.formats import Region, TaskImage
    from maskloop_studio.images.image_pipeline import ImagePipeline
    from maskloop_studio.labelstudio.predictions import TaskStand
    from maskloop_studio.projects.prediction_plan import PredictionPlan, ProjectPlan
    from maskloop_studio.services import Services

    ScoreTasks: TypeAlias = Callable[[Sequence[TaskStand]], list[ScoredTask | None]]

__all__ = ["score_shard", "score_unlabelled"]

logger = logging.getLogger(__name__)
SHARD_TASKS = 64
CHUNK_TASKS = 8  # are predicted and drawn, then kept
CHUNKS_AT_ONCE = 3  # one is fetched, one is in the model, one is drawn; a killed worker loses no more
OPEN_SHARDS = 32  # planned ahead; bounds the memory of planning, and what a change of champion throws away
LABELLED_SAMPLE = 500  # the newest tasks with labels whose embedding is wanted
SHARD_LEASE_S = LEASE_S
POLL_S = 0.2
ERROR_SCORE = 0.0  # of the empty predictions that earlier versions stored where an image failed
SAME_SCORE = 1e-6


def score_unlabelled(
    target: PushTarget, plan: ProjectPlan, services: Services, *, check: Callable[[], None]
) -> tuple[Job, ...]:
    """See that each unlabelled task has a row of this version: predicted, or why it could not be.

    Other workers take shards from the queue; this process works on those that no worker has taken, so that it
    needs no other. While only others' shards are left it waits: when their worker dies, their lease lapses.

    Args:
        target: the project and the version.
        plan: how its tasks are predicted.
        services: predict, and queue shards.
        check: called often; what it raises ends this.

    Returns:
        The shards that failed for good.
    """
    project_id, tag, store = target.project_id, target.tag, target.store
    shards = store.shards
    shards.forget_ended(project_id)  # of a run that was killed
    shards.cancel(project_id, but=tag)
    store.scores.forget_errors(project_id, tag)
    planned, all_planned = _plan_shards(target), False
    while True:
        check()
        if not all_planned:
            all_planned = not _queue_ahead(planned, target, services)
        due = shards.due(project_id)
        if due:
            # From the end: the other workers begin at the front.
            _work_along(due[-1], plan, services, check=check)
        elif not shards.open_count(project_id):
            if all_planned:
                break
        else:
            time.sleep(POLL_S)
    failed = shards.given_up(project_id)
    for job in failed:
        log_action(logger, "shard_failed", level=logging.WARNING, job_id=job.name, error=job.error)
    shards.forget_ended(project_id)
    return failed


def score_shard(
    job: Job, services: Services, *, on_progress: OnProgress, plan: ProjectPlan | None = None
) -> int:
    """Predict a shard's tasks and keep the version's rows of them; return how many were new.

    It ends early where another version is the champion by now.

    Args:
        job: names the project, the version and the tasks.
        services: predict and keep.
        on_progress: gets how far it is.
        plan: how the tasks are predicted; by default read once for each prelabelling.
    """
    project_id, tag, store = job.project_id, job.action, services.store
    champion = services.registry.champion(model_name(project_id))
    if champion is None or champion.tag != tag:
        return 0
    known = store.scores.known(project_id, tag, job.subject_ids)
    wanted = [task_id for task_id in dict.fromkeys(job.subject_ids) if task_id not in known]
    stands = services.client.task_stands(project_id, wanted, with_data=True)
    tasks = [stands[task_id] for task_id in wanted if task_id in stands]
    plan = plan or PLANS.of_running_prelabelling(project_id, champion, services)
    score: ScoreTasks = functools.partial(
        _score, plan=plan, source=str(champion.path), images=services.images
    )
    trial = store.trials.running(project_id)
    if trial is not None and trial.new == tag:
        try:
            score = _on_trial(score, trial, services)
        except MaskloopError as exc:
            # The new version draws all: what it draws does not count for the old one.
            log_action(logger, "trial_not_drawn", level=logging.WARNING, model_version=trial.old, error=exc)
    on_progress(0, len(tasks))
    kept, looked_at = 0, time.monotonic()
    failures: list[tuple[int | None, object]] = []
    chunks = [tasks[first : first + CHUNK_TASKS] for first in range(0, len(tasks), CHUNK_TASKS)]
    with closing(prefetch_map(score, chunks, at_once=CHUNKS_AT_ONCE, name="score")) as made:
        for rows in made:
            store.scores.add(project_id, tag, [row for row in rows if row is not None])
            failures += [(row.task_id, row.error) for row in rows if row is not None and row.error]
            kept += len(rows)
            on_progress(kept, len(tasks))
            if time.monotonic() - looked_at >= CHAMPION_S:
                if is_outdated(champion, services.registry):
                    break
                looked_at = time.monotonic()
    log_failures(logger, "tasks_not_predicted", failures, project_id=project_id, job_id=job.name)
    return kept


def _on_trial(score: ScoreTasks, trial: Trial, services: Services) -> ScoreTasks:
    """Return what predicts tasks where the old version draws half of them.

    Their order still comes from the new version: embeddings of two models cannot be compared.
    """
    old = services.registry.get(model_name(trial.project_id), version_number(trial.old))
    plan = plan_project(
        trial.project_id,
        old,
        settings=services.settings,
        client=services.client,
        projects=services.store.projects,
        corrections=services.store.corrections,
    )
    draw = functools.partial(_score, plan=plan, source=str(old.path), images=services.images)

    def score_both(tasks: Sequence[TaskStand]) -> list[ScoredTask | None]:
        rows = score(tasks)
        half = [one for one in tasks if not one.annotated and is_old_versions(one.id, trial.new)]
        drawn = {one.task_id: one for one in draw(half) if one is not None and not one.error}
        return [
            _drawn_by(row, drawn.get(row.task_id), trial.old) if row is not None else None for row in rows
        ]

    return score_both


def _drawn_by(row: ScoredTask, old: ScoredTask | None, tag: str) -> ScoredTask:
    if old is None or row.error:
        return row
    return dataclasses.replace(row, regions=old.regions, found=old.found, drawn=old.drawn, made_by=tag)


class PlanCache:
    """The plan of the prelabelling that runs: a label config is fetched once a job, not once a shard."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[int, str, int] | None = None
        self._plan: ProjectPlan | None = None

    def of_running_prelabelling(
        self, project_id: int, champion: ModelVersion, services: Services
    ) -> ProjectPlan:
        """Return how a version predicts a project, as it was when the running prelabelling began."""
        running = services.store.jobs.find(
            statuses=[JobStatus.RUNNING], kind=JobKind.PRELABEL, project_id=project_id, limit=1
        )
        key = (project_id, champion.tag, running[0].job_id) if running else None
        with self._lock:
            if self._plan is None or key is None or key != self._key:
                self._plan = plan_project(
                    project_id,
                    champion,
                    settings=services.settings,
                    client=services.client,
                    projects=services.store.projects,
                    corrections=services.store.corrections,
                )
                self._key = key
            return self._plan


PLANS = PlanCache()


def _score(
    tasks: Sequence[TaskStand], *, plan: ProjectPlan, source: str, images: ImagePipeline
) -> list[ScoredTask | None]:
    """Return a row for each task, None for an annotated one that could not be predicted; in many threads."""
    errors: dict[int, MaskloopError] = {}
    inputs: list[tuple[int, TaskImage, PredictionPlan]] = []
    for task in tasks:
        try:
            task_plan = plan.of_task(task.data)
            found = plan.images(task.data, place=f"task {task.id}")
            inputs += [(task.id, image, task_plan) for image in found]
        except MaskloopError as exc:
            errors[task.id] = exc
    results = images.predict(
        [
            ImageInput(
                uri=image.address,
                task_id=task_id,
                task=task_plan.task,
                thresholds=task_plan.thresholds,
            )
            for task_id, image, task_plan in inputs
        ],
        source=source,
        for_selection=True,
    )
    rows = []
    for task in tasks:
        mine = [
            (image, task_plan, result)
            for (task_id, image, task_plan), result in zip(inputs, results, strict=True)
            if task_id == task.id
        ]
        failed = [result.error for _, _, result in mine if isinstance(result, PredictionFailure)]
        error = errors.get(task.id) or (failed[0] if failed else None)
        rows.append(_row(task, mine, error, plan.model_version))
    return rows


def _row(
    task: TaskStand,
    images: Sequence[tuple[TaskImage, PredictionPlan, ImageResult]],
    error: MaskloopError | None,
    tag: str,
) -> ScoredTask | None:
    if error is not None:
        return None if task.annotated else ScoredTask(task_id=task.id, error=str(error))
    shown = [
        (image, plan, plan.shown(result)) for image, plan, result in images if isinstance(result, Prediction)
    ]
    try:
        regions = _regions(task, shown, tag)
    except MaskloopError as exc:
        return ScoredTask(task_id=task.id, error=str(exc))
    predictions = [result for _, _, result in images if isinstance(result, Prediction)]
    # The least sure image decides when the task is shown.
    least_sure = min(predictions, key=lambda one: one.confidence)
    inputs = least_sure.selection_inputs
    return ScoredTask(
        task_id=task.id,
        confidence=least_sure.confidence,
        signals=dataclasses.asdict(inputs.signals) if inputs is not None else None,
        embedding_d=inputs.embedding_d if inputs is not None else None,
        look_k=inputs.look_k if inputs is not None else None,
        regions=regions,
        labelled=task.annotated,
        found=sum(len(one.segments) for one in predictions),
        drawn=sum(len(one.segments) for _, _, one in shown),
    )


def _regions(
    task: TaskStand, images: Sequence[tuple[TaskImage, PredictionPlan, Prediction]], tag: str
) -> list[Region] | None:
    """Return the regions of all images of a task; None for an annotated one, which gets no prediction."""
    if task.annotated:
        return None
    return [
        region
        for image, plan, result in images
        for region in plan.regions(result, model_version=tag, task_id=task.id, image=image)
    ]


def _plan_shards(target: PushTarget) -> Iterator[list[int]]:
    """Yield the tasks that have no row yet, a shard at a time, page by page of Label Studio's list."""
    project_id, tag, store = target.project_id, target.tag, target.store
    taken = {
        task_id
        for job in store.shards.open(project_id)
        if job.action == tag and not job.cancel_requested
        for task_id in job.subject_ids
    }
    _forget_error_predictions(target)
    waiting: list[int] = []
    found = False
    for page in target.client.unlabelled_stands(project_id):
        mend_doubles([task for task in page if task.has(tag)], target)
        known = store.scores.known(project_id, tag, [task.id for task in page])
        lost = [task.id for task in page if known.get(task.id) and task.has(tag) is False]
        if lost:  # predictions were deleted in Label Studio, or annotations, before there was a prediction
            store.scores.forget_tasks(project_id, lost, model_version=tag)
            store.pushes.forget(project_id, lost, model_version=tag)
        gone = set(lost)
        waiting += [
            task.id for task in page if (task.id not in known or task.id in gone) and task.id not in taken
        ]
        while len(waiting) >= SHARD_TASKS:
            found = True
            yield waiting[:SHARD_TASKS]
            waiting = waiting[SHARD_TASKS:]
    if found or waiting:
        labelled = store.annotations.labelled_tasks(project_id, newest=LABELLED_SAMPLE)
        # One that was annotated since Label Studio listed it is in both lists.
        known = store.scores.known(project_id, tag, labelled) | dict.fromkeys(waiting, False)
        waiting += [task_id for task_id in labelled if task_id not in known and task_id not in taken]
    for first in range(0, len(waiting), SHARD_TASKS):
        yield waiting[first : first + SHARD_TASKS]


def _forget_error_predictions(target: PushTarget) -> None:
    """Have tasks predicted again whose prediction of ours is empty with score 0: an image had failed.

    Earlier versions stored such predictions. They are replaced when the new ones are pushed.
    """
    project_id, tag, store = target.project_id, target.tag, target.store
    stale: list[int] = []
    for page in target.client.unlabelled_stands(project_id, prediction_score=ERROR_SCORE):
        placed = store.scores.placed(project_id, tag, [task.id for task in page if task.has(tag)])
        # One that we pushed with this very score is what the model found.
        stale += [task_id for task_id, score in placed.items() if abs(score - ERROR_SCORE) > SAME_SCORE]
    if stale:
        store.scores.forget_tasks(project_id, stale, model_version=tag)
        log_action(
            logger, "error_predictions_found", project_id=project_id, model_version=tag, tasks=len(stale)
        )


def _queue_ahead(planned: Iterator[list[int]], target: PushTarget, services: Services) -> bool:
    """Ask for shards until enough are open; return whether there may be more."""
    missing = OPEN_SHARDS - services.store.shards.open_count(target.project_id)
    if missing < OPEN_SHARDS // 2:
        return True
    batch = []
    for task_ids in planned:
        batch.append(task_ids)
        if len(batch) == missing:
            break
    for number in services.store.shards.add(target.project_id, target.tag, batch):
        queue_or_wait(services.queue, job_spec(JobKind.SHARD, number))
    return len(batch) == missing


def _work_along(job: Job, plan: ProjectPlan, services: Services, *, check: Callable[[], None]) -> None:
    def work(shard: Job, control: JobControl) -> dict[str, object]:
        def on_progress(done: int, total: int) -> None:
            control.progress(done, total)
            check()

        return {"scored": score_shard(shard, services, on_progress=on_progress, plan=plan)}

    run_job(job.job_id, work, jobs=services.store.jobs, lease_s=SHARD_LEASE_S, carried=False)
