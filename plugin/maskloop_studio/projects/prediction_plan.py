"""How a project's tasks are predicted: by settings, the backend's extra_params and the label config."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from maskloop.errors import LabelConfigError
from maskloop.log import log_action
from maskloop.types import Prediction, SegmentationTask, ShowMode
from maskloop_studio.formats import (
    DrawingOptions,
    LabelConfig,
    LabelMap,
    Region,
    TaskImage,
    config_for_task,
    map_labels,
    parse_label_config,
    prediction_to_regions,
    task_images,
)
from maskloop_studio.projects.kept_floors import kept_floors

if TYPE_CHECKING:
    from maskloop.learning.evaluation.showing import Showing
    from maskloop.segmentation.class_kinds import ClassKinds
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.settings import Settings
    from maskloop.store.corrections import CorrectionRepository
    from maskloop.store.projects import ProjectRepository
    from maskloop.types import ModelVersion
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = [
    "PredictionPlan",
    "ProjectOptions",
    "ProjectPlan",
    "parse_options",
    "plan_project",
    "plan_with_config",
]


logger = logging.getLogger(__name__)
OfLabel: TypeAlias = dict[str, Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ProjectOptions(BaseModel):
    """What `extra_params` of the backend may hold; other keys in it are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    task: SegmentationTask | None = None
    score_threshold: Fraction | None = None
    mask_threshold: Fraction | None = None
    overlap_threshold: Fraction | None = None
    label_thresholds: OfLabel = Field(default_factory=dict, max_length=1000)  # class -> least score
    label_mask_thresholds: OfLabel = Field(default_factory=dict, max_length=1000)
    label_overlap_thresholds: OfLabel = Field(default_factory=dict, max_length=1000)
    train_cron: str | None = Field(None, max_length=200)  # a cron line; wins over the settings'
    prelabel_cron: str | None = Field(None, max_length=200)  # the same
    show: ShowMode | None = None  # which segments annotators are shown

    @field_validator("train_cron", "prelabel_cron")
    @classmethod
    def _is_cron_line(cls, value: str | None) -> str | None:
        if value is not None:
            from maskloop.queue.cron import check_cron_line  # needs RQ

            check_cron_line(value)
        return value

    def as_json(self) -> dict[str, object]:
        """Return what differs from the defaults, as plain values."""
        return self.model_dump(mode="json", exclude_defaults=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionPlan:
    """What is asked of the engine for one task, and how its segments are drawn."""

    label_map: LabelMap | None  # None: the model has none of the labels yet, so nothing can be drawn
    task: SegmentationTask
    thresholds: Thresholds
    drawing: DrawingOptions
    showing: Showing | None = None  # saved with the version; None for those without
    # class -> least score that is drawn
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    # class -> the same by what annotators kept, of the score that they are shown
    kept_floors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def shown(self, prediction: Prediction) -> Prediction:
        """Return the prediction with those segments only that are worth an annotator's time."""
        kept = tuple(
            one
            for one in prediction.segments
            if one.score >= self.floors.get(one.label, 0.0)
            and self.displayed_score(one.score) >= self.kept_floors.get(one.label, 0.0)
        )
        return dataclasses.replace(prediction, segments=kept)

    def is_trimmed(self, label: str) -> bool:
        """Return whether what annotators kept decides about a label: no person set a threshold for it."""
        targets_of = self.label_map.targets if self.label_map is not None else {}
        return any(
            name in self.kept_floors and any(target.label == label for target in targets)
            for name, targets in targets_of.items()
        )

    def displayed_score(self, score: float) -> float:
        """Return the score of a region: calibrated where the version has a calibration."""
        return score if self.showing is None else self.showing.displayed(score)

    def regions(
        self, prediction: Prediction, *, model_version: str, task_id: int | None, image: TaskImage
    ) -> list[Region]:
        """Return the regions of one image; their ids stay the same for task, image, version and segment."""
        if self.label_map is None:
            return []
        seed = f"{model_version}/{task_id}"
        if image.item_index is not None or image.to_name != self.label_map.config.image_name:
            seed += f"/{image.to_name}/{image.item_index}"
        return prediction_to_regions(
            prediction,
            self.label_map,
            id_seed=seed,
            drawing=self.drawing,
            image=image,
            displayed_score=self.displayed_score,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectPlan:
    """How all tasks of one project are predicted by one model version."""

    settings: Settings  # of the process
    options: ProjectOptions  # of the backend; they win over the settings
    # Its task wins over both, its controls' `model_score_threshold` over the general score, and an option for
    # a label over these.
    config: LabelConfig
    model_labels: tuple[str, ...]  # the model's classes
    model_version: str  # tag
    showing: Showing | None = None  # saved with the version; None for those without
    # label -> least displayed score that is drawn, by what annotators kept of this version's regions
    kept_floors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def show(self) -> ShowMode:
        """Which segments annotators are shown."""
        return self.options.show or self.settings.show

    @property
    def why_empty(self) -> str | None:
        """Why all predictions are empty; None where they are not by plan."""
        if self.show is ShowMode.NONE:
            return "draws nothing, by MASKLOOP_SHOW"
        if self.show is ShowMode.ALL or self.showing is None or not self.showing.draws_nothing:
            return None
        return self.showing.in_words()

    def images(self, data: Mapping[str, object], *, place: str) -> tuple[TaskImage, ...]:
        """Return the images of a task that have a control.

        Raises:
            LabelConfigError: the data gives no address for one of them, or there are too many.
        """
        found = task_images(self.config, data, place=place)
        most = self.settings.max_task_images
        if len(found) > most:
            raise LabelConfigError(
                place,
                expected=f"at most {most} images that can be drawn on",
                got=str(len(found)),
                remedy="split the task, or raise MASKLOOP_MAX_TASK_IMAGES",
            )
        return found

    def of_task(self, data: Mapping[str, object]) -> PredictionPlan:
        """Return how a task is predicted; the same for all tasks unless labels come with the task.

        Raises:
            LabelConfigError: the data gives no list of labels where the config asks for one.
        """
        if not self.config.is_dynamic:
            return self.of_project
        return self._plan(config_for_task(self.config, data))

    @functools.cached_property
    def of_project(self) -> PredictionPlan:
        """How tasks without labels of their own are predicted."""
        return self._plan(self.config)

    def _plan(self, config: LabelConfig) -> PredictionPlan:
        from maskloop.segmentation.postprocess import Thresholds  # needs torch: the server answers before

        settings, options = self.settings, self.options
        label_map = self._match_labels(config)
        chosen: dict[str, Any] = {
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
            kinds=_class_kinds(config, label_map, general.kinds),
            **chosen,
        )
        task = config.task or options.task or settings.task
        drawing = DrawingOptions(
            tolerance_px=settings.polygon_tolerance_px,
            max_vertices=settings.polygon_max_vertices,
            prefer=settings.prefer_control,
            # Where every pixel has a segment, neighbours must not leave a gap.
            shared_borders=task is not SegmentationTask.INSTANCE,
        )
        floors, kept_floors = self._floors(label_map, thresholds)
        return PredictionPlan(
            label_map=label_map,
            task=task,
            thresholds=thresholds,
            drawing=drawing,
            showing=self.showing,
            floors=floors,
            kept_floors=kept_floors,
        )

    def _floors(
        self, label_map: LabelMap | None, thresholds: Thresholds
    ) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Return the least scores by the holdout and by the annotations; a person's own threshold wins."""
        from maskloop.learning.evaluation.showing import HIDDEN

        if self.show is ShowMode.NONE:
            return dict.fromkeys(self.model_labels, HIDDEN), {}
        if self.show is ShowMode.ALL:
            return {}, {}
        free = [label for label in self.model_labels if label not in thresholds.score_of_label]
        saved = {label: self.showing.floor_for(label) for label in free} if self.showing is not None else {}
        targets_of = label_map.targets if label_map is not None else {}
        kept = {
            label: max(
                (self.kept_floors.get(target.label, 0.0) for target in targets_of.get(label, ())), default=0.0
            )
            for label in free
        }
        return (
            {label: floor for label, floor in saved.items() if floor > 0},
            {label: floor for label, floor in kept.items() if floor > 0},
        )

    def _match_labels(self, config: LabelConfig) -> LabelMap | None:
        try:
            return map_labels(config, self.model_labels, prefer=self.settings.prefer_control)
        except LabelConfigError as exc:
            # Legitimate for a new label set: annotators draw by hand until the first training learns it.
            log_action(
                logger,
                "no_label_matches",
                level=logging.WARNING,
                model_version=self.model_version,
                error=exc,
            )
            return None


def _class_kinds(config: LabelConfig, label_map: LabelMap | None, general: ClassKinds) -> ClassKinds:
    """Return the kinds with what the label config says of its labels' classes.

    A label that no class of the model shows is a class of the next model, under its own name.
    """
    targets_of = label_map.targets if label_map is not None else {}
    shown = {target.label for targets in targets_of.values() for target in targets}

    def classes(labels: frozenset[str]) -> set[str]:
        known = {
            name for name, targets in targets_of.items() if any(target.label in labels for target in targets)
        }
        return known | (labels - shown)

    things = classes(config.thing_labels)
    # A class that two labels show, one of each kind, keeps its objects apart.
    stuff = classes(config.stuff_labels) - things
    return dataclasses.replace(general, config_stuff=frozenset(stuff), config_things=frozenset(things))


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


def plan_project(
    project_id: int,
    model: ModelVersion,
    *,
    settings: Settings,
    client: StudioClient,
    projects: ProjectRepository,
    corrections: CorrectionRepository | None = None,
) -> ProjectPlan:
    """Return how a model version predicts a project, with the label config that Label Studio has now.

    Args:
        project_id: Label Studio's number.
        model: the version.
        settings: of the process.
        client: Label Studio.
        projects: the options of connected projects.
        corrections: what annotators kept of the version's regions; None where nothing is drawn.

    Raises:
        LabelConfigError: the label config has no image or nothing to draw with.
        StudioError: Label Studio does not answer.
    """
    return plan_with_config(
        project_id,
        model,
        client.project(project_id).label_config,
        settings=settings,
        projects=projects,
        corrections=corrections,
    )


def plan_with_config(
    project_id: int,
    model: ModelVersion,
    label_config: str,
    *,
    settings: Settings,
    projects: ProjectRepository,
    corrections: CorrectionRepository | None = None,
) -> ProjectPlan:
    """Return how a model version predicts a project with a label config (XML) that is known already.

    Raises:
        LabelConfigError: the label config has no image or nothing to draw with.
    """
    from maskloop.learning.evaluation.showing import read_showing

    return ProjectPlan(
        settings=settings,
        options=parse_options(projects.options(project_id)),
        config=parse_label_config(label_config),
        model_labels=model.labels,
        model_version=model.tag,
        showing=read_showing(model.path),
        kept_floors={} if corrections is None else kept_floors(project_id, model.tag, corrections, settings),
    )
