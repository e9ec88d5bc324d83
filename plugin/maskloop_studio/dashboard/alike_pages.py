"""Images that are there twice, nearly twice, or unlike all others: as `maskloop images` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from maskloop_studio.dashboard.kept_reports import KeptReports
from maskloop_studio.dashboard.lookups import ProjectNumber, find_project
from maskloop_studio.projects.task_image_facts import task_image_facts

if TYPE_CHECKING:
    from maskloop.curation.duplicates.alike import AlikePair
    from maskloop_studio.dashboard.dashboard_parts import DashboardParts
    from maskloop_studio.dashboard.rendering import PageRenderer
    from maskloop_studio.dashboard.small_pictures import SmallPictures
    from maskloop_studio.services import Services

__all__ = ["add_alike_pages"]

MOST_IMAGES = 10_000  # the newest: every pair is compared, about two seconds
SHOWN_PAIRS, SHOWN_OUTLIERS = 30, 24
HASH_DISTANCE, EMBEDDING_DISTANCE = 0.1, 0.02  # as the command's
TaskNumber = Annotated[int, Path(ge=1, lt=2**62)]


@dataclass(frozen=True, kw_only=True)
class _Alike:
    images: int
    embedded: int  # of them: seen by the champion
    pairs: int
    first_pairs: tuple[AlikePair, ...]
    outliers: tuple[tuple[int, float], ...]  # task, distance to its fifth neighbour


class _AlikePages:
    """Makes the values of the pages; called in threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reports: KeptReports[_Alike] = KeptReports(
            "alike images", self._find, lambda number: services.store.overview.corrections_stamp(number)
        )

    def _find(self, project_id: int) -> _Alike:
        from maskloop.curation.duplicates.alike import find_alike, find_outliers

        facts = task_image_facts(project_id, self._services, newest=MOST_IMAGES)
        pairs = find_alike(facts, hash_distance=HASH_DISTANCE, embedding_distance=EMBEDDING_DISTANCE)
        return _Alike(
            images=len(facts),
            embedded=sum(one.embedding_d is not None for one in facts),
            pairs=len(pairs),
            first_pairs=tuple(pairs[:SHOWN_PAIRS]),
            outliers=tuple(find_outliers(facts)[:SHOWN_OUTLIERS]),
        )

    def images(self, project_id: int) -> dict[str, Any]:
        find_project(project_id, self._services.store)
        return {"project_id": project_id}

    def found(self, project_id: int) -> dict[str, Any]:
        find_project(project_id, self._services.store)
        return {
            "project_id": project_id,
            "alike": self._reports.of(project_id),
            "most": MOST_IMAGES,
            "studio": self._services.settings.label_studio_url,
        }


def add_alike_pages(
    router: APIRouter, parts: DashboardParts, renderer: PageRenderer, pictures: SmallPictures
) -> None:
    """Add the page of duplicates and outliers, with small pictures."""
    pages = _AlikePages(parts.services)

    @router.get("/projects/{project_id}/images")
    async def images(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.images(project_id))
        return renderer.page(request, "alike.html", values)

    @router.get("/projects/{project_id}/images/found")
    async def found(request: Request, project_id: ProjectNumber) -> Response:
        values = await parts.run(lambda: pages.found(project_id))
        return renderer.page(request, "alike_found.html", values)

    @router.get("/projects/{project_id}/images/{task_id}.jpg")
    async def small(project_id: ProjectNumber, task_id: TaskNumber) -> Response:
        content = await parts.run(lambda: pictures.of_task(project_id, task_id))
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
