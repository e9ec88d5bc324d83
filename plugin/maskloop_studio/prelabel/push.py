"""Send scored tasks to Label Studio, several at once: one prediction a task and version, whatever happens."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity

from maskloop.errors import StudioError
from maskloop.log import log_action
from maskloop.store.scores import TaskToTell

if TYPE_CHECKING:
    from maskloop_studio.labelstudio.client import StudioClient
    from maskloop_studio.labelstudio.predictions import TaskStand
    from maskloop_studio.services import Services

__all__ = ["PushCounts", "is_passing", "mend_doubles", "patiently", "push_scored"]

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
PAGE_TASKS = 100
DELAYS_S = (0.5, 1.0, 2.0, 4.0)  # between the attempts of one request
PASSING = frozenset({408, 425, 429})  # and 5xx
OURS_TO_MEND = frozenset({401, 403})  # no task's fault: the whole job waits


@dataclass(kw_only=True)
class PushCounts:
    """What became of the tasks."""

    pushed: int = 0
    changed: int = 0  # had a prediction of the version: its score and cluster were set
    in_hand: int = 0  # somebody has a draft of it: left alone
    labelled: int = 0  # was annotated since it was scored
    gone: int = 0
    refused: int = 0  # Label Studio takes no prediction of it


@dataclass(frozen=True, kw_only=True)
class _Told:
    task_id: int
    prediction_id: int | None  # None: the prediction that was to be changed is gone
    created: bool


def push_scored(
    project_id: int, tag: str, services: Services, counts: PushCounts, *, check: Callable[[], None]
) -> None:
    """Tell Label Studio of every task that it does not know all of.

    Killed anywhere, it goes on where it was: what is about to be sent is noted before, and Label Studio says
    which tasks have a prediction of the version before each page. A prediction that comes in by another way
    meanwhile (somebody opens the task, and Label Studio asks for one live) is found after the page.

    Args:
        project_id: Label Studio's number.
        tag: the version.
        services: what to work with.
        counts: is added to.
        check: called before each page; what it raises ends this.

    Raises:
        StudioError: Label Studio does not answer, again and again, or takes no prediction at all.
    """
    after_id = 0
    checked: list[int] = []  # the tasks of the page before: asked about together with the next
    with ThreadPoolExecutor(
        services.settings.push_connections, thread_name_prefix=f"push-{project_id}"
    ) as pool:
        while True:
            check()
            page = services.store.scores.to_tell(project_id, tag, after_id=after_id, limit=PAGE_TASKS)
            asked = [*checked, *(task.task_id for task in page)]
            stands = patiently(functools.partial(services.client.task_stands, project_id, asked))
            mend_doubles(
                [stands[task_id] for task_id in checked if task_id in stands], project_id, tag, services
            )
            if not page:
                return
            checked = _push_page(page, stands, project_id, tag, services, pool, counts)
            after_id = page[-1].task_id


def is_passing(error: StudioError) -> bool:
    """Return whether the same request may succeed later."""
    return error.status is None or error.status >= 500 or error.status in PASSING


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Return the answer to a request, sent again where Label Studio refuses for the moment.

    Raises:
        StudioError: it refuses for good, or for longer than we wait.
    """
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(len(DELAYS_S) + 1),
        wait=tenacity.wait_chain(*(tenacity.wait_random(0.75 * delay, 1.25 * delay) for delay in DELAYS_S)),
        retry=tenacity.retry_if_exception(lambda exc: isinstance(exc, StudioError) and is_passing(exc)),
        reraise=True,
    )
    return retrying(ask)


def _push_page(
    page: Sequence[TaskToTell],
    stands: Mapping[int, TaskStand],
    project_id: int,
    tag: str,
    services: Services,
    pool: ThreadPoolExecutor,
    counts: PushCounts,
) -> list[int]:
    """Send a page and note what arrived; return the tasks that Label Studio got a prediction of."""
    store = services.store
    send = _sort_out(page, stands, project_id, tag, services, counts)
    store.pushes.begin_many(project_id, [task.task_id for task in send], tag)
    futures = {
        task.task_id: pool.submit(_tell, task, stands[task.task_id].has(tag), tag, services.client)
        for task in send
    }
    told, trouble = _gather(futures, project_id, tag, services, counts)
    store.pushes.finish_many(
        project_id, tag, {one.task_id: one.prediction_id for one in told if one.prediction_id is not None}
    )
    lost = [one.task_id for one in told if one.prediction_id is None]
    store.scores.forget_tasks(project_id, lost, model_version=tag)  # the next prelabelling predicts it anew
    store.scores.tell(project_id, tag, [one.task_id for one in told if one.prediction_id is not None])
    created = [one.task_id for one in told if one.created]
    counts.pushed += len(created)
    counts.changed += len(told) - len(created) - len(lost)
    if trouble is not None:
        raise trouble
    return created


def _sort_out(
    page: Sequence[TaskToTell],
    stands: Mapping[int, TaskStand],
    project_id: int,
    tag: str,
    services: Services,
    counts: PushCounts,
) -> list[TaskToTell]:
    """Return the tasks to be sent, and note why the others are not."""
    ids = [task.task_id for task in page]
    gone = [task_id for task_id in ids if task_id not in stands]
    if gone:
        services.store.scores.forget_tasks(project_id, gone)
        services.store.pushes.forget(project_id, gone)
    labelled = [task_id for task_id in ids if task_id in stands and stands[task_id].annotated]
    services.store.scores.note_labelled(project_id, tag, labelled)
    drafts = [
        task_id
        for task_id in ids
        if task_id in stands and stands[task_id].has_draft and not stands[task_id].annotated
    ]
    counts.gone += len(gone)
    counts.labelled += len(labelled)
    counts.in_hand += len(drafts)
    left_out = {*gone, *labelled, *drafts}
    return [task for task in page if task.task_id not in left_out]


def _tell(task: TaskToTell, has: bool | None, tag: str, client: StudioClient) -> _Told:
    """Send one task's prediction, or only score and cluster where it has one; called in a thread."""
    ask = has is not False

    def attempt() -> _Told:
        nonlocal ask
        stored = client.prediction_ids(task.task_id, tag) if ask else []
        ask = True  # an attempt that failed may have done its work all the same
        if stored:
            client.update_prediction(stored[0], score=task.score, cluster=task.queue)
            return _Told(task_id=task.task_id, prediction_id=stored[0], created=False)
        if task.regions is None:
            return _Told(task_id=task.task_id, prediction_id=None, created=False)
        prediction_id = client.create_prediction(
            task.task_id, task.regions, score=task.score, cluster=task.queue, model_version=tag
        )
        return _Told(task_id=task.task_id, prediction_id=prediction_id, created=True)

    return patiently(attempt)


def _gather(
    futures: Mapping[int, Future[_Told]], project_id: int, tag: str, services: Services, counts: PushCounts
) -> tuple[list[_Told], StudioError | None]:
    """Return what arrived, and the first refusal that is no single task's fault."""
    told: list[_Told] = []
    trouble: StudioError | None = None
    for task_id, future in futures.items():
        try:
            told.append(future.result())
        except StudioError as exc:
            if is_passing(exc) or exc.status in OURS_TO_MEND:
                trouble = trouble or exc
                continue
            counts.refused += 1
            services.store.scores.give_up(project_id, tag, task_id, str(exc))
            log_action(logger, "prediction_refused", level=logging.WARNING, task_id=task_id, error=exc)
    return told, trouble


def mend_doubles(stands: Sequence[TaskStand], project_id: int, tag: str, services: Services) -> None:
    """Leave one prediction of the version where another came in while ours was sent.

    Label Studio lists each version once, so that more predictions than versions tell of it. The other stays:
    somebody may have it open. What an annotation names stays as well.
    """
    for stand in stands:
        if stand.versions is None or stand.prediction_count <= len(stand.versions) or stand.has_draft:
            continue
        client = services.client
        stored = sorted(
            (one for one in client.predictions_of(stand.id) if one.get("model_version") == tag),
            key=lambda one: int(one["id"]),
        )
        if len(stored) < 2:
            continue
        ours = services.store.pushes.among(project_id, [stand.id], tag).get(stand.id)
        named = (
            {one.get("parent_prediction") for one in client.task_annotations(stand.id)}
            if stand.annotated
            else set()
        )
        stored.sort(key=lambda one: (one["id"] not in named, one["id"] == ours))
        kept, *doomed = stored
        placed = next((one for one in stored if one.get("cluster") is not None), kept)
        client.update_prediction(int(kept["id"]), score=placed["score"], cluster=placed["cluster"])
        services.store.pushes.finish_many(project_id, tag, {stand.id: int(kept["id"])})
        for one in doomed:
            if one["id"] not in named:
                client.delete_prediction(int(one["id"]))
        log_action(logger, "duplicate_prediction_removed", task_id=stand.id, model_version=tag)
