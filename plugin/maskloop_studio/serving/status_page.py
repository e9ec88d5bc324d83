"""The status page: jobs, annotations set aside, models, trainings; plain HTML, no scripts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from maskloop.store.database import Store
from maskloop.store.jobs import Job, JobKind, JobStatus
from maskloop.store.trainings import Training
from maskloop_studio.serving.model_directory import ServedState

__all__ = ["render_status"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .8rem .3rem 0 }
th { border-bottom: 1px solid #999; font-weight: 600 } td { border-bottom: 1px solid #ddd }
.num { text-align: right; font-variant-numeric: tabular-nums }
"""
LAST = 20
MAX_SET_ASIDE = 50  # rows
MAX_REASON = 500  # characters
OPEN = (JobStatus.WAITING, JobStatus.RUNNING, JobStatus.DEAD)


def render_status(
    store: Store,
    queue_lengths: Mapping[str, int],
    models: Sequence[ServedState] = (),
    *,
    predictions: tuple[int, int] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        store: the database.
        queue_lengths: queue -> jobs that wait in it; empty where it does not answer.
        models: what answers for each project.
        predictions: requests that are worked on or wait, and how many are worked on at once.
    """
    projects = [_project_row(store, project_id) for project_id in sorted(store.projects.ids())]
    waiting = [(name, str(count)) for name, count in queue_lengths.items()] or [("queue", "unreachable")]
    events = [(status, str(count)) for status, count in sorted(store.jobs.counts().items())]
    served = [
        (str(state.project_id), state.tag, state.showing, state.shadow or "", state.trouble or "")
        for state in models
    ]
    later = [
        _prelabelling_row(job) for job in store.jobs.find(statuses=OPEN, kind=JobKind.PRELABEL, limit=LAST)
    ]
    set_aside = _set_aside_rows(store)
    live = [] if predictions is None else [tuple(str(number) for number in predictions)]
    trainings = [_training_row(training) for training in reversed(store.trainings.of()[-LAST:])]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>maskloop</title><style>{STYLE}</style>"
        "<h1>maskloop</h1>"
        + _table("Jobs waiting", ("queue", "jobs"), waiting)
        + _table("Jobs", ("status", "jobs"), events)
        + _table("Projects", ("project", "annotations set aside", "state"), projects)
        + _table("Annotations set aside", ("project", "task", "annotation", "reason"), set_aside)
        + _table("Predictions asked for now", ("in hand or waiting", "threads"), live)
        + _table(
            "Predictions in the background",
            ("job", "project", "status", "reason", "progress", "tries", "next try", "last error"),
            later,
        )
        + _table("Models", ("project", "serves", "for annotators", "shadow", "problem"), served)
        + _table(
            "Trainings",
            ("number", "project", "status", "reason", "progress", "AP50", "PQ", "mIoU", "verdict"),
            trainings,
        )
        + "<p><a href=dashboard>Dashboard</a> · <a href=docs>API</a> · "
        + "<a href=metrics>Prometheus metrics</a></p></html>"
    )


def _project_row(store: Store, project_id: int) -> tuple[str, ...]:
    absence = store.projects.absences().get(project_id)
    state = (
        "connected" if absence is None else f"not found in Label Studio since {absence.since:%Y-%m-%d %H:%M}"
    )
    count = store.annotations.count_set_aside(project_id)
    named = f"{count}: see maskloop doctor {project_id}" if count else "0"
    return str(project_id), named, state


def _set_aside_rows(store: Store) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for project_id in sorted(store.projects.ids()):
        rows += [
            (str(project_id), str(one.task_id), str(one.annotation_id), one.reason[:MAX_REASON])
            for one in store.annotations.set_aside(project_id, limit=MAX_SET_ASIDE - len(rows))
        ]
        if len(rows) >= MAX_SET_ASIDE:
            break
    return rows


def _prelabelling_row(job: Job) -> tuple[str, ...]:
    return (
        job.name,
        str(job.project_id),
        job.status.value,
        job.action,
        f"{job.done}/{job.total}" if job.total else "",
        str(job.attempts),
        f"{job.due_at:%Y-%m-%d %H:%M:%S} UTC" if job.status is JobStatus.WAITING else "",
        job.error or "",
    )


def _training_row(training: Training) -> tuple[str, ...]:
    outcome = training.outcome or {}
    after = outcome.get("challenger_metrics")
    numbers = [f"{after[key]:.3f}" for key in ("ap50", "pq", "miou")] if isinstance(after, dict) else [""] * 3
    verdict = str(outcome.get("reason") or training.error or "")
    progress = f"{training.step}/{training.steps}" if training.steps else ""
    return (
        str(training.training_id),
        str(training.project_id),
        training.status,
        training.reason,
        progress,
        *numbers,
        verdict,
    )


def _table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    empty = "" if rows else "<p>none yet</p>"
    return f"<h2>{html.escape(title)}</h2><table><tr>{cells}</tr>{body}</table>{empty}"
