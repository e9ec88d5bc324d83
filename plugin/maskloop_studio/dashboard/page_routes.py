"""The routes of the pages: who may see them, and errors as pages that say what helps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from maskloop.errors import MaskloopError
from maskloop.log import log_action
from maskloop_studio.dashboard.alike_pages import add_alike_pages
from maskloop_studio.dashboard.audit_pages import add_audit_pages
from maskloop_studio.dashboard.dashboard_parts import DashboardParts
from maskloop_studio.dashboard.job_pages import add_job_pages
from maskloop_studio.dashboard.lookups import no_such_page
from maskloop_studio.dashboard.model_drawings import ModelDrawings
from maskloop_studio.dashboard.page_guard import HEADERS, PageGuard
from maskloop_studio.dashboard.people_pages import add_people_pages
from maskloop_studio.dashboard.picture_pages import add_picture_pages
from maskloop_studio.dashboard.project_pages import add_project_pages
from maskloop_studio.dashboard.rendering import STATIC_DIR, PageRenderer
from maskloop_studio.dashboard.review_pages import add_review_pages
from maskloop_studio.dashboard.small_pictures import SmallPictures
from maskloop_studio.dashboard.version_pages import add_version_pages
from maskloop_studio.labelstudio.basic_auth import expected_credentials
from maskloop_studio.serving.http.answers import status_of

__all__ = ["add_dashboard"]

logger = logging.getLogger(__name__)


def add_dashboard(app: FastAPI, parts: DashboardParts) -> None:
    """Add the pages below `/dashboard` to an application.

    Raises:
        ConfigurationError: the settings ask for half of HTTP Basic credentials.
    """
    guard = PageGuard(expected_credentials(parts.services.settings))
    renderer = PageRenderer(guard)
    app.mount("/dashboard/static", _StaticFiles(directory=STATIC_DIR), name="dashboard-static")
    router = APIRouter(prefix="/dashboard", route_class=_page_route(guard, renderer), include_in_schema=False)
    add_project_pages(router, parts, renderer)
    add_job_pages(router, parts, renderer, guard)
    drawings = ModelDrawings(parts.services)
    add_version_pages(router, parts, renderer, guard, drawings)
    add_picture_pages(router, parts, renderer, drawings)
    pictures = SmallPictures(parts.services, drawings)
    add_review_pages(router, parts, renderer, guard, pictures)
    add_alike_pages(router, parts, renderer, pictures)
    add_people_pages(router, parts, renderer)
    add_audit_pages(router, parts, renderer)

    @router.get("/{rest:path}")
    async def no_page(rest: str) -> Response:
        raise no_such_page()

    app.include_router(router)


class _StaticFiles(StaticFiles):
    """Scripts, styles and their licences; their addresses change with their content."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _page_route(guard: PageGuard, renderer: PageRenderer) -> type[APIRoute]:
    """Return the kind of route whose errors are pages."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            original = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    guard.check_reader(request)
                    response = await original(request)
                except Exception as exc:
                    response = _error_page(request, renderer, exc)
                for name, value in HEADERS.items():
                    response.headers.setdefault(name, value)
                return response

            return handle

    return PageRoute


def _error_page(request: Request, renderer: PageRenderer, error: Exception) -> Response:
    if isinstance(error, RequestValidationError | HTTPException):
        error = no_such_page()
    if isinstance(error, MaskloopError):
        status = status_of(error)
        log_action(logger, "page_refused", level=logging.WARNING, status=status, error=error)
        values = {"place": error.place, "expected": error.expected, "got": error.got, "remedy": error.remedy}
    else:
        # Its own text may hold anything: the log has it, the page does not.
        status = 500
        log_action(logger, "page_failed", level=logging.ERROR, exc_info=True, route=request.url.path)
        values = {
            "place": "dashboard",
            "expected": "to make the page",
            "got": "an error of the server's own",
            "remedy": "see the server's log",
        }
    is_fragment = request.headers.get("hx-request") == "true"
    template = "error_fragment.html" if is_fragment else "error.html"
    query = f"?{request.url.query}" if request.url.query else ""
    values["again"] = f"{request.url.path}{query}" if is_fragment and status == 503 else ""
    # htmx swaps in successful answers only; a fragment's error has to be seen.
    return renderer.page(
        request, template, values | {"status": status}, status=200 if is_fragment else status
    )
