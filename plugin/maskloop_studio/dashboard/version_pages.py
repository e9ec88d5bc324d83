"""One version: its card, the gate's verdict as a picture, its images, and what may be done with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from maskloop.errors import MaskloopError, RegistryError
from maskloop.log import log_action
from maskloop.store.audit import Actor, ActorKind
from maskloop.types import version_number
from maskloop_studio.dashboard.dashboard_parts import DashboardParts
from maskloop_studio.dashboard.gate_picture import draw_gate
from maskloop_studio.dashboard.holdout_images import (
    ImageScore,
    extremes,
    find_annotation,
    read_text,
    score_images,
)
from maskloop_studio.dashboard.lookups import ProjectNumber, VersionNumber, find_project, roles_of
from maskloop_studio.dashboard.model_drawings import ModelDrawings, plan_of_project
from maskloop_studio.dashboard.overlays import Side, draw_overlay, encode_image
from maskloop_studio.dashboard.page_guard import PageGuard, read_form
from maskloop_studio.dashboard.quality import quality_points
from maskloop_studio.dashboard.rendering import PageRenderer
from maskloop_studio.errors import NotFoundError
from maskloop_studio.projects.champion import promote_version, roll_back
from maskloop_studio.projects.frozen_corrections import ensure_image
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.types import Correction, ModelVersion
    from maskloop_studio.dashboard.lookups import Roles
    from maskloop_studio.images.time_limit import TimeLimit
    from maskloop_studio.services import Services

__all__ = ["add_version_pages"]

logger = logging.getLogger(__name__)
EXTREMES = 6  # worst and best images on a version's page
IMAGES_A_PAGE = 60
CARD_FILE = "README.md"
MAX_CARD_BYTES = 256 * 1024
MAX_REASON = 300  # characters
ImageKey: TypeAlias = Annotated[str, Query(max_length=400)]
Order: TypeAlias = Literal["worst", "best", "fell", "rose"]


class _VersionPages:
    """Makes the values of the pages; called in threads."""

    def __init__(self, services: Services, drawings: ModelDrawings) -> None:
        self._services, self._drawings = services, drawings

    def find(self, project_id: int, number: int) -> ModelVersion:
        """Return a version of a connected project without a check of its files."""
        find_project(project_id, self._services.store)
        try:
            return self._services.registry.peek(model_name(project_id), number)
        except RegistryError as exc:
            if "no version with that number" not in exc.got:
                raise
            raise NotFoundError(exc.place, expected=exc.expected, got=exc.got, remedy=exc.remedy) from exc

    def version(self, project_id: int, number: int) -> dict[str, Any]:
        version, registry = self.find(project_id, number), self._services.registry
        name = model_name(project_id)
        metadata = registry.metadata(name, number)
        roles = roles_of(project_id, registry)
        scores, trouble = self._scores(version)
        gate = _json_table(metadata.get("gate"))
        worst, best = extremes(scores, EXTREMES)
        steps = [step for step in registry.history(name) if number in (step.number, step.before)]
        trainings = self._services.store.trainings.of(project_id, limit=1000)
        points = [point for point in quality_points(trainings) if point.number == number]
        damage = self._damage(version)
        return {
            "project_id": project_id,
            "version": version,
            "roles": roles,
            "damage": damage,
            "trouble": trouble,
            "facts": _facts(version, metadata),
            "settings_json": _pretty(metadata.get("settings")),
            "recipe_json": _pretty(metadata.get("recipe")),
            "card": self._card(version),
            "gate": draw_gate(gate, scores),
            "classes": [row for row in gate.get("classes") or [] if isinstance(row, Mapping)],
            "decision": metadata.get("decision"),
            "scores": scores,
            "worst": worst,
            "best": best,
            "steps": steps[::-1][:20],
            "point": points[-1] if points else None,
            "others": [one for one in registry.newest(name, limit=50) if one.number != number],
            "rollback_to": self._rollback_target(name, roles) if number == roles.champion else None,
        }

    def _damage(self, version: ModelVersion) -> str | None:
        try:
            self._services.registry.get(version.name, version.number)
        except MaskloopError as exc:
            return str(exc)
        return None

    def _scores(self, version: ModelVersion) -> tuple[list[ImageScore], str | None]:
        try:
            return score_images(version.path), None
        except MaskloopError as exc:
            return [], str(exc)

    def _card(self, version: ModelVersion) -> str:
        try:
            return read_text(version.path / CARD_FILE, max_bytes=MAX_CARD_BYTES) or ""
        except MaskloopError as exc:
            return str(exc)

    def _rollback_target(self, name: str, roles: Roles) -> int | None:
        from maskloop.learning.registry import rollback_line

        registry = self._services.registry
        line = rollback_line(registry.history(name), roles.champion, registry.versions(name))
        return line[-2] if len(line) > 1 else None

    def images(self, project_id: int, number: int, order: Order, page: int) -> dict[str, Any]:
        version = self.find(project_id, number)
        scores = score_images(version.path)
        known = [one for one in scores if one.challenger is not None]
        if order in ("fell", "rose"):
            known = [one for one in known if one.difference is not None]
        keys = {
            "worst": lambda one: one.challenger,
            "best": lambda one: -one.challenger,
            "fell": lambda one: one.difference,
            "rose": lambda one: -one.difference,
        }
        ordered = sorted(known, key=keys[order])
        return {
            "project_id": project_id,
            "version": version,
            "order": order,
            "page": page,
            "pages": max(1, -(-len(ordered) // IMAGES_A_PAGE)),
            "images": ordered[(page - 1) * IMAGES_A_PAGE : page * IMAGES_A_PAGE],
            "total": len(scores),
        }

    def compare(self, project_id: int, number: int, other: int, page: int) -> dict[str, Any]:
        """Compare two versions on the holdout images that both were judged on."""
        version, second = self.find(project_id, number), self.find(project_id, other)
        first_scores = {one.key: one.challenger for one in score_images(version.path)}
        pairs = [
            ImageScore(key=one.key, champion=one.challenger, challenger=first_scores[one.key])
            for one in score_images(second.path)
            if one.key in first_scores
        ]
        known = sorted(
            (one for one in pairs if one.difference is not None), key=lambda one: one.difference or 0.0
        )
        mean = sum(one.difference or 0.0 for one in known) / len(known) if known else None
        return {
            "project_id": project_id,
            "version": version,
            "other": second,
            "page": page,
            "pages": max(1, -(-len(known) // IMAGES_A_PAGE)),
            "images": known[(page - 1) * IMAGES_A_PAGE : page * IMAGES_A_PAGE],
            "mean": mean,
            "total": len(known),
        }

    def image_page(self, project_id: int, number: int, key: str, other: int | None) -> dict[str, Any]:
        version = self.find(project_id, number)
        correction = find_annotation(version.path, key, self._services.store.corrections)
        against = other if other is not None else version.parent
        scores = score_images(version.path)
        ordered = sorted(
            (one for one in scores if one.challenger is not None), key=lambda one: one.challenger or 0.0
        )
        place = next((place for place, one in enumerate(ordered) if one.key == key), None)
        return {
            "project_id": project_id,
            "version": version,
            "against": against,
            "key": key,
            "size_hw": correction.size_hw,
            "task_id": correction.task_id,
            "labels": sorted({segment.label for segment in correction.segments}),
            "objects": len(correction.segments),
            "score": ordered[place] if place is not None else None,
            "before": ordered[place - 1].key if place else None,
            "after": ordered[place + 1].key if place is not None and place + 1 < len(ordered) else None,
            "studio": self._services.settings.label_studio_url,
        }

    def image_file(self, project_id: int, number: int, key: str) -> tuple[bytes, str]:
        version = self.find(project_id, number)
        correction = find_annotation(version.path, key, self._services.store.corrections)
        return encode_image(self._drawings.decode(self._data(correction)))

    def annotator_layer(self, project_id: int, number: int, key: str) -> bytes:
        version = self.find(project_id, number)
        correction = find_annotation(version.path, key, self._services.store.corrections)
        return draw_overlay(correction.segments, correction.size_hw, "annotator")

    def model_layer(
        self, project_id: int, number: int, key: str, *, of: int, side: Side, limit: TimeLimit
    ) -> bytes:
        """Draw what version `of` draws on an image that version `number` was judged on."""
        version, drawn = self.find(project_id, number), self.find(project_id, of)
        correction = find_annotation(version.path, key, self._services.store.corrections)
        self._services.registry.get(drawn.name, drawn.number)  # a damaged one is not loaded
        plan = plan_of_project(project_id, drawn, self._services)
        prediction = self._drawings.draw(self._data(correction), drawn, plan, limit)
        return draw_overlay(prediction.segments, prediction.size_hw, side)

    def _data(self, correction: Correction) -> bytes:
        services = self._services
        if not services.image_cache.path(correction.image_key).exists():
            ensure_image(correction, image_cache=services.image_cache, fetcher=services.fetcher)
        return services.image_cache.get(correction.image_key)

    def promote(self, project_id: int, number: int, reason: str, user: str) -> None:
        self.find(project_id, number)
        move = promote_version(project_id, number, self._services, reason=reason, actor=_actor(user))
        log_action(
            logger,
            "promoted_by_hand",
            project_id=project_id,
            model_version=move.after,
            user=user,
            reason=reason,
        )

    def roll_back(self, project_id: int, reason: str, user: str) -> int:
        find_project(project_id, self._services.store)
        move = roll_back(project_id, self._services, reason=reason, actor=_actor(user))
        log_action(
            logger,
            "rolled_back_by_hand",
            project_id=project_id,
            model_version=move.after,
            user=user,
            reason=reason,
        )
        return version_number(move.after)


def add_version_pages(
    router: APIRouter,
    parts: DashboardParts,
    renderer: PageRenderer,
    guard: PageGuard,
    drawings: ModelDrawings,
) -> None:
    """Add the pages of versions, their images and their actions."""
    pages = _VersionPages(parts.services, drawings)
    base = "/projects/{project_id}/versions/{number}"

    @router.get(base)
    async def version(request: Request, project_id: ProjectNumber, number: VersionNumber) -> Response:
        values = await parts.run(lambda: pages.version(project_id, number))
        return renderer.page(request, "version.html", values)

    @router.get(f"{base}/images")
    async def images(
        request: Request,
        project_id: ProjectNumber,
        number: VersionNumber,
        order: Order = "worst",
        page: Annotated[int, Query(ge=1, le=10**6)] = 1,
    ) -> Response:
        values = await parts.run(lambda: pages.images(project_id, number, order, page))
        return renderer.page(request, "version_images.html", values)

    @router.get(f"{base}/compare")
    async def compare(
        request: Request,
        project_id: ProjectNumber,
        number: VersionNumber,
        other: Annotated[int, Query(ge=1, lt=2**31)],
        page: Annotated[int, Query(ge=1, le=10**6)] = 1,
    ) -> Response:
        values = await parts.run(lambda: pages.compare(project_id, number, other, page))
        return renderer.page(request, "compare.html", values)

    @router.get(f"{base}/image")
    async def image_page(
        request: Request,
        project_id: ProjectNumber,
        number: VersionNumber,
        image: ImageKey,
        other: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    ) -> Response:
        values = await parts.run(lambda: pages.image_page(project_id, number, image, other))
        return renderer.page(request, "image.html", values)

    _add_layers(router, parts, pages)
    _add_actions(router, parts, pages, guard)


def _add_layers(router: APIRouter, parts: DashboardParts, pages: _VersionPages) -> None:
    base = "/projects/{project_id}/versions/{number}"

    @router.get(f"{base}/image.file")
    async def image_file(project_id: ProjectNumber, number: VersionNumber, image: ImageKey) -> Response:
        content, kind = await parts.run(lambda: pages.image_file(project_id, number, image))
        return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @router.get(f"{base}/annotator.png")
    async def annotator(project_id: ProjectNumber, number: VersionNumber, image: ImageKey) -> Response:
        content = await parts.run(lambda: pages.annotator_layer(project_id, number, image))
        return Response(content, media_type="image/png")

    @router.get(f"{base}/layer.png")
    async def layer(
        request: Request,
        *,
        project_id: ProjectNumber,
        number: VersionNumber,
        image: ImageKey,
        of: Annotated[int, Query(ge=1, lt=2**31)],
        side: Literal["champion", "challenger"] = "challenger",
    ) -> Response:
        content = await parts.predict(
            request, lambda limit: pages.model_layer(project_id, number, image, of=of, side=side, limit=limit)
        )
        return Response(content, media_type="image/png")


def _add_actions(router: APIRouter, parts: DashboardParts, pages: _VersionPages, guard: PageGuard) -> None:
    def back(request: Request, project_id: int, number: int, notice: str) -> Response:
        root = request.scope.get("root_path", "")
        path = f"{root}/dashboard/projects/{project_id}/versions/{number}?notice={notice}"
        return RedirectResponse(path, status_code=303)

    @router.post("/projects/{project_id}/versions/{number}/promote")
    async def promote(request: Request, project_id: ProjectNumber, number: VersionNumber) -> Response:
        form = await read_form(request)
        user = guard.check_action(request, form)
        await parts.run(lambda: pages.promote(project_id, number, _reason(form, user), user))
        return back(request, project_id, number, "promoted")

    @router.post("/projects/{project_id}/rollback")
    async def rollback(request: Request, project_id: ProjectNumber) -> Response:
        form = await read_form(request)
        user = guard.check_action(request, form)
        number = await parts.run(lambda: pages.roll_back(project_id, _reason(form, user), user))
        return back(request, project_id, number, "rolled-back")


def _actor(user: str) -> Actor:
    return Actor(kind=ActorKind.DASHBOARD, name=user)


def _reason(form: Mapping[str, str], user: str) -> str:
    given = form.get("reason", "").strip()[:MAX_REASON]
    return f"{given} (dashboard, {user})" if given else f"dashboard, {user}"


def _facts(version: ModelVersion, metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    names = {
        "base_model": "Base model",
        "licence": "Licence",
        "task": "Task",
        "train_images": "Images learnt from",
        "pool_images": "Unlabelled images learnt from",
        "pool_note": "Why these, or why none",
        "seed": "Seed",
        "snapshot": "Snapshot (SHA-256)",
        "code_version": "maskloop",
        "code_commit": "Commit",
        "training": "Training",
    }
    facts = [(words, metadata[name]) for name, words in names.items() if metadata.get(name)]
    metrics = version.metrics
    if metrics is not None:
        figures = {
            "AP": metrics.ap,
            "AP50": metrics.ap50,
            "PQ": metrics.pq,
            "SQ": metrics.sq,
            "RQ": metrics.rq,
            "mIoU": metrics.miou,
            "boundary IoU": metrics.boundary_iou,
        }
        known = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
        facts.insert(0, (f"On {metrics.images} holdout images", known))
        if metrics.seconds_per_image is not None:
            facts.insert(1, ("Seconds an image", f"{metrics.seconds_per_image:.3f}"))
    return [*facts, ("Classes", ", ".join(version.labels[:100]))]


def _json_table(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _pretty(text: str | None) -> str:
    value = _json_table(text)
    return json.dumps(value, indent=1, ensure_ascii=False) if value else ""
