"""A snapshot as Label Studio's own JSON: tasks with annotations, to be imported again.

Format: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks; `label_config.xml` is
the config to set first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from xml.sax.saxutils import quoteattr

from maskloop.curation.exports.format import ExportJob, Record, Records
from maskloop.errors import CodecError, LabelConfigError
from maskloop_studio.formats.label_config import parse_label_config
from maskloop_studio.formats.label_map import LabelTarget, map_labels
from maskloop_studio.formats.prediction_writer import DrawingOptions, segment_to_regions

if TYPE_CHECKING:
    from maskloop.curation.snapshots.manifest import DatasetManifest
    from maskloop.curation.snapshots.rows import ImageRow, ObjectRow, SnapshotImage

__all__ = ["StudioFormat", "brush_config"]

IMAGE_FIELD = "image"


class StudioFormat:
    """See the module.

    Args:
        manifest: of the snapshot: its newest label config is written, else one with brushes is made.
    """

    name: ClassVar[str] = "label-studio"
    needs_images: ClassVar[bool] = False
    notes: ClassVar[Sequence[str]] = (
        "tasks.json is imported by Label Studio; set label_config.xml first. Images are named by the address "
        "they had in Label Studio, or as /data/local-files/?d=NAME where they come from a folder.",
        "Brushes and bitmasks are exact. Polygons are one ring a part; holes are cut in by bridges.",
        "Label Studio has no crowds: they become objects. Areas without a label of the config are left out.",
        "One image a task: tasks with several images become several tasks.",
    )

    def __init__(self, manifest: DatasetManifest) -> None:
        self._config_text = _choose_config(manifest)
        self._config = parse_label_config(self._config_text)
        label_map = map_labels(self._config, self._config.all_labels)
        self._targets = {label: found[0] for label, found in label_map.targets.items()}

    def check(self, job: ExportJob) -> None:
        """Accept all: classes without a control are counted."""

    def image_path(self, image: ImageRow) -> str:
        """Return `images/NAME`."""
        return f"images/{image.file_name}"

    def write(self, one: SnapshotImage, job: ExportJob, folder: Path) -> Record:
        """Write nothing: all is in the record."""
        image = one.image
        result: list[dict[str, Any]] = []
        left_out = 0
        for row in one.objects:
            if row.label not in self._targets:
                left_out += 1
                continue
            result += self._regions(row, image, self._targets[row.label])
        is_prediction = image.source.startswith("prediction:")
        answer: dict[str, Any] = {"result": result}
        if is_prediction:
            answer["model_version"] = image.source.partition(":")[2]
        else:
            answer |= {"ground_truth": image.ground_truth, "lead_time": image.lead_time_s}
        uri = image.image_uri if image.task_id is not None else ""
        task = {
            "data": {self._config.image_field: uri or f"/data/local-files/?d={image.file_name}"},
            "predictions" if is_prediction else "annotations": [answer],
        }
        counts = {"areas without a label of the config left out": left_out}
        return Record(item=image.item, split=image.split, data={"task": task}, counts=counts)

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write tasks.json and label_config.xml."""

        def tasks() -> Iterator[Any]:
            return (record.data["task"] for record in records())

        with (folder / "tasks.json").open("w", encoding="utf-8") as file:
            file.write("[")
            for index, task in enumerate(tasks()):
                file.write(f"{',' if index else ''}\n{json.dumps(task, ensure_ascii=False)}")
            file.write("\n]\n")
        (folder / "label_config.xml").write_text(self._config_text, encoding="utf-8")

    def _regions(self, row: ObjectRow, image: ImageRow, target: LabelTarget) -> list[dict[str, Any]]:
        # Ids of this form tell the reader which regions are parts of one object.
        object_id = f"m{row.number % 16**14:014x}"
        regions = segment_to_regions(
            row.segment(image.size_hw),
            target,
            image.size_hw,
            object_id=object_id,
            drawing=DrawingOptions(tolerance_px=0.0),
        )
        if not regions:
            raise CodecError(
                f"{image.item}, object {row.position}",
                expected="a region",
                got="none",
                remedy="report this as an error of maskloop",
            )
        return regions


def brush_config(labels: Sequence[str]) -> str:
    """Return a label config in which each label is a brush."""
    lines = "".join(f"\n    <Label value={quoteattr(label)}/>" for label in labels)
    return (
        f'<View>\n  <Image name="image" value="${IMAGE_FIELD}"/>\n'
        f'  <BrushLabels name="label" toName="image">{lines}\n  </BrushLabels>\n</View>\n'
    )


def _choose_config(manifest: DatasetManifest) -> str:
    """Return the label config that has most of the classes; one with brushes where none is known."""
    wanted = [one.name for one in manifest.categories]
    found: Counter[str] = Counter()
    for text in manifest.label_configs.values():
        try:
            labels = parse_label_config(text).all_labels
        except LabelConfigError:  # of an older project: another one may do
            continue
        found[text] = len(set(labels) & set(wanted))
    return found.most_common(1)[0][0] if found else brush_config(wanted)
