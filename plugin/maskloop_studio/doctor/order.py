"""Checks of what decides which task an annotator gets next; where one fails, maskloop's order is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from statistics import fmean

from maskloop.store.job_types import JobKind, JobStatus
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import Check
from maskloop_studio.doctor.findings import Finding, good, hint, trouble
from maskloop_studio.labelstudio.tabs import score_filter
from maskloop_studio.projects.task_order import SAMPLING, tab_troubles

__all__ = ["ORDER_CHECKS"]

LOOKED_AT, ENOUGH = 20, 10  # tasks that got labels lately
PASSED_OVER = 0.25  # the mean of ten shares; by chance it is 0.5, and below 0.25 once in 300 times


def check_shown_version(context: CheckContext) -> Iterator[Finding]:
    """Annotators see the champion's stored predictions."""
    shown, champion = context.project.model_version, context.champion
    stored = context.client.prediction_counts(context.number)
    place = f"model version that project {context.number} shows"
    remedy = f"run `maskloop prelabel {context.number}`"
    if champion is None:
        yield hint(place, expected="a champion's", got=shown or "none", remedy=remedy)
    elif shown != champion:
        yield trouble(
            place,
            expected=f"{champion}: with another one tasks come in no order",
            got=shown or "none",
            remedy=remedy,
        )
    elif not stored.get(champion):
        yield trouble(place, expected=f"stored predictions of {champion}", got="none", remedy=remedy)
    else:
        yield good(place, f"{champion}, {stored[champion]} predictions")
    others = {version: count for version, count in stored.items() if version != champion}
    if len(others) > context.settings.keep_predictions:
        yield hint(
            "stored predictions",
            expected=f"of {context.settings.keep_predictions} earlier versions at most",
            got=", ".join(f"{version}: {count}" for version, count in sorted(others.items())),
            remedy="those of annotated tasks stay on purpose; the next prelabelling removes the rest",
        )


def check_sampling(context: CheckContext) -> Iterator[Finding]:
    """Label Studio orders tasks by the scores of predictions."""
    project = context.project
    if project.sampling == SAMPLING:
        yield good("task sampling", SAMPLING)
        return
    yield trouble(
        "task sampling",
        expected=SAMPLING,
        got=project.sampling or "none",
        remedy=f"run `maskloop connect {project.id}` again, or choose it in the project's settings",
    )


def check_overlap(context: CheckContext) -> Iterator[Finding]:
    """No other setting of the project overrides the order."""
    raw = context.project.raw
    if int(raw.get("maximum_annotations") or 1) > 1:
        yield hint(
            "annotations per task",
            expected="1",
            got=str(raw["maximum_annotations"]),
            remedy="none is needed, but Label Studio first gives tasks that others began, in no order",
        )
    if raw.get("show_overlap_first"):
        yield hint(
            "tasks with overlap first",
            expected="off",
            got="on",
            remedy="none is needed, but these come before all others, in order among themselves",
        )
    if raw.get("show_collab_predictions") is False:
        yield hint(
            "predictions shown to annotators",
            expected="on",
            got="off",
            remedy="switch on 'Use predictions to prelabel tasks' in the project's settings",
        )
    yield good("annotations per task", str(raw.get("maximum_annotations") or 1))


def check_tabs(context: CheckContext) -> Iterator[Finding]:
    """Our tabs of the Data Manager exist and have our order."""
    count = context.settings.order_tabs
    troubles = tab_troubles(context.client.views(context.number), count)
    for text in troubles:
        yield trouble(
            "tabs of the Data Manager",
            expected=f"{count} of ours, ordered by score",
            got=text,
            remedy=f"run `maskloop connect {context.number}` again; MASKLOOP_ORDER_TABS sets how many",
        )
    if not troubles:
        yield good("tabs of the Data Manager", f"{count} of ours, with our order")


def check_order_followed(context: CheckContext) -> Iterator[Finding]:
    """The tasks that were annotated lately were the first of our order.

    With two members or more Label Studio draws tasks by chance. Its API does not list the members of a
    project, so this shows only in which tasks were annotated.
    """
    client = context.client
    scores = client.latest_scores(context.number, LOOKED_AT, since=_settled_at(context))
    left = client.count_unlabelled(context.number, score_filter("empty", False))
    place = "order of the tasks done since the last prelabelling"
    if len(scores) < ENOUGH or left < ENOUGH:
        yield good(place, f"{len(scores)} done, {left} left: too few to judge")
        return
    passed = [
        client.count_unlabelled(context.number, score_filter("less", score)) / left
        for score in scores[:ENOUGH]
    ]
    share = fmean(passed)
    got = f"of the tasks left, {share:.0%} should have come before the last {len(passed)}"
    if share < PASSED_OVER:
        yield good(place, got)
        return
    yield trouble(
        place,
        expected="those with the lowest scores",
        got=got,
        remedy="if the project has two members or more, Label Studio draws by chance: let each annotator use "
        "a tab of their own (MASKLOOP_ORDER_TABS) and 'Label Tasks As Displayed'; else see the "
        "other findings, and whether tasks are picked by hand",
    )


def check_unpredicted(context: CheckContext) -> Iterator[Finding]:
    """Every task without labels has a prediction of the version that is shown."""
    client = context.client
    left = client.count_unlabelled(context.number)
    bare = client.count_unlabelled(context.number, score_filter("empty", True))
    place = f"unlabelled tasks of project {context.number}"
    if not bare:
        yield good(place, f"{left}, all with a prediction")
        return
    yield hint(
        place,
        expected="all with a prediction of the version that is shown",
        got=f"{bare} of {left} without: they come last, or never",
        remedy=f"run `maskloop prelabel {context.number}`; see `maskloop jobs list`",
    )


def _settled_at(context: CheckContext) -> datetime | None:
    """Return when the scores were set last: each prelabelling sets them anew."""
    done = context.store.jobs.find(
        statuses=[JobStatus.DONE], kind=JobKind.PRELABEL, project_id=context.number, limit=1
    )
    return done[0].finished_at if done else None


ORDER_CHECKS: tuple[Check, ...] = (
    check_shown_version,
    check_sampling,
    check_overlap,
    check_tabs,
    check_order_followed,
    check_unpredicted,
)
