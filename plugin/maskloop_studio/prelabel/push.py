"""Push scored tasks to Label Studio, several at once: always one prediction a task and version."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity

from maskloop.errors import StudioError
from maskloop.log import log_action, log_failures
from maskloop.store.scores import PendingTask

if TYPE_CHECKING:
    from maskloop.store.database import Store
    from maskloop_studio.labelstudio.client import StudioClient
    from maskloop_studio.labelstudio.models import Json
    from maskloop_studio.labelstudio.predictions import TaskStand

__all__ = ["PushCounts", "PushTarget", "is_passing", "mend_doubles", "patiently", "push_scored"]

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
PAGE_TASKS = 100
DELAYS_S = (0.5, 1.0, 2.0, 4.0)  # between the attempts of one request
PASSING = frozenset({408, 425, 429})  # and 5xx
OF_ALL_TASKS = frozenset({401, 403})  # a refusal that no task caused: the whole job waits


@dataclass(frozen=True, kw_only=True)
class PushTarget:
    """Which predictions go where."""

    project_id: int  # Label Studio's number
    tag: str  # the model version
    client: StudioClient
    store: Store


@dataclass(kw_only=True)
class PushCounts:
    """What became of the tasks."""

    pushed: int = 0
    changed: int = 0  # had a prediction of the version: its score and cluster were set
    replaced: int = 0  # of these: it was empty since an image had failed, and has regions now
    in_hand: int = 0  # has a draft: left alone
    labelled: int = 0  # was annotated since it was scored
    gone: int = 0
    refused: int = 0  # Label Studio takes no prediction of it


@dataclass(frozen=True, kw_only=True)
class _Pushed:
    task_id: int
    prediction_id: int | None  # None: the prediction that was to be changed is gone
    created: bool
    replaced: bool = False


def push_scored(
    target: PushTarget, counts: PushCounts, *, connections: int, check: Callable[[], None]
) -> None:
    """Push every scored task that Label Studio does not have as it is here.

    Killed anywhere, it goes on where it was: what is about to be sent is noted before, and Label Studio lists
    which tasks have a prediction of the version before each page. A prediction that comes in by another way
    meanwhile (a task is opened, and Label Studio asks for one live) is found after the page.

    Args:
        target: the version, the project, where from and where to.
        counts: is added to.
        connections: predictions that are sent at the same time.
        check: called before each page; what it raises ends this.

    Raises:
        StudioError: Label Studio does not answer, again and again, or takes no prediction at all.
    """
    after_id = 0
    checked: list[int] = []  # the tasks of the page before: looked at again together with the next
    with ThreadPoolExecutor(connections, thread_name_prefix=f"push-{target.project_id}") as pool:
        while True:
            check()
            page = target.store.scores.pending(
                target.project_id, target.tag, after_id=after_id, limit=PAGE_TASKS
            )
            wanted = [*checked, *(task.task_id for task in page)]
            stands = patiently(functools.partial(target.client.task_stands, target.project_id, wanted))
            mend_doubles([stands[task_id] for task_id in checked if task_id in stands], target)
            if not page:
                return
            checked = _push_page(page, stands, target, pool, counts)
            after_id = page[-1].task_id


def is_passing(error: StudioError) -> bool:
    """Return whether the same request may succeed later."""
    return error.status is None or error.status >= 500 or error.status in PASSING


def patiently(call: Callable[[], Answer]) -> Answer:
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
    return retrying(call)


def _push_page(
    page: Sequence[PendingTask],
    stands: Mapping[int, TaskStand],
    target: PushTarget,
    pool: ThreadPoolExecutor,
    counts: PushCounts,
) -> list[int]:
    """Send a page and note what arrived; return the tasks that got a new prediction."""
    project_id, tag, store = target.project_id, target.tag, target.store
    send = _sort_out(page, stands, target, counts)
    store.pushes.begin_many(project_id, [task.task_id for task in send], tag)
    futures = {
        task.task_id: pool.submit(_push_task, task, stands[task.task_id].has(tag), tag, target.client)
        for task in send
    }
    pushed, trouble = _gather(futures, target, counts)
    arrived = {one.task_id: one.prediction_id for one in pushed if one.prediction_id is not None}
    store.pushes.finish_many(project_id, tag, arrived)
    lost = [one.task_id for one in pushed if one.prediction_id is None]
    store.scores.forget_tasks(project_id, lost, model_version=tag)  # the next prelabelling predicts it anew
    store.scores.mark_pushed(project_id, tag, list(arrived))
    created = [one.task_id for one in pushed if one.created]
    counts.pushed += len(created)
    counts.changed += len(pushed) - len(created) - len(lost)
    counts.replaced += sum(one.replaced for one in pushed)
    if trouble is not None:
        raise trouble
    return created


def _sort_out(
    page: Sequence[PendingTask],
    stands: Mapping[int, TaskStand],
    target: PushTarget,
    counts: PushCounts,
) -> list[PendingTask]:
    """Return the tasks to be sent, and note why the others are not."""
    ids = [task.task_id for task in page]
    gone = [task_id for task_id in ids if task_id not in stands]
    if gone:
        target.store.scores.forget_tasks(target.project_id, gone)
        target.store.pushes.forget(target.project_id, gone)
    labelled = [task_id for task_id in ids if task_id in stands and stands[task_id].annotated]
    target.store.scores.note_labelled(target.project_id, target.tag, labelled)
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


def _push_task(task: PendingTask, has: bool | None, tag: str, client: StudioClient) -> _Pushed:
    """Send one task's prediction, or only score and cluster where it has one; called in a thread."""
    look = has is not False

    def attempt() -> _Pushed:
        nonlocal look
        stored = _stored(task.task_id, tag, client) if look else []
        look = True  # an attempt that failed may have done its work all the same
        if stored:
            number = int(stored[0]["id"])
            fields: Json = {"score": task.score, "cluster": task.queue}
            # It was stored for an image that could not be fetched: earlier versions answered so.
            is_stale = not stored[0].get("result") and bool(task.regions)
            if is_stale:
                fields["result"] = task.regions
            client.update_prediction(number, **fields)
            return _Pushed(task_id=task.task_id, prediction_id=number, created=False, replaced=is_stale)
        if task.regions is None:
            return _Pushed(task_id=task.task_id, prediction_id=None, created=False)
        number = client.create_prediction(
            task.task_id, task.regions, score=task.score, cluster=task.queue, model_version=tag
        )
        return _Pushed(task_id=task.task_id, prediction_id=number, created=True)

    return patiently(attempt)


def _stored(task_id: int, tag: str, client: StudioClient) -> list[Json]:
    """Return a task's predictions of a version, oldest first."""
    found = [one for one in client.predictions_of(task_id) if one.get("model_version") == tag]
    return sorted(found, key=lambda one: int(one["id"]))


def _gather(
    futures: Mapping[int, Future[_Pushed]], target: PushTarget, counts: PushCounts
) -> tuple[list[_Pushed], StudioError | None]:
    """Return what arrived, and the first refusal that no single task caused."""
    pushed: list[_Pushed] = []
    trouble: StudioError | None = None
    refused: list[tuple[int | None, object]] = []
    for task_id, future in futures.items():
        try:
            pushed.append(future.result())
        except StudioError as exc:
            if is_passing(exc) or exc.status in OF_ALL_TASKS:
                trouble = trouble or exc
                continue
            refused.append((task_id, exc))
            target.store.scores.give_up(target.project_id, target.tag, task_id, str(exc))
    counts.refused += len(refused)
    log_failures(logger, "predictions_refused", refused, project_id=target.project_id)
    return pushed, trouble


def mend_doubles(stands: Sequence[TaskStand], target: PushTarget) -> None:
    """Leave one prediction of the version where another came in while ours was sent.

    Label Studio lists each version once, so more predictions than versions show it. The other one stays: an
    annotator may have it open. A prediction that an annotation names stays as well.
    """
    project_id, tag, client = target.project_id, target.tag, target.client
    for stand in stands:
        if stand.versions is None or stand.prediction_count <= len(stand.versions) or stand.has_draft:
            continue
        stored = _stored(stand.id, tag, client)
        if len(stored) < 2:
            continue
        ours = target.store.pushes.among(project_id, [stand.id], tag).get(stand.id)
        named = (
            {one.get("parent_prediction") for one in client.task_annotations(stand.id)}
            if stand.annotated
            else set()
        )
        # Best first: named by an annotation, not empty, not ours.
        stored.sort(key=lambda one: (one["id"] not in named, not one.get("result"), one["id"] == ours))
        kept, *doomed = stored
        placed = next((one for one in stored if one.get("cluster") is not None), kept)
        client.update_prediction(int(kept["id"]), score=placed["score"], cluster=placed["cluster"])
        target.store.pushes.finish_many(project_id, tag, {stand.id: int(kept["id"])})
        for one in doomed:
            if one["id"] not in named:
                client.delete_prediction(int(one["id"]))
        log_action(logger, "duplicate_prediction_removed", task_id=stand.id, model_version=tag)
