"""Annotators: what each did to predictions, and how far those agree who drew on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from maskloop_studio.dashboard.kept_reports import KeptReports
from maskloop_studio.dashboard.lookups import ProjectNumber, find_project
from maskloop_studio.dashboard.studio_people import StudioPeople
from maskloop_studio.projects.annotators import annotator_names, drawn_by_several

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maskloop.curation.agreement.pairwise import ProjectAgreement
    from maskloop_studio.dashboard.dashboard_parts import DashboardParts
    from maskloop_studio.dashboard.rendering import PageRenderer

__all__ = ["add_people_pages"]

MOST_TASKS = 1000  # that several people annotated, the newest: each image is compared pixel by pixel
MOST_RELABELLED = 20


@dataclass(frozen=True, kw_only=True)
class _Agreed:
    found: ProjectAgreement
    users: frozenset[int]
    is_part: bool  # more tasks have several annotations than were compared
    with_boxes: int  # annotated images that are not compared


class _PeoplePages:
    """Makes the values of the pages; called in threads."""

    def __init__(self, parts: DashboardParts) -> None:
        services = parts.services
        self._services, self._edits = services, parts.edits
        self._studio = StudioPeople(lambda: services.client)
        self._agreed: KeptReports[_Agreed] = KeptReports(
            "agreement", self._measure, lambda number: services.store.overview.corrections_stamp(number)
        )

    def _measure(self, project_id: int) -> _Agreed:
        from maskloop.curation.agreement.pairwise import measure_agreement

        store = self._services.store
        corrections = store.corrections.at(store.overview.drawn_twice(project_id, limit=MOST_TASKS))
        return _Agreed(
            found=measure_agreement(drawn_by_several(corrections)),
            users=frozenset(one.annotator for one in corrections if one.annotator is not None),
            is_part=len({one.task_id for one in corrections}) >= MOST_TASKS,
            with_boxes=sum(one.boxes > 0 for one in corrections),
        )

    def people(self, project_id: int) -> dict[str, Any]:
        find_project(project_id, self._services.store)
        return {"project_id": project_id}

    def edits(self, project_id: int) -> dict[str, Any]:
        find_project(project_id, self._services.store)
        summary = self._edits.of(project_id)
        names = self._names(one.annotator for one in summary.annotators)
        return {
            "lines": [(_name(names, one.annotator), one) for one in summary.annotators],
            "weights": summary.weights,
        }

    def agreement(self, project_id: int) -> dict[str, Any]:
        find_project(project_id, self._services.store)
        agreed = self._agreed.of(project_id)
        names, found = self._names(agreed.users), agreed.found
        pairs = [
            (f"{_name(names, first)} and {_name(names, second)}", one)
            for (first, second), one in found.pairs.items()
        ]
        return {
            "project_id": project_id,
            "found": found,
            "is_part": agreed.is_part,
            "with_boxes": agreed.with_boxes,
            "most": MOST_TASKS,
            "pairs": pairs,
            "classes": list(found.classes.items()),
            "relabelled": found.whole.relabelled.most_common(MOST_RELABELLED),
        }

    def _names(self, users: Any) -> Mapping[int, str]:
        if self._services.settings.hide_annotators:
            return annotator_names(users, hidden=True)
        return annotator_names(users, hidden=False, known=self._studio.names())


def add_people_pages(router: APIRouter, parts: DashboardParts, renderer: PageRenderer) -> None:
    """Add the page of annotators with its parts."""
    pages = _PeoplePages(parts)

    @router.get("/projects/{project_id}/annotators")
    async def people(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.people(project_id))
        return renderer.page(request, "annotators.html", values)

    @router.get("/projects/{project_id}/annotators/edits")
    async def edits_by_person(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.edits(project_id))
        return renderer.page(request, "annotator_edits.html", values)

    @router.get("/projects/{project_id}/annotators/agreement")
    async def agreement(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.agreement(project_id))
        return renderer.page(request, "agreement.html", values)


def _name(names: Mapping[int, str], user: int | None) -> str:
    return "not known" if user is None else names.get(user, str(user))
