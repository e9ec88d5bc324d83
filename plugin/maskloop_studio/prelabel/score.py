"""Predict a project's unlabelled tasks in shards, which all predict workers share."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop.prefetch import prefetch_map
from maskloop.queue.lease import run_job
from maskloop.store.jobs import LEASE_S, Job, JobKind
from maskloop.store.scores import ScoredTask
from maskloop.types import PredictionFailure
from maskloop_studio.dispatch import job_spec, queue_or_wait
from maskloop_studio.prelabel.progress import CHAMPION_S, OnProgress, is_outdated
from maskloop_studio.prelabel.push import mend_doubles
from maskloop_studio.projects.prediction_plan import PredictionPlan, plan_project
from maskloop_studio.projects.training import model_name
from maskloop_studio.serving.predict import predict_uris

if TYPE_CHECKING:
    from maskloop.queue.lease import JobControl
    from maskloop.types import ImageResult
    from maskloop_studio.labelstudio.predictions import TaskStand
    from maskloop_studio.services import Services

__all__ = ["score_shard", "score_unlabelled"]

logger = logging.getLogger(__name__)
SHARD_TASKS = 64
CHUNK_TASKS = 8  # are predicted and drawn, then kept
CHUNKS_AT_ONCE = 3  # one is fetched, one is in the model, one is drawn; a killed worker loses no more
OPEN_SHARDS = 32  # planned ahead; bounds the memory of planning, and what a change of champion throws away
LABELLED_SAMPLE = 500  # the newest tasks with labels whose embedding is wanted
SHARD_LEASE_S = LEASE_S
POLL_S = 0.2


def score_unlabelled(
    project_id: int, tag: str, services: Services, *, check: Callable[[], None]
) -> tuple[Job, ...]:
    """See that each unlabelled task has a row of this version: predicted, or why it could not be.

    Other workers take shards from the queue; this process works on those that nobody has taken, so that it
    needs no other. While only others' shards are left it waits: when their worker dies, their lease lapses.

    Args:
        project_id: Label Studio's number.
        tag: the version.
        services: what to work with.
        check: called often; what it raises ends this.

    Returns:
        The shards that were given up.
    """
    shards = services.store.shards
    shards.forget_ended(project_id)  # of a run that was killed
    shards.cancel(project_id, but=tag)
    services.store.scores.forget_errors(project_id, tag)
    plan, all_planned = _plan(project_id, tag, services), False
    while True:
        check()
        if not all_planned:
            all_planned = not _queue_ahead(plan, project_id, tag, services)
        due = shards.due(project_id)
        if due:
            # From the end: the other workers begin at the front.
            _work_along(due[-1], services, check=check)
        elif not shards.open_count(project_id):
            if all_planned:
                break
        else:
            time.sleep(POLL_S)
    given_up = shards.given_up(project_id)
    for job in given_up:
        log_action(logger, "shard_failed", level=logging.WARNING, job_id=job.name, error=job.error)
    shards.forget_ended(project_id)
    return given_up


def score_shard(job: Job, services: Services, *, on_progress: OnProgress) -> int:
    """Predict a shard's tasks and keep what the version says of them; return how many were new.

    It ends early where another version is the champion by now.
    """
    project_id, tag = job.project_id, job.action
    champion = services.registry.champion(model_name(project_id))
    if champion is None or champion.tag != tag:
        return 0
    known = services.store.scores.known(project_id, tag, job.subject_ids)
    wanted = [task_id for task_id in dict.fromkeys(job.subject_ids) if task_id not in known]
    stands = services.client.task_stands(project_id, wanted, with_data=True)
    tasks = [stands[task_id] for task_id in wanted if task_id in stands]
    config, plan = plan_project(project_id, champion, services)

    def score(chunk: Sequence[TaskStand]) -> list[ScoredTask | None]:  # in several threads
        said = predict_uris(
            [task.data.get(config.image_field) for task in chunk],
            task_ids=[task.id for task in chunk],
            source=str(champion.path),
            plan=plan,
            services=services,
            for_selection=True,
        )
        return [_scored(task, prediction, plan, tag) for task, prediction in zip(chunk, said, strict=True)]

    on_progress(0, len(tasks))
    kept, asked_at = 0, time.monotonic()
    chunks = [tasks[first : first + CHUNK_TASKS] for first in range(0, len(tasks), CHUNK_TASKS)]
    with closing(prefetch_map(score, chunks, at_once=CHUNKS_AT_ONCE, name="score")) as made:
        for rows in made:
            services.store.scores.add(project_id, tag, [row for row in rows if row is not None])
            kept += len(rows)
            on_progress(kept, len(tasks))
            if time.monotonic() - asked_at >= CHAMPION_S:
                if is_outdated(champion, services):
                    break
                asked_at = time.monotonic()
    return kept


def _plan(project_id: int, tag: str, services: Services) -> Iterator[list[int]]:
    """Yield the tasks that have no row yet, a shard at a time, page by page of Label Studio's list."""
    store = services.store
    taken = {
        task_id
        for job in store.shards.open(project_id)
        if job.action == tag and not job.cancel_requested
        for task_id in job.subject_ids
    }
    waiting: list[int] = []
    found = False
    for page in services.client.unlabelled_stands(project_id):
        mend_doubles([task for task in page if task.has(tag)], project_id, tag, services)
        known = store.scores.known(project_id, tag, [task.id for task in page])
        lost = [task.id for task in page if known.get(task.id) and task.has(tag) is False]
        if lost:  # somebody deleted predictions in Label Studio
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


def _queue_ahead(plan: Iterator[list[int]], project_id: int, tag: str, services: Services) -> bool:
    """Ask for shards until enough are open; return whether there may be more."""
    missing = OPEN_SHARDS - services.store.shards.open_count(project_id)
    if missing < OPEN_SHARDS // 2:
        return True
    batch = []
    for task_ids in plan:
        batch.append(task_ids)
        if len(batch) == missing:
            break
    for number in services.store.shards.add(project_id, tag, batch):
        queue_or_wait(services.queue, job_spec(JobKind.SHARD, number))
    return len(batch) == missing


def _work_along(job: Job, services: Services, *, check: Callable[[], None]) -> None:
    def work(shard: Job, control: JobControl) -> dict[str, object]:
        def on_progress(done: int, total: int) -> None:
            control.progress(done, total)
            check()

        return {"scored": score_shard(shard, services, on_progress=on_progress)}

    run_job(job.job_id, work, jobs=services.store.jobs, lease_s=SHARD_LEASE_S, carried=False)


def _scored(task: TaskStand, prediction: ImageResult, plan: PredictionPlan, tag: str) -> ScoredTask | None:
    if isinstance(prediction, PredictionFailure):
        if task.annotated:
            return None
        log_action(
            logger, "task_not_predicted", level=logging.WARNING, task_id=task.id, error=prediction.error
        )
        return ScoredTask(task_id=task.id, error=str(prediction.error))
    inputs = prediction.selection_inputs
    return ScoredTask(
        task_id=task.id,
        confidence=prediction.confidence,
        signals=dataclasses.asdict(inputs.signals) if inputs is not None else None,
        embedding_d=inputs.embedding_d if inputs is not None else None,
        regions=None if task.annotated else plan.regions(prediction, model_version=tag, task_id=task.id),
        labelled=task.annotated,
    )
