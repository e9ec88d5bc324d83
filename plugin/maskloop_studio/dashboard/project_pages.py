"""The list of projects, and the page of one project with its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from maskloop.errors import MaskloopError
from maskloop_studio.dashboard.dashboard_parts import DashboardParts, Served
from maskloop_studio.dashboard.judging import judging_state, verdict_in_words
from maskloop_studio.dashboard.lookups import (
    PageNumber,
    ProjectNumber,
    Roles,
    find_project,
    no_such_page,
    roles_of,
)
from maskloop_studio.dashboard.project_state import (
    Step,
    class_names,
    next_step,
    reasons_of,
    troubles_of,
)
from maskloop_studio.dashboard.quality import QualityPoint, class_scores, quality_points
from maskloop_studio.dashboard.rendering import PageRenderer
from maskloop_studio.dashboard.studio_titles import StudioTitles
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.database import Store
    from maskloop.store.overview import ProjectCounts
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = ["add_project_pages"]

PROJECTS_A_PAGE = 20
VERSIONS_A_PAGE = 50
VERSIONS_SHOWN = 12  # on the project's page
POINTS = 200  # trainings in a chart
SIGNAL_WORDS_OF_DRIFT = {
    "images": "new images unlike those learnt",
    "scores": "the model's confidence shifts",
    "corrections": "more corrections than promised",
}
CLASS_LINES = 8  # in a chart; the table has all
Below = Annotated[int | None, Query(ge=1, lt=2**31)]


@dataclass(frozen=True, kw_only=True)
class _ProjectCard:
    counts: ProjectCounts
    title: str
    classes: tuple[str, ...]
    champion: ModelVersion | None
    troubles: list[str]
    step: Step
    roles: Roles


class _ProjectPages:
    """Makes the values of the pages; called in threads."""

    def __init__(self, parts: DashboardParts) -> None:
        self._parts = parts
        self._services: Services = parts.services
        self.titles = StudioTitles(lambda: parts.services.client)

    def projects(self, page: int) -> dict[str, Any]:
        store = self._services.store
        numbers = store.projects.ids()
        shown = numbers[(page - 1) * PROJECTS_A_PAGE : page * PROJECTS_A_PAGE]
        if not shown and page > 1:
            raise no_such_page()
        titles = self.titles.of(shown)
        served = {one.project_id: one for one in self._parts.served()}
        cards = [
            self._card(counts, titles.get(counts.project_id, ""), served.get(counts.project_id))
            for counts in store.overview.projects(shown)
        ]
        return {
            "cards": cards,
            "page": page,
            "pages": max(1, -(-len(numbers) // PROJECTS_A_PAGE)),
            "total": len(numbers),
            "queues": self._parts.queue_lengths(),
            "studio": self._services.settings.label_studio_url,
        }

    def _card(self, counts: ProjectCounts, title: str, served: Served | None) -> _ProjectCard:
        roles = roles_of(counts.project_id, self._services.registry)
        classes, config_trouble = class_names(counts.label_config)
        return _ProjectCard(
            counts=counts,
            title=title or f"Project {counts.project_id}",
            classes=classes,
            champion=self._champion(counts.project_id, roles),
            troubles=[
                *troubles_of(counts, served=served, roles=roles, config_trouble=config_trouble),
                *self._drifting(counts.project_id, roles),
            ],
            step=next_step(
                counts,
                roles=roles,
                settings=self._services.settings,
                verdict=self._verdict(counts.project_id, roles),
            ),
            roles=roles,
        )

    def _drifting(self, project_id: int, roles: Roles) -> list[str]:
        """Return a sentence for each signal of the champion that has raised its alarm."""
        if roles.champion is None:
            return []
        states = self._services.store.drifts.of(project_id, f"{model_name(project_id)}-v{roles.champion}")
        return [
            f"Drift, {SIGNAL_WORDS_OF_DRIFT.get(one.signal, one.signal)}: see below which images to label"
            for one in states
            if one.alarms
        ]

    def _verdict(self, project_id: int, roles: Roles) -> str:
        waiting = roles.challenger or roles.shadow
        if waiting is None:
            return ""
        trainings = self._services.store.trainings.of(project_id, limit=POINTS)
        return verdict_in_words(trainings, f"{model_name(project_id)}-v{waiting}")

    def _champion(self, project_id: int, roles: Roles) -> ModelVersion | None:
        if roles.champion is None:
            return None
        try:
            return self._services.registry.peek(model_name(project_id), roles.champion)
        except MaskloopError:  # the list goes on without it; the version's own page says why
            return None

    def project(self, project_id: int) -> dict[str, Any]:
        store, settings = self._services.store, self._services.settings
        counts = find_project(project_id, store)
        served = next((one for one in self._parts.served() if one.project_id == project_id), None)
        card = self._card(counts, self.titles.of([project_id]).get(project_id, ""), served)
        trainings = store.trainings.of(project_id, limit=POINTS)
        points = quality_points(trainings)
        return self._quality_values(points) | {
            "card": card,
            "counts": counts,
            "served": served,
            "roles": card.roles,
            "running": [one for one in trainings if one.status in ("running", "queued")],
            "recent": [one for one in reversed(trainings) if one.status not in ("running", "queued")][:5],
            "holdout": store.overview.holdout(project_id),
            "judging": judging_state(
                counts,
                trainings,
                store.holdout.judgements(project_id),
                settings,
                champion=card.champion,
            ),
            "trials": store.trials.of(project_id)[:3],
            "schedules": _schedules(project_id, store, settings),
            "settings": settings,
            "studio": settings.label_studio_url,
        }

    def _quality_values(self, points: Sequence[QualityPoint]) -> dict[str, Any]:
        classes = class_scores(points)
        return {
            "points": points,
            "shown_points": list(reversed(points))[:VERSIONS_SHOWN],
            "classes": classes,
            "quality_chart": quality_chart(points),
            "class_chart": {
                "kind": "version",
                "x": [point.number for point in points],
                "series": [{"label": row.label, "values": list(row.scores)} for row in classes[:CLASS_LINES]],
            },
        }

    def edits(self, project_id: int) -> dict[str, Any]:
        store = self._services.store
        find_project(project_id, store)
        report = self._parts.edits.of(project_id)
        versions = report.versions
        kinds = ("kept", "nudged", "redrawn", "relabelled", "removed", "added")
        return {
            "project_id": project_id,
            "report": report,
            "shown": list(reversed(versions))[:VERSIONS_SHOWN],
            "edits_chart": {
                "kind": "stack",
                "x": list(range(1, len(versions[-POINTS:]) + 1)),
                "names": [one.model_version for one in versions[-POINTS:]],
                "series": [
                    {"label": kind, "values": [getattr(one.edits, kind) for one in versions[-POINTS:]]}
                    for kind in kinds
                ],
            },
            "saved_chart": {
                "kind": "version",
                "x": list(range(1, len(versions[-POINTS:]) + 1)),
                "names": [one.model_version for one in versions[-POINTS:]],
                "series": [{"label": "work saved", "values": [one.work_saved for one in versions[-POINTS:]]}],
            },
        }

    def labels(self, project_id: int) -> dict[str, Any]:
        store = self._services.store
        find_project(project_id, store)
        days = store.overview.labels_by_day(project_id)
        return {
            "days": days,
            "chart_values": {
                "kind": "day",
                "x": [f"{one.day}" for one in days],
                "series": [{"label": "annotations", "values": [one.annotations for one in days]}],
            },
        }

    def next_tasks(self, project_id: int) -> dict[str, Any]:
        store = self._services.store
        find_project(project_id, store)
        roles = roles_of(project_id, self._services.registry)
        tag = None if roles.champion is None else f"{model_name(project_id)}-v{roles.champion}"
        tasks = () if tag is None else store.overview.next_tasks(project_id, tag)
        scored, pushed = (0, 0) if tag is None else store.scores.counts(project_id, tag)
        return {
            "project_id": project_id,
            "tag": tag,
            "tasks": [(task, reasons_of(task)) for task in tasks],
            "scored": scored,
            "pushed": pushed,
            "strategy": self._services.settings.strategy,
            "studio": self._services.settings.label_studio_url,
        }

    def drift(self, project_id: int) -> dict[str, Any]:
        store = self._services.store
        find_project(project_id, store)
        roles = roles_of(project_id, self._services.registry)
        tag = None if roles.champion is None else f"{model_name(project_id)}-v{roles.champion}"
        return {
            "project_id": project_id,
            "tag": tag,
            "states": () if tag is None else store.drifts.of(project_id, tag),
            "words": SIGNAL_WORDS_OF_DRIFT,
            "minutes": self._services.settings.sync_minutes,
            "studio": self._services.settings.label_studio_url,
        }

    def work_saved(self, project_id: int) -> dict[str, Any]:
        store = self._services.store
        find_project(project_id, store)
        versions = self._parts.edits.of(project_id).versions
        return {"saved": versions[-1] if versions else None}

    def versions(self, project_id: int, below: int | None) -> dict[str, Any]:
        registry, name = self._services.registry, model_name(project_id)
        counts = find_project(project_id, self._services.store)
        found = registry.newest(name, limit=VERSIONS_A_PAGE + 1, below=below)
        shown = found[:VERSIONS_A_PAGE]
        points = quality_points(self._services.store.trainings.of(project_id, limit=1000))
        return {
            "counts": counts,
            "versions": shown,
            "older": shown[-1].number if len(found) > VERSIONS_A_PAGE else None,
            "below": below,
            "points": {point.number: point for point in points},
            "roles": roles_of(project_id, registry),
            "title": self.titles.of([project_id]).get(project_id) or f"Project {project_id}",
        }


def quality_chart(points: Sequence[QualityPoint]) -> dict[str, Any]:
    """Return the values of the chart of quality by version."""
    return {
        "kind": "version",
        "x": [point.number for point in points],
        "series": [
            {
                "label": "score",
                "values": [point.score for point in points],
                "low": [point.low for point in points],
                "high": [point.high for point in points],
            },
            *(
                {"label": label, "values": [getattr(point, name) for point in points]}
                for name, label in (("ap50", "AP50"), ("pq", "PQ"), ("miou", "mIoU"))
            ),
        ],
    }


def add_project_pages(router: APIRouter, parts: DashboardParts, renderer: PageRenderer) -> None:
    """Add the pages of projects."""
    pages = _ProjectPages(parts)

    @router.get("")
    async def projects(request: Request, page: PageNumber = 1) -> Response:
        values = await parts.run(lambda: pages.projects(page))
        return renderer.page(request, "projects.html", values)

    @router.get("/projects/{project_id}")
    async def project(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.project(project_id))
        return renderer.page(request, "project.html", values)

    @router.get("/projects/{project_id}/edits")
    async def edits(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.edits(project_id))
        return renderer.page(request, "project_edits.html", values)

    @router.get("/projects/{project_id}/labels")
    async def labels(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.labels(project_id))
        return renderer.page(request, "project_labels.html", values)

    @router.get("/projects/{project_id}/next")
    async def next_tasks(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.next_tasks(project_id))
        return renderer.page(request, "project_next.html", values)

    @router.get("/projects/{project_id}/drift")
    async def drift(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.drift(project_id))
        return renderer.page(request, "project_drift.html", values)

    @router.get("/projects/{project_id}/work-saved")
    async def work_saved(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.work_saved(project_id))
        return renderer.page(request, "work_saved.html", values)

    @router.get("/projects/{project_id}/versions")
    async def versions(request: Request, project_id: ProjectNumber, below: Below = None) -> Response:
        values = await parts.run(lambda: pages.versions(project_id, below))
        return renderer.page(request, "versions.html", values)


def _schedules(project_id: int, store: Store, settings: Settings) -> list[tuple[str, str, str]]:
    """Return (what, cron line, where it is set) of a project's schedules."""
    options = store.projects.options(project_id)
    rows = []
    for name, words, general in (
        ("train", "training, where there are new corrections", settings.train_cron),
        ("prelabel", "predictions of unlabelled tasks", settings.prelabel_cron),
    ):
        own = options.get(f"{name}_cron")
        if own or general:
            origin = "the project's options" if own else f"MASKLOOP_{name.upper()}_CRON"
            rows.append((words, str(own or general), origin))
    return rows
