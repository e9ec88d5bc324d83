"""`maskloop report`: what annotators corrected, version by version, and the gain of choosing images."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.selection.gain import MIN_IMAGES, SelectionGain, estimate_gain
from maskloop.types import EditCounts

if TYPE_CHECKING:
    from maskloop.settings import Settings
    from maskloop.store.corrections import CorrectionRepository, EditedTask

__all__ = ["ProjectReport", "VersionReport", "print_report", "report_project"]


@dataclass(frozen=True, kw_only=True)
class VersionReport:
    """What annotators did to one version's predictions."""

    model_version: str  # tag
    images: int  # corrected
    edits: EditCounts  # in all of them
    lead_time_s: float | None  # median of an image
    worth: SelectionGain

    @property
    def kept_share(self) -> float | None:
        """The share of the predicted regions that was left unchanged; None where none was predicted."""
        predicted = self.edits.kept + self.edits.changed + self.edits.removed
        return self.edits.kept / predicted if predicted else None


@dataclass(frozen=True, kw_only=True)
class ProjectReport:
    """What annotators did to a project's predictions."""

    project_id: int
    random_share: float  # of the tasks, drawn by chance
    versions: tuple[VersionReport, ...]  # oldest first
    worth: SelectionGain  # over all versions

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        values = dataclasses.asdict(self)
        for line, version in zip(values["versions"], self.versions, strict=True):
            line["kept_share"] = version.kept_share
        return values | {"versions": list(values["versions"])}


def report_project(
    project_id: int, *, corrections: CorrectionRepository, settings: Settings
) -> ProjectReport:
    """Count what annotators did to predictions, of chosen images and of images drawn by chance.

    Args:
        project_id: Label Studio's number.
        corrections: the counts of edits.
        settings: which share of the tasks is drawn by chance, and the seed of the draw.

    Raises:
        StoreError: the database does not answer.
    """
    from maskloop.selection.arrangement import drawn_at_random

    edited = corrections.edited(project_id)
    # The same tasks are always the ones drawn by chance, so this need not be stored with their corrections.
    drawn = drawn_at_random(
        [one.task_id for one in edited], random_share=settings.random_share, seed=settings.seed
    )
    by_chance = {one.task_id for one, is_drawn in zip(edited, drawn, strict=True) if is_drawn}
    tags = sorted({one.model_version for one in edited}, key=_age)
    return ProjectReport(
        project_id=project_id,
        random_share=settings.random_share,
        versions=tuple(
            _of_version(tag, [one for one in edited if one.model_version == tag], by_chance) for tag in tags
        ),
        worth=_worth(edited, by_chance),
    )


def print_report(
    project_id: int, *, corrections: CorrectionRepository, settings: Settings, as_json: bool
) -> None:
    """Print a project's report, as a table or as JSON; see `report_project`."""
    import typer

    report = report_project(project_id, corrections=corrections, settings=settings)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
        return
    if not report.versions:
        typer.echo(f"project {project_id}: no prediction has been corrected yet")
        return
    _print_table(report)
    typer.echo(_in_words(report))


def _print_table(report: ProjectReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"project {report.project_id}: what annotators did to predictions")
    for name in ("version", "images", "kept", "changed", "added", "removed", "kept of predicted", "seconds"):
        table.add_column(name, justify="left" if name == "version" else "right")
    for name in ("corrections: chosen", "by chance"):
        table.add_column(name, justify="right")
    for one in report.versions:
        edits = one.edits
        table.add_row(
            one.model_version,
            str(one.images),
            *(str(count) for count in (edits.kept, edits.changed, edits.added, edits.removed)),
            "-" if one.kept_share is None else f"{one.kept_share:.0%}",
            "-" if one.lead_time_s is None else f"{one.lead_time_s:.0f}",
            _mean(one.worth.chosen_mean, one.worth.chosen_images),
            _mean(one.worth.random_mean, one.worth.random_images),
        )
    Console().print(table)


def _in_words(report: ProjectReport) -> str:
    worth = report.worth
    if worth.ratio is not None:
        least = "?" if worth.ratio_low is None else f"{worth.ratio_low:.2f}"
        most = "?" if worth.ratio_high is None else f"{worth.ratio_high:.2f}"
        return (
            f"a chosen image needed {worth.ratio:.2f} times the corrections of one drawn by chance "
            f"(95 % confidence: {least} to {most})"
        )
    if report.random_share == 0:
        return "no task is drawn by chance (MASKLOOP_RANDOM_SHARE=0): the gain of choosing cannot be measured"
    if min(worth.chosen_images, worth.random_images) < MIN_IMAGES:
        return (
            f"too few corrected images to measure the gain of choosing: {worth.chosen_images} chosen, "
            f"{worth.random_images} by chance, at least {MIN_IMAGES} of each"
        )
    return "images drawn by chance needed no correction: there is nothing to compare with"


def _of_version(tag: str, edited: Sequence[EditedTask], by_chance: set[int]) -> VersionReport:
    times = [one.lead_time_s for one in edited if one.lead_time_s is not None]
    return VersionReport(
        model_version=tag,
        images=len(edited),
        edits=sum((one.edits for one in edited), EditCounts()),
        lead_time_s=statistics.median(times) if times else None,
        worth=_worth(edited, by_chance),
    )


def _worth(edited: Sequence[EditedTask], by_chance: set[int]) -> SelectionGain:
    return estimate_gain(
        [_corrections(one.edits) for one in edited if one.task_id not in by_chance],
        [_corrections(one.edits) for one in edited if one.task_id in by_chance],
    )


def _corrections(edits: EditCounts) -> float:
    return float(edits.changed + edits.added + edits.removed)


def _age(tag: str) -> tuple[int, str]:
    number = tag.rpartition("-v")[2]
    return (int(number) if number.isdecimal() else 0), tag


def _mean(value: float | None, images: int) -> str:
    return "-" if value is None else f"{value:.1f} ({images})"
