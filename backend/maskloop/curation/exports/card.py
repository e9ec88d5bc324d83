"""The dataset card of an export: README.md with what is in it, what is lost, and its licence.

Format: https://huggingface.co/docs/hub/datasets-cards
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskloop.curation.exports.format import ExportFormat, ExportJob

__all__ = ["write_card"]

MAX_CLASSES = 500  # in the text; the format's own files have them all


def write_card(folder: Path, job: ExportJob, form: ExportFormat, summary: Mapping[str, Any]) -> None:
    """Write README.md.

    Args:
        folder: the export.
        job: what was exported.
        form: its format.
        summary: counts, losses and failures.
    """
    images = summary["images"]
    lines = [
        "---",
        f"license: {json.dumps(job.plan.licence, ensure_ascii=False)}",
        "task_categories:",
        "- image-segmentation",
        "tags:",
        "- maskloop",
        "---",
        "",
        "# Data set",
        "",
        f"Exported by maskloop as `{form.name}` from the snapshot `{job.digest}`.",
        "",
        f"Licence of images and annotations: {job.plan.licence}.",
        "",
        "| split | images |",
        "|---|---|",
        *(f"| {split} | {images.get(split, 0)} |" for split in job.plan.splits),
        "",
        "| number | class |",
        "|---|---|",
        *(f"| {one.id} | {_cell(one.name)} |" for one in job.categories[:MAX_CLASSES]),
        "",
        *([f"and {len(job.categories) - MAX_CLASSES} more", ""] if len(job.categories) > MAX_CLASSES else []),
        "## To know before reading",
        "",
        "- Masks are of the upright image. The validation split is the one that models were judged by.",
        *(f"- {note}" for note in form.notes),
        *_warnings(job, summary),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _warnings(job: ExportJob, summary: Mapping[str, Any]) -> list[str]:
    lines = [f"- {name}: {count}" for name, count in summary["counts"].items()]
    lines += [f"- least {name}: {value:.4f}" for name, value in summary["least"].items()]
    if summary["counts"].get("images with an EXIF orientation"):
        lines.append("- Readers have to turn images by their EXIF orientation, or the masks will not fit.")
    folded: dict[str, list[str]] = {}
    for one in job.categories:
        folded.setdefault(one.name.casefold(), []).append(one.name)
    lines += [
        f"- These classes differ in case only: {', '.join(_cell(name) for name in names)}."
        for names in folded.values()
        if len(names) > 1
    ]
    if job.plan.labels:
        lines.append("- Objects of other classes were left out; their images were not.")
    if summary["failed"]:
        lines.append(f"- {summary['failed']} images are left out: see left-out.txt.")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
