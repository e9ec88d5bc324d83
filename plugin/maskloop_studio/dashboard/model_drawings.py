"""What a model version draws on one image, kept for a while: the layers of a page come from it."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from maskloop.errors import ConfigurationError
from maskloop.types import Prediction, PredictionFailure
from maskloop_studio.errors import NotFoundError, OverloadedError
from maskloop_studio.projects.prediction_plan import plan_with_config

if TYPE_CHECKING:
    from maskloop.segmentation.postprocess import Thresholds
    from maskloop.store.projects import ProjectRepository
    from maskloop.types import ModelVersion, RgbImage
    from maskloop_studio.images.time_limit import TimeLimit
    from maskloop_studio.projects.prediction_plan import ProjectPlan
    from maskloop_studio.services import Services

__all__ = ["ModelDrawings", "ThresholdChoice", "choose_thresholds", "plan_of_project"]

MOST_BYTES = 64 * 2**20  # of masks


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """Thresholds that a reader tries; each 0..1, None for the project's own."""

    score: float | None = None
    mask: float | None = None
    overlap: float | None = None


def plan_of_project(project_id: int, version: ModelVersion, services: Services) -> ProjectPlan:
    """Return how a version predicts a project, by the label config and options that are stored.

    Raises:
        NotFoundError: the project is not connected.
        LabelConfigError: its label config or options cannot work.
    """
    projects: ProjectRepository = services.store.projects
    config = projects.label_config(project_id)
    if config is None:
        raise NotFoundError(
            f"project {project_id}",
            expected="a connected project",
            got="one that is not connected",
            remedy=f"run `maskloop connect {project_id}` first",
        )
    return plan_with_config(
        project_id,
        version,
        config,
        settings=services.settings,
        projects=projects,
        corrections=services.store.corrections,
    )


def choose_thresholds(thresholds: Thresholds, choice: ThresholdChoice) -> Thresholds:
    """Return thresholds with those that a reader tries; a general score then counts for every label."""
    chosen = {name: value for name, value in dataclasses.asdict(choice).items() if value is not None}
    if "score" in chosen:
        thresholds = dataclasses.replace(thresholds, score_of_label={})
    if "mask" in chosen:
        thresholds = dataclasses.replace(thresholds, mask_of_label={})
    if "overlap" in chosen:
        thresholds = dataclasses.replace(thresholds, overlap_of_label={})
    return dataclasses.replace(thresholds, **chosen)


class ModelDrawings:
    """One per process; safe from any thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._kept: OrderedDict[tuple[str, str, str], Prediction] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def draw(
        self,
        data: bytes,
        version: ModelVersion,
        plan: ProjectPlan,
        limit: TimeLimit,
        choice: ThresholdChoice = ThresholdChoice(),
    ) -> Prediction:
        """Return a version's prediction of an image file.

        Args:
            data: the image file.
            version: the model; loaded where it is not held.
            plan: how the project is predicted.
            limit: when the answer has to be there.
            choice: thresholds to try.

        Raises:
            ImageError: the image cannot be read.
            ModelLoadError: the model cannot be loaded.
            OverloadedError: it took longer than the limit.
        """
        of_project = plan.of_project
        thresholds = choose_thresholds(of_project.thresholds, choice)
        key = (version.tag, hashlib.sha256(data).hexdigest(), f"{of_project.task} {thresholds!r}")
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        from maskloop.segmentation.image import EncodedImage

        future = self._services.engine.submit(
            [EncodedImage(data=data, max_pixels=self._services.settings.max_image_pixels)],
            source=str(version.path),
            task=of_project.task,
            thresholds=thresholds,
        )
        if not limit.wait([future]):
            future.cancel()
            raise OverloadedError(
                "picture",
                expected=f"a prediction within {self._services.settings.predict_deadline_s:.0f} s",
                got="none yet",
                remedy="reload the page in a moment; a large model takes its time on a CPU",
            )
        (result,) = future.result()
        if isinstance(result, PredictionFailure):
            raise result.error
        self._keep(key, result)
        return result

    def decode(self, data: bytes) -> RgbImage:
        """Return an image file's pixels, within the memory of all requests.

        Raises:
            ImageError: it cannot be read.
            ConfigurationError: it does not fit into MASKLOOP_MEMORY_MB.
        """
        from maskloop.segmentation.image import EncodedImage

        image = EncodedImage(data=data, max_pixels=self._services.settings.max_image_pixels)
        memory = self._services.memory.pixels
        if image.work_bytes > memory.total_bytes:
            raise ConfigurationError(
                "picture",
                expected=f"an image that takes at most {memory.total_bytes >> 20} MiB to decode",
                got=f"{image.work_bytes >> 20} MiB",
                remedy="raise MASKLOOP_MEMORY_MB",
            )
        with memory.hold(image.work_bytes):
            return image()

    def _keep(self, key: tuple[str, str, str], prediction: Prediction) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept_bytes += _mask_bytes(prediction)
            self._kept[key] = prediction
            while self._kept_bytes > MOST_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= _mask_bytes(oldest)


def _mask_bytes(prediction: Prediction) -> int:
    return sum(segment.mask_hw.nbytes for segment in prediction.segments)
