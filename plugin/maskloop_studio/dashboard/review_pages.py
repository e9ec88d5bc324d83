"""Annotations that are probably wrong, as the last `maskloop review` ranked them, and decisions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from maskloop.log import log_action
from maskloop.store.reviews import Verdict
from maskloop_studio.dashboard.lookups import PageNumber, ProjectNumber, find_project
from maskloop_studio.dashboard.page_guard import PageGuard, read_form
from maskloop_studio.errors import NotFoundError

if TYPE_CHECKING:
    from maskloop.store.reviews import StoredSuspicion
    from maskloop_studio.dashboard.dashboard_parts import DashboardParts
    from maskloop_studio.dashboard.rendering import PageRenderer
    from maskloop_studio.dashboard.small_pictures import SmallPictures
    from maskloop_studio.services import Services

__all__ = ["add_review_pages"]

logger = logging.getLogger(__name__)
SHOWN = 24  # suspicions of a page
Show: TypeAlias = Literal["open", "wrong", "right"]
Kind: TypeAlias = Annotated[str | None, Query(max_length=40, pattern="^[a-z -]*$")]
SuspicionNumber: TypeAlias = Annotated[int, Path(ge=1, lt=2**62)]


class _ReviewPages:
    """Makes the values of the pages; called in threads."""

    def __init__(self, services: Services, pictures: SmallPictures) -> None:
        self._services, self._pictures = services, pictures

    def review(self, project_id: int, show: Show, kind: str | None, page: int) -> dict[str, Any]:
        from maskloop.curation.review.suspicion import SuspicionKind

        store = self._services.store
        find_project(project_id, store)
        found = store.reviews.page(
            project_id, Verdict(show), limit=SHOWN + 1, offset=(page - 1) * SHOWN, kind=kind or None
        )
        counts = store.reviews.counts(project_id)
        return {
            "project_id": project_id,
            "show": show,
            "kind": kind or "",
            "kinds": [str(one) for one in SuspicionKind],
            "counts": {verdict.value: count for verdict, count in counts.items()},
            "reviewed": sum(counts.values()) > 0,
            "suspicions": found[:SHOWN],
            "page": page,
            "more": len(found) > SHOWN,
            "studio": self._services.settings.label_studio_url,
        }

    def find(self, project_id: int, number: int) -> StoredSuspicion:
        found = self._services.store.reviews.get(project_id, number)
        if found is None:
            raise NotFoundError(
                f"project {project_id}, suspicion {number}",
                expected="one of the last review",
                got="none: a newer review has taken its place",
                remedy="reload the page",
            )
        return found

    def crop(self, project_id: int, number: int) -> bytes:
        return self._pictures.of_suspicion(self.find(project_id, number))

    def decide(self, project_id: int, number: int, verdict: Verdict, user: str) -> None:
        self.find(project_id, number)
        self._services.store.reviews.decide(project_id, [number], verdict)
        log_action(
            logger,
            "suspicion_decided",
            project_id=project_id,
            suspicion=number,
            verdict=str(verdict),
            user=user,
        )


def add_review_pages(
    router: APIRouter,
    parts: DashboardParts,
    renderer: PageRenderer,
    guard: PageGuard,
    pictures: SmallPictures,
) -> None:
    """Add the page of a review, its crops and its decisions."""
    pages = _ReviewPages(parts.services, pictures)

    @router.get("/projects/{project_id}/review")
    async def review(
        request: Request,
        project_id: ProjectNumber,
        show: Show = "open",
        kind: Kind = None,
        page: PageNumber = 1,
    ) -> Response:
        values = await parts.run(lambda: pages.review(project_id, show, kind, page))
        return renderer.page(request, "review.html", values)

    @router.get("/projects/{project_id}/review/{number}.jpg")
    async def crop(project_id: ProjectNumber, number: SuspicionNumber) -> Response:
        content = await parts.run(lambda: pages.crop(project_id, number))
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @router.post("/projects/{project_id}/review/{number}")
    async def decide(request: Request, project_id: ProjectNumber, number: SuspicionNumber) -> Response:
        form = await read_form(request)
        user = guard.check_action(request, form)
        verdict = Verdict(form["verdict"]) if form.get("verdict") in tuple(Verdict) else Verdict.OPEN
        await parts.run(lambda: pages.decide(project_id, number, verdict, user))
        show = form.get("show") if form.get("show") in tuple(Verdict) else "open"
        root = request.scope.get("root_path", "")
        path = f"{root}/dashboard/projects/{project_id}/review?show={show}&notice=decided"
        return RedirectResponse(path, status_code=303)
