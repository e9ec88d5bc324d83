"""Jobs with their leases and workers, and trainings while they run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop.store.audit import Actor, ActorKind, AuditAction
from maskloop.store.jobs import Job, JobKind, JobStatus
from maskloop_studio.dashboard.dashboard_parts import DashboardParts
from maskloop_studio.dashboard.lookups import JobNumber, ProjectNumber, find_project
from maskloop_studio.dashboard.page_guard import PageGuard, read_form
from maskloop_studio.dashboard.quality import quality_points
from maskloop_studio.dashboard.rendering import PageRenderer
from maskloop_studio.dispatch import request as request_job
from maskloop_studio.dispatch import try_again
from maskloop_studio.errors import NotFoundError
from maskloop_studio.projects.audit_trail import record_job
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.queue.workers import WorkerState
    from maskloop.store.trainings import Training
    from maskloop_studio.services import Services

__all__ = ["add_job_pages"]

logger = logging.getLogger(__name__)
JOBS_A_PAGE = 50
CURVE_POINTS = 400
Show: TypeAlias = Literal["open", "failed", "all"]
Before = Annotated[int | None, Query(ge=1, lt=2**62)]
STATUSES: dict[str, tuple[JobStatus, ...]] = {
    "open": (JobStatus.WAITING, JobStatus.RUNNING),
    "failed": (JobStatus.DEAD,),
    "all": (),
}


@dataclass(frozen=True, kw_only=True)
class _Lease:
    job: Job
    host: str
    process: str
    until: datetime | None


class _JobPages:
    """Makes the values of the pages; called in threads."""

    def __init__(self, parts: DashboardParts) -> None:
        self._parts = parts
        self._services: Services = parts.services

    def jobs(self, show: str, project: int | None, before: int | None) -> dict[str, Any]:
        jobs = self._services.store.jobs
        found = jobs.find(
            statuses=STATUSES[show], project_id=project, before_id=before, limit=JOBS_A_PAGE + 1
        )
        newest_first = found[::-1]
        running = jobs.find(statuses=[JobStatus.RUNNING], limit=JOBS_A_PAGE)
        workers, trouble = self._workers()
        return {
            "jobs": newest_first[:JOBS_A_PAGE],
            "older": newest_first[JOBS_A_PAGE - 1].job_id if len(found) > JOBS_A_PAGE else None,
            "show": show,
            "project": project,
            "counts": jobs.counts(project),
            "queues": self._parts.queue_lengths(),
            "leases": [_lease(job) for job in running],
            "workers": workers,
            "workers_trouble": trouble,
        }

    def _workers(self) -> tuple[list[WorkerState], str | None]:
        from maskloop.queue.valkey import connect_queue
        from maskloop.queue.workers import worker_states

        try:
            connection = connect_queue(self._services.settings)
            try:
                return worker_states(connection), None
            finally:
                connection.close()
        except MaskloopError as exc:
            return [], str(exc)

    def training(self, number: int) -> dict[str, Any]:
        store = self._services.store
        training = store.trainings.get(number)
        if training is None:
            raise NotFoundError(
                f"training {number}",
                expected="the number of a training",
                got="another",
                remedy="the list of jobs has all trainings",
            )
        job = store.jobs.get(number)
        points = quality_points([training])
        curve, trouble = self._curve(training)
        return {
            "training": training,
            "job": job,
            "is_live": training.status in ("queued", "running"),
            "point": points[0] if points else None,
            "curve": curve,
            "curve_trouble": trouble,
            "curve_chart": {
                "kind": "step",
                "x": [step for step, _ in curve],
                "series": [{"label": "loss", "values": [loss for _, loss in curve]}],
            },
            "details": {} if job is None else job.details,
        }

    def _curve(self, training: Training) -> tuple[list[tuple[int, float]], str | None]:
        """Return (step, loss) as the registry has recorded them, thinned out; or why there is none."""
        key = f"{JobKind.TRAINING.value}-{training.training_id}"
        try:
            curve = self._services.registry.losses(model_name(training.project_id), key)
        except MaskloopError as exc:
            return [], str(exc)
        stride = -(-len(curve) // CURVE_POINTS) or 1
        return [*curve[:-1:stride], *curve[-1:]], None

    def retry(self, number: int, user: str) -> tuple[Job, str]:
        job = self._job(number)
        done = try_again(job, store=self._services.store, queue=self._services.queue)
        log_action(logger, "job_retried", job_id=job.name, project_id=job.project_id, user=user)
        if done is not None:
            record_job(job, AuditAction.RETRIED, _actor(user), self._services.store)
        return job, "nothing" if done is None else "retried"

    def cancel(self, number: int, user: str) -> tuple[Job, str]:
        job = self._job(number)
        done = self._services.store.jobs.cancel(number)
        log_action(logger, "job_cancelled", job_id=job.name, project_id=job.project_id, user=user)
        if done is not None:
            record_job(job, AuditAction.CANCELLED, _actor(user), self._services.store)
        return job, "nothing" if done is None else "cancelled"

    def train(self, project_id: int, user: str) -> int:
        store = self._services.store
        find_project(project_id, store)
        number = request_job(
            JobKind.TRAINING, project_id, f"dashboard, {user}", store=store, queue=self._services.queue
        )
        log_action(logger, "training_requested", project_id=project_id, job_id=number, user=user)
        record_job(self._job(number), AuditAction.REQUESTED, _actor(user), store)
        return number

    def _job(self, number: int) -> Job:
        job = self._services.store.jobs.get(number)
        if job is None:
            raise NotFoundError(
                f"job {number}",
                expected="a job of the list",
                got="none, or one that was deleted after its time",
                remedy="reload the list of jobs",
            )
        return job


def add_job_pages(router: APIRouter, parts: DashboardParts, renderer: PageRenderer, guard: PageGuard) -> None:
    """Add the pages of jobs and trainings, and their actions."""
    pages = _JobPages(parts)

    def back(request: Request, path: str, notice: str) -> Response:
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/dashboard/{path}?notice={notice}", status_code=303)

    @router.get("/jobs")
    async def jobs(
        request: Request, show: Show = "open", project: Before = None, before: Before = None
    ) -> Response:
        values = await parts.run(lambda: pages.jobs(show, project, before))
        return renderer.page(request, "jobs.html", values)

    @router.post("/jobs/{number}/retry")
    async def retry(request: Request, number: JobNumber) -> Response:
        user = guard.check_action(request, await read_form(request))
        _, notice = await parts.run(lambda: pages.retry(number, user))
        return back(request, "jobs", notice)

    @router.post("/jobs/{number}/cancel")
    async def cancel(request: Request, number: JobNumber) -> Response:
        user = guard.check_action(request, await read_form(request))
        job, notice = await parts.run(lambda: pages.cancel(number, user))
        is_training = job.kind is JobKind.TRAINING
        return back(request, f"trainings/{number}" if is_training else "jobs", notice)

    @router.get("/trainings/{number}")
    async def training(request: Request, number: JobNumber) -> Response:
        values = await parts.run(lambda: pages.training(number))
        return renderer.page(request, "training.html", values)

    @router.get("/trainings/{number}/live")
    async def live(request: Request, number: JobNumber) -> Response:
        values = await parts.run(lambda: pages.training(number))
        return renderer.page(request, "training_live.html", values)

    @router.post("/projects/{project_id}/train")
    async def train(request: Request, project_id: ProjectNumber) -> Response:
        user = guard.check_action(request, await read_form(request))
        number = await parts.run(lambda: pages.train(project_id, user))
        return back(request, f"trainings/{number}", "training")


def _actor(user: str) -> Actor:
    return Actor(kind=ActorKind.DASHBOARD, name=user)


def _lease(job: Job) -> _Lease:
    host, _, rest = (job.owner or "").partition(":")
    return _Lease(job=job, host=host, process=rest.partition(":")[0], until=job.lease_until)
