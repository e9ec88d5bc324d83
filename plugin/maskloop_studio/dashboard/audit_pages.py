"""The audit trail: why a version serves, who did what, and whether the records are as they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from maskloop.errors import MaskloopError
from maskloop.store.audit import INSTALLATION, ActorKind, AuditAction
from maskloop_studio.dashboard.lookups import find_project
from maskloop_studio.projects.audit_trail import find_serving_reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from maskloop.store.audit import AuditCheck, AuditRecord
    from maskloop_studio.dashboard.dashboard_parts import DashboardParts
    from maskloop_studio.dashboard.rendering import PageRenderer
    from maskloop_studio.projects.audit_trail import ServingReason
    from maskloop_studio.services import Services

__all__ = ["add_audit_pages"]

SHOWN = 50  # records of a page
READ_AT_ONCE = 500
MOST_READ = 20_000  # records that a filter looks at
FIGURES = ("ap50", "pq", "miou")
Chain = Annotated[int, Path(ge=0, lt=2**62)]
Below = Annotated[int | None, Query(ge=1, lt=2**62)]
Words = Annotated[str, Query(max_length=40)]


class _AuditPages:
    """Makes the values of the pages; called in threads. Reads only: what nobody recorded is not added."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def audit(self, project_id: int, action: str, actor: str, below: int | None) -> dict[str, Any]:
        if project_id != INSTALLATION:
            find_project(project_id, self._services.store)
        actions = {one.value for one in AuditAction} & {action}
        actors = {one.value for one in ActorKind} & {actor}

        def is_wanted(one: AuditRecord) -> bool:
            return (not actions or one.entry.action.value in actions) and (
                not actors or one.entry.actor.kind.value in actors
            )

        records, next_below = self._find(project_id, is_wanted, below)
        reason, trouble = self._why(project_id)
        return {
            "project_id": project_id,
            "records": records,
            "next_below": next_below,
            "below": below,
            "action": action if actions else "",
            "actor": actor if actors else "",
            "actions": [one.value for one in AuditAction],
            "actors": [one.value for one in ActorKind],
            "reason": reason,
            "figures": [] if reason is None or reason.record is None else figures_of(reason.record),
            "trouble": trouble,
        }

    def check(self, project_id: int) -> dict[str, Any]:
        if project_id != INSTALLATION:
            find_project(project_id, self._services.store)
        check: AuditCheck = self._services.store.audit.verify(project_id)
        return {"check": check, "project_id": project_id}

    def _find(
        self, project_id: int, is_wanted: Callable[[AuditRecord], bool], below: int | None
    ) -> tuple[list[AuditRecord], int | None]:
        """Return the newest wanted records, and below which number the next page begins."""
        found: list[AuditRecord] = []
        read = 0
        while read < MOST_READ:
            page = self._services.store.audit.newest(project_id, limit=READ_AT_ONCE, below=below)
            for one in page:
                if is_wanted(one):
                    if len(found) == SHOWN:
                        return found, found[-1].number
                    found.append(one)
            if not page or page[-1].number == 1:
                return found, None
            read, below = read + len(page), page[-1].number
        return found, below

    def _why(self, project_id: int) -> tuple[ServingReason | None, str | None]:
        if project_id == INSTALLATION:
            return None, None
        services = self._services
        try:
            return find_serving_reason(
                project_id, registry=services.registry, audit=services.store.audit
            ), None
        except MaskloopError as exc:  # the records are shown all the same
            return None, str(exc)


def figures_of(one: AuditRecord) -> list[tuple[str, float, float]]:
    """Return (name, before, after) of the figures that a verdict was recorded with."""
    before, after = (one.entry.facts.get(f"{side}_metrics") for side in ("champion", "challenger"))
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return []
    pairs = [(name, before.get(name), after.get(name)) for name in FIGURES]
    return [
        (name, float(first), float(second))
        for name, first, second in pairs
        if isinstance(first, float | int) and isinstance(second, float | int)
    ]


def add_audit_pages(router: APIRouter, parts: DashboardParts, renderer: PageRenderer) -> None:
    """Add the pages of audit trails; number 0 is the whole installation."""
    pages = _AuditPages(parts.services)

    @router.get("/projects/{project_id}/audit")
    async def audit(
        request: Request, project_id: Chain, action: Words = "", actor: Words = "", below: Below = None
    ) -> Response:
        values = await parts.run(lambda: pages.audit(project_id, action, actor, below))
        return renderer.page(request, "audit.html", values)

    @router.get("/projects/{project_id}/audit/check")
    async def check(request: Request, project_id: Chain) -> Response:
        values = await parts.run(lambda: pages.check(project_id))
        return renderer.page(request, "audit_check.html", values)
