"""Predict a project's unlabelled tasks with its champion and push the predictions to Label Studio."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.log import log_action
from maskloop.queue.lease import JobCancelled
from maskloop.store.jobs import JobKind, JobStatus
from maskloop.types import ShowMode
from maskloop_studio.dispatch import request
from maskloop_studio.prelabel.arrange import arrange_scored
from maskloop_studio.prelabel.clean_up import clean_up
from maskloop_studio.prelabel.progress import OnProgress, Outdated, Watch, is_outdated
from maskloop_studio.prelabel.push import PushCounts, PushTarget, push_scored
from maskloop_studio.prelabel.score import score_unlabelled
from maskloop_studio.prelabel.trim import trim_stored
from maskloop_studio.projects.announcement import Announcer
from maskloop_studio.projects.champion import show_stored
from maskloop_studio.projects.kept_floors import are_raised
from maskloop_studio.projects.prediction_plan import ProjectPlan, plan_project
from maskloop_studio.projects.task_order import keep_order_in_step
from maskloop_studio.projects.training import ensure_champion

if TYPE_CHECKING:
    from maskloop.queue.spec import JobQueue
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = ["PrelabelReport", "prelabel_project", "renew_project"]

logger = logging.getLogger(__name__)
REASONS_SHOWN = 20
# Between the attempts at tasks that could not be predicted: doubled each time. An hour is what an image that
# never comes may cost.
FIRST_RETRY_S, MAX_RETRY_S = 30.0, 3600.0
SHOWN_REASON_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class PrelabelReport:
    """What a prelabelling came to."""

    model_version: str  # tag
    pushed: int  # new predictions
    changed: int  # predictions whose score and cluster were set anew
    replaced: int  # of these: empty ones of a failed image, which got their regions
    in_hand: int  # tasks left alone because they have a draft
    failed: int  # tasks without a prediction; they are tried again
    reasons: tuple[str, ...]  # of the first of them
    removed: int  # stale predictions
    seconds: dict[str, float]  # by step
    kept_floors: dict[str, float]  # label -> least displayed score that is drawn, by what annotators kept
    trimmed: int = 0  # predictions that lost regions by these
    attempts: int = 0  # prelabellings in a row that left tasks without a prediction

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return dataclasses.asdict(self) | {"reasons": list(self.reasons)}


def _ignore(_done: int, _total: int) -> None:
    pass


def renew_project(project_id: int, services: Services, *, on_progress: OnProgress = _ignore) -> int:
    """Do `prelabel_project` and return how many predictions were pushed."""
    return prelabel_project(project_id, services, on_progress=on_progress).pushed


def prelabel_project(
    project_id: int, services: Services, *, on_progress: OnProgress = _ignore
) -> PrelabelReport:
    """Push a prediction of the champion, with score and cluster, for every unlabelled task that has none.

    Afterwards `project.model_version` names the champion, so that annotators see these predictions and
    Label Studio's uncertainty sampling orders by their scores; then predictions of versions that annotators
    do not see any more are removed. Killed anywhere, it goes on where it was. Tasks that could not be
    predicted get nothing stored; a job that waits longer and longer tries them again.

    Args:
        project_id: Label Studio's number.
        services: what to work with.
        on_progress: gets at each step how much is done, and of how much: a task is one step when it is
            scored and one when it is pushed; may raise to end it.

    Raises:
        ConfigurationError: the strategy of the settings cannot be used.
        LabelConfigError: the label config offers nothing to draw with.
        StudioError: Label Studio does not answer.
    """
    pushed = 0
    while True:
        champion = ensure_champion(project_id, registry=services.registry, settings=services.settings)
        counts = PushCounts()
        try:
            report = _prelabel(project_id, champion, services, on_progress, counts)
        except Outdated:
            # Rolled back, or promoted, meanwhile: annotators are to see the present champion's.
            services.store.shards.cancel(project_id)
            pushed += counts.pushed
        except JobCancelled:
            services.store.shards.cancel(project_id)
            raise
        else:
            report = dataclasses.replace(report, pushed=pushed + report.pushed)
            if not report.failed:
                return report
            return _retry_later(project_id, report, store=services.store, queue=services.queue)


def _retry_later(project_id: int, report: PrelabelReport, *, store: Store, queue: JobQueue) -> PrelabelReport:
    """Ask for another prelabelling after a pause; return the report with the number of attempts."""
    before = store.jobs.find(statuses=[JobStatus.DONE], kind=JobKind.PRELABEL, project_id=project_id, limit=1)
    last = (before[0].outcome or {}).get("attempts") if before else None
    attempts = 1 + (last if isinstance(last, int) else 0)
    delay_s = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 20), MAX_RETRY_S)
    reason = f"{report.failed} tasks could not be predicted: {'; '.join(report.reasons)}"
    request(
        JobKind.PRELABEL, project_id, reason[:SHOWN_REASON_CHARS], store=store, queue=queue, quiet_s=delay_s
    )
    return dataclasses.replace(report, attempts=attempts)


def _prelabel(
    project_id: int,
    champion: ModelVersion,
    services: Services,
    on_progress: OnProgress,
    counts: PushCounts,
) -> PrelabelReport:
    settings, store, client, registry = (
        services.settings,
        services.store,
        services.client,
        services.registry,
    )
    tag, seconds = champion.tag, {}
    # First of all: a label config that cannot be used ends this at once.
    plan = plan_project(
        project_id,
        champion,
        settings=settings,
        client=client,
        projects=store.projects,
        corrections=store.corrections,
    )
    target = PushTarget(project_id=project_id, tag=tag, client=client, store=store)
    watch = Watch(target, champion, registry, on_progress)
    at = time.monotonic()

    def lap(step: str) -> None:
        nonlocal at
        seconds[step], at = round(time.monotonic() - at, 3), time.monotonic()

    failed_shards = score_unlabelled(target, plan, services, check=watch)
    lap("score")
    arrange_scored(project_id, champion, store=store, settings=settings)
    lap("arrange")
    push_scored(target, counts, connections=settings.push_connections, check=watch)
    if is_outdated(champion, registry):
        raise Outdated
    # Without this Label Studio would call live for every task that is opened, and order at random.
    show_stored(project_id, champion, services)
    announcer = Announcer(project_id, settings=settings, client=client, projects=store.projects)
    if store.pushes.has_any(project_id, tag):
        announcer.shown(tag, None if plan.showing is None else plan.showing.in_words())
    trimmed = _trim(plan, target, settings, watch)
    keep_order_in_step(project_id, client, tabs=settings.order_tabs)
    lap("push")
    removed = clean_up(target, champion, registry=registry, settings=settings, check=watch)
    lap("clean up")
    errors = store.scores.errors(project_id, tag)
    report = PrelabelReport(
        model_version=tag,
        pushed=counts.pushed,
        changed=counts.changed,
        replaced=counts.replaced,
        in_hand=counts.in_hand,
        failed=len(errors) + sum(len(shard.subject_ids) for shard in failed_shards),
        reasons=(
            *(f"{shard.name}, {len(shard.subject_ids)} tasks: {shard.error}" for shard in failed_shards),
            *(f"task {number}: {error}" for number, error in sorted(errors.items())),
        )[:REASONS_SHOWN],
        removed=removed,
        seconds=seconds,
        kept_floors=dict(plan.kept_floors),
        trimmed=trimmed,
    )
    log_action(
        logger,
        "predictions_renewed",
        project_id=project_id,
        model_version=tag,
        pushed=report.pushed,
        replaced=report.replaced,
        failed=report.failed,
        duration_s=sum(seconds.values()),
    )
    return report


def _trim(plan: ProjectPlan, target: PushTarget, settings: Settings, watch: Watch) -> int:
    """Take regions that are no longer worth drawing out of stored predictions, where they are there."""
    if plan.show is not ShowMode.AUTO:
        return 0
    floors = {label: floor for label, floor in plan.kept_floors.items() if plan.of_project.is_trimmed(label)}
    done = target.store.jobs.find(
        statuses=[JobStatus.DONE], kind=JobKind.PRELABEL, project_id=target.project_id, limit=1
    )
    outcome = (done[0].outcome or {}) if done else {}
    before = outcome.get("kept_floors") if outcome.get("model_version") == target.tag else None
    if not are_raised(floors, before if isinstance(before, dict) else {}):
        return 0
    return trim_stored(target, floors, connections=settings.push_connections, check=watch)
