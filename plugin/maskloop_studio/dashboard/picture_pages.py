"""What the model draws on any task, with thresholds to try, and the same as settings to copy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Query, Request, Response

from maskloop.errors import MaskloopError
from maskloop_studio.dashboard.dashboard_parts import DashboardParts
from maskloop_studio.dashboard.lookups import ProjectNumber, find_project, roles_of
from maskloop_studio.dashboard.model_drawings import ModelDrawings, ThresholdChoice, plan_of_project
from maskloop_studio.dashboard.overlays import draw_overlay, encode_image
from maskloop_studio.dashboard.rendering import PageRenderer
from maskloop_studio.errors import NotFoundError
from maskloop_studio.projects.training import model_name

if TYPE_CHECKING:
    from maskloop.types import ModelVersion, Prediction
    from maskloop_studio.formats import TaskImage
    from maskloop_studio.images.time_limit import TimeLimit
    from maskloop_studio.projects.prediction_plan import ProjectPlan
    from maskloop_studio.services import Services

__all__ = ["add_picture_pages"]

Share: TypeAlias = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]
TaskNumber: TypeAlias = Annotated[int | None, Query(ge=1, lt=2**62)]
VersionChoice: TypeAlias = Annotated[int | None, Query(ge=1, lt=2**31)]
ImageNumber: TypeAlias = Annotated[int, Query(ge=0, lt=1000)]


def _threshold_choice(score: Share = None, mask: Share = None, overlap: Share = None) -> ThresholdChoice:
    return ThresholdChoice(score=score, mask=mask, overlap=overlap)


Choice: TypeAlias = Annotated[ThresholdChoice, Depends(_threshold_choice)]
NAMES = ("score", "mask", "overlap")
SAME_SCORE = 0.005  # half of a slider's step
MOST_SEGMENTS = 200  # in the table


class _PicturePages:
    """Makes the values of the pages; called in threads."""

    def __init__(self, services: Services, drawings: ModelDrawings) -> None:
        self._services, self._drawings = services, drawings

    def page(
        self, project_id: int, task_id: int | None, number: int | None, choice: ThresholdChoice
    ) -> dict[str, Any]:
        services = self._services
        find_project(project_id, services.store)
        version, plan = self._model(project_id, number)
        own = plan.of_project.thresholds
        chosen = {
            name: getattr(own, name) if getattr(choice, name) is None else getattr(choice, name)
            for name in NAMES
        }
        images, trouble = [], None
        if task_id is not None:
            try:
                images = list(self._images(project_id, task_id, plan))
            except MaskloopError as exc:
                trouble = str(exc)
        options = {f"{name}_threshold": value for name, value in chosen.items()}
        registry = services.registry
        suggested = services.store.overview.next_tasks(project_id, version.tag, limit=8)
        return {
            "project_id": project_id,
            "task_id": task_id,
            "version": version,
            "versions": registry.newest(model_name(project_id), limit=50),
            "chosen": chosen,
            "own": {name: getattr(own, name) for name in NAMES},
            "of_labels": sorted(own.score_of_label.items()),
            "images": images,
            "trouble": trouble,
            "why_empty": plan.why_empty,
            "suggested": [one.task_id for one in suggested],
            "as_settings": "\n".join(f"MASKLOOP_{name.upper()}={value:g}" for name, value in options.items()),
            "as_options": json.dumps({name: round(value, 3) for name, value in options.items()}),
            "studio": services.settings.label_studio_url,
        }

    def _model(self, project_id: int, number: int | None) -> tuple[ModelVersion, ProjectPlan]:
        registry, name = self._services.registry, model_name(project_id)
        wanted = roles_of(project_id, registry).champion if number is None else number
        if wanted is None:
            raise NotFoundError(
                f"project {project_id}",
                expected="a project with a model of its own",
                got="none yet",
                remedy=f"run `maskloop prelabel {project_id}`; the first prediction registers version 1",
            )
        version = registry.get(name, wanted)
        return version, plan_of_project(project_id, version, self._services)

    def _images(self, project_id: int, task_id: int, plan: ProjectPlan) -> tuple[TaskImage, ...]:
        task = self._services.client.task(task_id, project_id=project_id)
        if task is None or task.project_id != project_id:
            raise NotFoundError(
                f"task {task_id}",
                expected=f"a task of project {project_id}",
                got="none with this number",
                remedy="look up the number in Label Studio's Data Manager",
            )
        return plan.images(task.data, place=f"task {task_id}")

    def _data(self, project_id: int, task_id: int, index: int, plan: ProjectPlan) -> bytes:
        images = self._images(project_id, task_id, plan)
        if index >= len(images):
            raise NotFoundError(
                f"task {task_id}",
                expected=f"an image from 0 to {len(images) - 1}",
                got="another",
                remedy="reload the page",
            )
        return self._services.fetcher.fetch(str(images[index].address), task_id=task_id)

    def image_file(self, project_id: int, task_id: int, index: int) -> tuple[bytes, str]:
        _, plan = self._model(project_id, None)
        return encode_image(self._drawings.decode(self._data(project_id, task_id, index, plan)))

    def layer(
        self,
        project_id: int,
        task: tuple[int, int],
        number: int | None,
        choice: ThresholdChoice,
        limit: TimeLimit,
    ) -> bytes:
        version, plan = self._model(project_id, number)
        data = self._data(project_id, *task, plan)
        prediction = _as_shown(self._drawings.draw(data, version, plan, limit, choice), plan, choice)
        return draw_overlay(prediction.segments, prediction.size_hw, "challenger")

    def segments(
        self,
        project_id: int,
        task: tuple[int, int],
        number: int | None,
        choice: ThresholdChoice,
        limit: TimeLimit,
    ) -> dict[str, Any]:
        version, plan = self._model(project_id, number)
        data = self._data(project_id, *task, plan)
        prediction = _as_shown(self._drawings.draw(data, version, plan, limit, choice), plan, choice)
        pixels = prediction.size_hw[0] * prediction.size_hw[1]
        return {
            "segments": [
                (segment.label, segment.score, segment.area / pixels)
                for segment in prediction.segments[:MOST_SEGMENTS]
            ],
            "total": len(prediction.segments),
            "confidence": prediction.confidence,
        }


def _as_shown(prediction: Prediction, plan: ProjectPlan, choice: ThresholdChoice) -> Prediction:
    """Return what annotators are shown of a prediction; all of it where another score is tried."""
    own = plan.of_project.thresholds.score
    is_tried = choice.score is not None and abs(choice.score - own) > SAME_SCORE
    return prediction if is_tried else plan.of_project.shown(prediction)


def add_picture_pages(
    router: APIRouter, parts: DashboardParts, renderer: PageRenderer, drawings: ModelDrawings
) -> None:
    """Add the page of pictures and its layers."""
    pages = _PicturePages(parts.services, drawings)
    base = "/projects/{project_id}/pictures"

    @router.get(base)
    async def pictures(
        request: Request,
        *,
        project_id: ProjectNumber,
        task: TaskNumber = None,
        version: VersionChoice = None,
        choice: Choice,
    ) -> Response:
        values = await parts.run(lambda: pages.page(project_id, task, version, choice))
        return renderer.page(request, "pictures.html", values)

    @router.get(f"{base}/image.file")
    async def image_file(
        project_id: ProjectNumber, task: Annotated[int, Query(ge=1, lt=2**62)], image: ImageNumber = 0
    ) -> Response:
        content, kind = await parts.run(lambda: pages.image_file(project_id, task, image))
        return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=600"})

    @router.get(f"{base}/layer.png")
    async def layer(
        request: Request,
        *,
        project_id: ProjectNumber,
        task: Annotated[int, Query(ge=1, lt=2**62)],
        image: ImageNumber = 0,
        version: VersionChoice = None,
        choice: Choice,
    ) -> Response:
        content = await parts.predict(
            request, lambda limit: pages.layer(project_id, (task, image), version, choice, limit)
        )
        return Response(content, media_type="image/png")

    @router.get(f"{base}/segments")
    async def segments(
        request: Request,
        *,
        project_id: ProjectNumber,
        task: Annotated[int, Query(ge=1, lt=2**62)],
        image: ImageNumber = 0,
        version: VersionChoice = None,
        choice: Choice,
    ) -> Response:
        values = await parts.predict(
            request, lambda limit: pages.segments(project_id, (task, image), version, choice, limit)
        )
        return renderer.page(request, "segments.html", values)
