"""A snapshot as Label Studio's own JSON: tasks with annotations, to be imported again.

Format: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks; `label_config.xml` is
the config to set first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
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
        "Images of one task stay one task, pages in their order. A page that is not in the data set is left "
        "out, another image of the task that is not has an empty address.",
    )

    def __init__(self, manifest: DatasetManifest) -> None:
        self._config_text = _choose_config(manifest)
        self._config = parse_label_config(self._config_text)
        self._label_map = map_labels(self._config, self._config.all_labels)

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
        view = image.view if image.view in {tag.name for tag in self._config.drawn_images} else None
        for row in one.objects:
            targets = self._label_map.targets_of(row.label, image_name=view)
            if not targets:
                left_out += 1
                continue
            result += self._regions(row, image, targets[0])
        is_prediction = image.source.startswith("prediction:")
        answer: dict[str, Any] = {"result": result}
        if is_prediction:
            answer["model_version"] = image.source.partition(":")[2]
        else:
            answer |= {"ground_truth": image.ground_truth, "lead_time": image.lead_time_s}
        uri = image.image_uri if image.task_id is not None else ""
        (tag,) = (one for one in self._config.drawn_images if one.name == (view or self._config.image_name))
        # a page without a place of its own in this config is a task of its own
        joins = image.task_id is not None and view == (image.view or None)
        joins = joins and (tag.is_list or image.image_index == 0)
        part = {
            "of": [image.task_id, image.source, image.annotation_id] if joins else [image.item],
            "view": tag.name,
            "address": uri or f"/data/local-files/?d={image.file_name}",
            "kind": "predictions" if is_prediction else "annotations",
            "answer": answer,
        }
        counts = {"areas without a label of the config left out": left_out}
        return Record(item=image.item, split=image.split, data={"part": part}, counts=counts)

    def finish(self, records: Records, job: ExportJob, folder: Path) -> None:
        """Write tasks.json and label_config.xml."""

        def tasks() -> Iterator[Any]:
            # the images of a task are neighbours: items are sorted
            parts = (record.data["part"] for record in records())
            return (self._task(list(some)) for _, some in groupby(parts, key=lambda part: part["of"]))

        with (folder / "tasks.json").open("w", encoding="utf-8") as file:
            file.write("[")
            for index, task in enumerate(tasks()):
                file.write(f"{',' if index else ''}\n{json.dumps(task, ensure_ascii=False)}")
            file.write("\n]\n")
        (folder / "label_config.xml").write_text(self._config_text, encoding="utf-8")

    def _task(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one task of the images of one annotation or prediction, in the order of their pages."""
        data: dict[str, Any] = {}
        result: list[dict[str, Any]] = []
        for tag in self._config.drawn_images:
            of_tag = [part for part in parts if part["view"] == tag.name]
            addresses = [part["address"] for part in of_tag]
            _put(data, tag.expression, addresses if tag.is_list else "".join(addresses[:1]))
            for page, part in enumerate(of_tag):
                page_of = {"item_index": page} if tag.is_list else {}
                result += [region | page_of for region in part["answer"]["result"]]
        return {"data": data, parts[0]["kind"]: [parts[0]["answer"] | {"result": result}]}

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


def _put(data: dict[str, Any], expression: str, value: object) -> None:
    """Set the value that an expression such as `$image` or `$payload.image` names."""
    *folders, key = expression.removeprefix("$").split(".")
    for folder in folders:
        data = data.setdefault(folder, {})
    data[key] = value


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
