"""A folder in COCO's form -> tasks of a Label Studio project, with annotations or predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from maskloop.errors import ConfigurationError, LabelConfigError
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.formats.label_map import LabelTarget, map_labels
from maskloop_studio.formats.prediction_writer import DrawingOptions, segment_to_regions

if TYPE_CHECKING:
    from maskloop.curation.imports.coco_folder import CocoFolder, FolderImage
    from maskloop_studio.formats.controls import LabelConfig
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["ImportAs", "ImportReport", "import_folder"]

ITEM_FIELD = "maskloop_item"  # of a task's data: which image of the folder it is
MAX_NAMED = 20
EXACT = DrawingOptions(tolerance_px=0.0)  # a polygon keeps every corner of every pixel


class ImportAs(StrEnum):
    """What the folder's objects become."""

    ANNOTATIONS = "annotations"
    PREDICTIONS = "predictions"


@dataclass(kw_only=True)
class ImportReport:
    """What was taken in."""

    tasks: int = 0
    objects: int = 0
    present: int = 0  # images that the project had already
    left_out: Counter[str] = field(default_factory=Counter)  # kind -> areas that the label config cannot hold

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "left_out": dict(self.left_out)}


def import_folder(
    folder: CocoFolder,
    project_id: int,
    *,
    client: StudioClient,
    become: ImportAs,
    model_version: str,
    ignored_labels: Collection[str] = (),
    report: ImportReport | None = None,
    on_image: Callable[[int], None] = lambda _: None,
) -> ImportReport:
    """Upload a folder's images as tasks; images that the project has from an earlier run are passed over.

    It ends at the first record that is damaged; once that is mended, the next run goes on there.

    Args:
        folder: opened.
        project_id: Label Studio's number.
        client: Label Studio.
        become: annotations or predictions.
        model_version: of predictions.
        ignored_labels: labels of areas to ignore; the first that the config has takes crowds.
        report: is filled; it also tells of an import that ended early.
        on_image: called after each image, with how many are done.

    Raises:
        ConfigurationError: the label config lacks classes of the folder, or has several images a task.
        CodecError: a record of the folder is not as COCO has it.
        StudioError: Label Studio does not answer.
    """
    config = parse_label_config(client.project(project_id).label_config)
    if len(config.drawn_images) != 1 or not config.image_field.isidentifier():
        raise ConfigurationError(
            f"project {project_id}, label config",
            expected="one <Image> whose value is a field of the task, such as $image",
            got=", ".join(image.expression for image in config.drawn_images)[:200],
            remedy="import into a project with one image a task",
        )
    writer = _Writer(_targets(folder, config, project_id), ignored_labels)
    present = {str(task.data.get(ITEM_FIELD)) for task in client.iter_tasks(project_id)}
    report = ImportReport() if report is None else report
    for done, image in enumerate(folder.images(), start=1):
        if image.item in present:
            report.present += 1
        else:
            task = {
                "data": {
                    config.image_field: client.upload_image(
                        project_id, PurePosixPath(image.file_name).name, image.path.read_bytes()
                    ),
                    ITEM_FIELD: image.item,
                }
            }
            result = writer.regions(image, report)
            answer: dict[str, Any] = {"result": result}
            if become is ImportAs.PREDICTIONS:
                answer |= {"model_version": model_version, "score": 1.0}
            client.import_tasks(project_id, [{**task, str(become): [answer]}])
            report.tasks += 1
        on_image(done)
    return report


class _Writer:
    def __init__(self, targets: dict[str, LabelTarget], ignored_labels: Collection[str]) -> None:
        self._targets = targets
        self._ignored = next((label for label in sorted(ignored_labels) if label in targets), None)

    def regions(self, image: FolderImage, report: ImportReport) -> list[dict[str, Any]]:
        """Return the `result` that shows an image's objects."""
        result: list[dict[str, Any]] = []
        for position, one in enumerate(image.objects):
            label: str | None = one.segment.label
            if one.kind != "object":
                label = label if one.kind == "ignored" and label in self._targets else self._ignored
            if label is None:
                report.left_out[str(one.kind)] += 1
                continue
            # Ids of this form tell the reader which regions are parts of one object.
            result += segment_to_regions(
                one.segment,
                self._targets[label],
                image.size_hw,
                object_id=f"m{position + 1:014x}",
                drawing=EXACT,
            )
            report.objects += 1
        return result


def _targets(folder: CocoFolder, config: LabelConfig, project_id: int) -> dict[str, LabelTarget]:
    names = [one.name for one in folder.categories]
    try:
        found = map_labels(config, [*names, *config.all_labels]).targets
    except LabelConfigError:
        found = {}
    missing = [name for name in names if not found.get(name)]
    if missing:
        lines = "".join(f'<Label value="{name}"/>' for name in missing[:MAX_NAMED])
        raise ConfigurationError(
            f"project {project_id}, label config",
            expected="a label for each class of the folder",
            got=f"none for {', '.join(missing[:MAX_NAMED])}{' and more' if len(missing) > MAX_NAMED else ''}",
            remedy=f"add {lines} to its labels, or the name as predicted_values of a <Label>",
        )
    return {name: targets[0] for name, targets in found.items() if targets}
