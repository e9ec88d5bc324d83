"""How one project is predicted: settings, then the backend's extra_params, then its label config."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from maskloop.errors import LabelConfigError
from maskloop.log import log_action
from maskloop.types import Prediction, SegmentationTask
from maskloop_studio.formats import DrawingOptions, Region, prediction_to_regions
from maskloop_studio.formats.label_config import LabelConfig, LabelMap, map_labels, parse_label_config

if TYPE_CHECKING:
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.settings import Settings
    from maskloop.types import ModelVersion
    from maskloop_studio.services import Services

__all__ = ["PredictionPlan", "ProjectOptions", "parse_options", "plan_prediction", "plan_project"]


logger = logging.getLogger(__name__)
OfLabel: TypeAlias = dict[str, Annotated[float, Field(ge=0, le=1)]]


class ProjectOptions(BaseModel):
    """What `extra_params` of the backend may say; other keys in it are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    task: SegmentationTask | None = None
    score_threshold: float | None = Field(None, ge=0, le=1)
    mask_threshold: float | None = Field(None, ge=0, le=1)
    overlap_threshold: float | None = Field(None, ge=0, le=1)
    label_thresholds: OfLabel = Field(default_factory=dict, max_length=1000)  # class -> least score
    label_mask_thresholds: OfLabel = Field(default_factory=dict, max_length=1000)
    label_overlap_thresholds: OfLabel = Field(default_factory=dict, max_length=1000)
    train_cron: str | None = Field(None, max_length=200)  # a cron line; wins over the settings'
    prelabel_cron: str | None = Field(None, max_length=200)  # the same

    @field_validator("train_cron", "prelabel_cron")
    @classmethod
    def _is_cron_line(cls, value: str | None) -> str | None:
        if value is not None:
            from maskloop.queue.cron import check_cron_line  # needs RQ

            check_cron_line(value)
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionPlan:
    """What is asked of the engine for one project, and how the answer is drawn."""

    label_map: LabelMap | None  # None: the model knows none of the labels yet, so nothing can be drawn
    task: SegmentationTask
    thresholds: Thresholds
    drawing: DrawingOptions

    def regions(self, prediction: Prediction, *, model_version: str, task_id: int | None) -> list[Region]:
        """Return the `result` of a task's prediction; its ids stay the same for task, version and segment."""
        if self.label_map is None:
            return []
        seed = f"{model_version}/{task_id}"
        return prediction_to_regions(prediction, self.label_map, id_seed=seed, drawing=self.drawing)


def parse_options(extra_params: Any) -> ProjectOptions:
    """Return the options of a backend's `extra_params`; none where there are none.

    Raises:
        LabelConfigError: a value that cannot work.
    """
    try:
        return ProjectOptions.model_validate(extra_params or {})
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "its value"
        raise LabelConfigError(
            f"extra_params of the backend, {name}",
            expected=f"an object with some of {', '.join(ProjectOptions.model_fields)}",
            got=first["msg"],
            remedy="edit the backend in Label Studio's settings",
        ) from exc


def plan_prediction(
    settings: Settings,
    options: ProjectOptions,
    config: LabelConfig,
    model_labels: tuple[str, ...],
    *,
    model_version: str,
) -> PredictionPlan:
    """Return how a project is predicted, judged and drawn.

    Args:
        settings: of the process.
        options: of the backend; they win over the settings.
        config: of the project; its task wins over both, its controls' `model_score_threshold` over the
            general score, and an option for a label over these.
        model_labels: the classes of the model that answers.
        model_version: its name, for the log.
    """
    from maskloop.segmentation.postprocess import Thresholds  # needs torch: the server answers before

    label_map = _match_labels(settings, config, model_labels, model_version)
    said: dict[str, Any] = {
        name: value
        for name, value in (
            ("score", options.score_threshold),
            ("mask", options.mask_threshold),
            ("overlap", options.overlap_threshold),
        )
        if value is not None
    }
    of_controls = label_map.score_thresholds() if label_map is not None else {}
    general = Thresholds.from_settings(settings)
    thresholds = dataclasses.replace(
        general,
        score_of_label={**general.score_of_label, **of_controls, **options.label_thresholds},
        mask_of_label={**general.mask_of_label, **options.label_mask_thresholds},
        overlap_of_label={**general.overlap_of_label, **options.label_overlap_thresholds},
        **said,
    )
    task = config.task or options.task or settings.task
    drawing = DrawingOptions(
        tolerance_px=settings.polygon_tolerance_px,
        max_vertices=settings.polygon_max_vertices,
        prefer=settings.prefer_control,
        # Where every pixel belongs to somebody, a gap between neighbours would be nobody's.
        shared_borders=task is not SegmentationTask.INSTANCE,
    )
    return PredictionPlan(label_map=label_map, task=task, thresholds=thresholds, drawing=drawing)


def plan_project(
    project_id: int, model: ModelVersion, services: Services
) -> tuple[LabelConfig, PredictionPlan]:
    """Return a project's label config as Label Studio has it now, and how a model predicts there.

    Raises:
        LabelConfigError: the label config has no image or nothing to draw with.
        StudioError: Label Studio does not answer.
    """
    config = parse_label_config(services.client.project(project_id).label_config)
    options = parse_options(services.store.projects.options(project_id))
    plan = plan_prediction(services.settings, options, config, model.labels, model_version=model.tag)
    return config, plan


def _match_labels(
    settings: Settings, config: LabelConfig, model_labels: tuple[str, ...], model_version: str
) -> LabelMap | None:
    try:
        return map_labels(config, model_labels, prefer=settings.prefer_control)
    except LabelConfigError as exc:
        # Legitimate for a new label set: annotators draw by hand until the first training knows it.
        log_action(logger, "no_label_matches", level=logging.WARNING, model_version=model_version, error=exc)
        return None
