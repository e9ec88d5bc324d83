"""Three signals of drift of a project, measured from what is stored; told once for each alarm.

- images: new images unlike those that the champion has learnt from;
- scores: the champion's confidence shifts, up or down;
- corrections: annotators correct a larger share of its regions than the holdout promised.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskloop.drift.detector import STRANGE, WINDOW, tie_break, watch
from maskloop.drift.signals import choose_to_label, correction_share, learnt_distances
from maskloop.errors import MaskloopError
from maskloop.learning.evaluation.showing import read_showing
from maskloop.learning.registry import CHAMPION
from maskloop.log import log_action
from maskloop.store.drifts import DriftState
from maskloop.types import version_number
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskloop.drift.detector import Watched
    from maskloop.store.scores import WatchedTask
    from maskloop_studio.services import Services

__all__ = ["IMAGES_PER_ALARM", "SIGNALS", "check_drift", "measure_drift"]

logger = logging.getLogger(__name__)
SIGNALS = ("images", "scores", "corrections")
IMAGES_PER_ALARM = 100_000  # of a false alarm of any signal, on average: in 10,000 images at most 10 %
MOST_IMAGES = 20_000  # the newest: more take seconds, and memory
LEAST_LEARNT = 10  # fewer have no spread
MOST_LEARNT = 4000  # images learnt from that others are compared with
TO_LABEL = 10  # tasks
THRESHOLD = float(IMAGES_PER_ALARM * len(SIGNALS))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Series:
    """The values of one signal, of one kind or several."""

    signal: str
    known: Sequence[Sequence[float]]
    values: Sequence[Sequence[float]]
    tasks: Sequence[int]  # of the values
    embeddings_nd: NDArray[np.float32] | None
    two_sided: bool = False


def check_drift(project_id: int, services: Services) -> tuple[DriftState, ...]:
    """Measure the champion's signals where something is new, store them and put notices about new alarms.

    Returns:
        The states; empty where there is no champion or trouble, which is logged: it stops nothing.
    """
    try:
        return _check(project_id, services)
    except MaskloopError as exc:
        log_action(logger, "drift_not_measured", level=logging.WARNING, project_id=project_id, error=exc)
        return ()


def _check(project_id: int, services: Services) -> tuple[DriftState, ...]:
    name, store = model_name(project_id), services.store
    number = services.registry.alias(name, CHAMPION)
    if number is None:
        return ()
    tag = f"{name}-v{number}"
    before = store.drifts.of(project_id, tag)
    count, newest = store.overview.corrections_stamp(project_id)
    stamp = f"{store.scores.newest_id(project_id, tag)} {count} {newest}"
    if before and before[0].stamp == stamp:
        return before
    states = measure_drift(project_id, number, services, stamp=stamp)
    store.drifts.save(project_id, tag, states)
    told = {one.signal: one.alarms for one in before}
    for state in states:
        if state.alarms > told.get(state.signal, 0):
            _tell(project_id, state, services)
    return states


def measure_drift(
    project_id: int, number: int, services: Services, *, stamp: str = ""
) -> tuple[DriftState, ...]:
    """Return how the signals of a version stand; those that cannot be measured yet have no images."""
    tag = f"{model_name(project_id)}-v{number}"
    store = services.store
    rows = store.scores.watched(project_id, tag, newest=MOST_IMAGES)
    sides = store.overview.sides_of_tasks(project_id)
    learnt = [row for row in rows if row.labelled and sides.get(row.task_id) == "train"]
    judged = [row for row in rows if row.labelled and sides.get(row.task_id) == "holdout"]
    new = [row for row in rows if not row.labelled]
    series = (
        _images(learnt[-MOST_LEARNT:], judged, new),
        _scores(judged, new),
        _corrections(project_id, tag, services),
    )
    return tuple(_state(one, tag, stamp) for one in series)


def _images(
    learnt: Sequence[WatchedTask], judged: Sequence[WatchedTask], new: Sequence[WatchedTask]
) -> _Series:
    if len(learnt) < LEAST_LEARNT or not new:
        return _Series(signal="images", known=(), values=(), tasks=(), embeddings_nd=None)
    rows = (learnt, judged, new)
    kinds = [[_stack(some) for some in rows]]
    looks = [[one.look_k for one in some if one.look_k is not None] for some in rows]
    if all(len(found) == len(some) for found, some in zip(looks, rows, strict=True)):
        kinds.append([np.array(found, np.float32) for found in looks])
    return _Series(
        signal="images",
        known=[_distances(learnt_md, known_nd) for learnt_md, known_nd, _ in kinds],
        values=[_distances(learnt_md, new_nd) for learnt_md, _, new_nd in kinds],
        tasks=[row.task_id for row in new],
        embeddings_nd=kinds[0][2],
    )


def _distances(learnt_md: NDArray[np.float32], others_nd: NDArray[np.float32]) -> list[float]:
    return learnt_distances(learnt_md, others_nd).tolist() if len(others_nd) else []


def _scores(judged: Sequence[WatchedTask], new: Sequence[WatchedTask]) -> _Series:
    # Of images that it has learnt from a version is sure: they say nothing about new ones.
    return _Series(
        signal="scores",
        known=[[row.confidence for row in judged]],
        values=[[row.confidence for row in new]],
        tasks=[row.task_id for row in new],
        embeddings_nd=_stack(new),
        two_sided=True,
    )


def _corrections(project_id: int, tag: str, services: Services) -> _Series:
    version = services.registry.peek(model_name(project_id), version_number(tag))
    showing = read_showing(version.path)
    rows = sorted(
        services.store.edit_rows.read(project_id, model_version=tag), key=lambda row: row.version_id
    )
    return _Series(
        signal="corrections",
        known=[() if showing is None else showing.holdout_shares],
        values=[[correction_share(row.edits) for row in rows[-MOST_IMAGES:]]],
        tasks=[],  # they are labelled already
        embeddings_nd=None,
    )


def _state(series: _Series, tag: str, stamp: str) -> DriftState:
    count = len(series.values[0]) if series.values else 0
    ties = [tie_break(tag, series.signal, place) for place in range(count)]
    watched = watch(series.known, series.values, ties, images_per_alarm=THRESHOLD, two_sided=series.two_sided)
    return DriftState(
        model_version=tag,
        signal=series.signal,
        known=len(series.known[0]) if series.known else 0,
        images=count,
        evidence=watched.evidence,
        threshold=math.log10(THRESHOLD),
        strange_share=watched.strange_share,
        alarms=len(watched.alarms),
        first_alarm=watched.alarms[0] + 1 if watched.alarms else None,
        last_alarm=watched.alarms[-1] + 1 if watched.alarms else None,
        tasks=_to_label(series, watched),
        stamp=stamp,
    )


def _to_label(series: _Series, watched: Watched) -> tuple[int, ...]:
    """Return the tasks to label: strange ones since shortly before the last alarm."""
    if not watched.alarms or not series.tasks:
        return ()
    first = max(0, watched.alarms[-1] + 1 - WINDOW)
    late_p = watched.p_n[first:]
    order = first + np.argsort(late_p, kind="stable")
    strange = [int(place) for place in order if watched.p_n[place] < STRANGE] or [int(order[0])]
    places = choose_to_label(strange, series.embeddings_nd, count=TO_LABEL)
    return tuple(series.tasks[place] for place in places)


def _stack(rows: Sequence[WatchedTask]) -> NDArray[np.float32]:
    return np.array([row.embedding_d for row in rows], dtype=np.float32)


def _tell(project_id: int, state: DriftState, services: Services) -> None:
    words = {
        "images": "new images are unlike those that it has learnt from",
        "scores": "its confidence on new images has shifted",
        "corrections": "annotators correct more of its regions than the holdout promised",
    }[state.signal]
    remedy = (
        f"label tasks {', '.join(map(str, state.tasks))} first, then train"
        if state.tasks
        else "train on what annotators have corrected, or look at the newest images"
    )
    log_action(
        logger,
        "drift_found",
        level=logging.WARNING,
        project_id=project_id,
        model_version=state.model_version,
        signal=state.signal,
        image=state.last_alarm,
    )
    if services.settings.notify_url is None:
        return
    services.store.notices.put(
        "drift",
        f"project {project_id}: {state.model_version}: {words} (image {state.last_alarm}); {remedy}",
        key=f"drift-{state.model_version}-{state.signal}-{state.alarms}",
        project_id=project_id,
        facts={
            "version": state.model_version,
            "signal": state.signal,
            "image": state.last_alarm,
            "tasks": list(state.tasks),
        },
    )
