"""`maskloop report`: what annotators corrected, the work saved, and the gain of choosing images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskloop.selection.gain import MIN_IMAGES
from maskloop_studio.cli.edit_tables import EditLine, print_edits, untouched_lines
from maskloop_studio.projects.edit_report import report_project

if TYPE_CHECKING:
    from maskloop.learning.evaluation.annotation_cost import EditWeights
    from maskloop.settings import Settings
    from maskloop.store.corrections import CorrectionRepository
    from maskloop_studio.projects.edit_report import AnnotatorReport, ProjectReport, VersionReport
    from maskloop_studio.projects.weak_classes import WeakClass

__all__ = ["pool_text", "print_report", "weak_lines"]

MOST_CLASSES = 15  # of the table of weak ones


def print_report(
    project_id: int,
    *,
    corrections: CorrectionRepository,
    settings: Settings,
    by_annotator: bool = False,
    as_json: bool,
    anchoring: Mapping[str, Any] | None = None,
    weak: Sequence[WeakClass] = (),
    pool: str | None = None,
) -> None:
    """Print a project's report, as tables or as JSON; see `report_project`.

    Args:
        project_id: Label Studio's number.
        corrections: the counts of edits.
        settings: as for `report_project`.
        by_annotator: a line for each annotator instead of each version.
        as_json: print JSON.
        anchoring: how the newest training measured it; None where it could not.
        weak: the classes of the newest judged version, the weakest first.
        pool: what became of unlabelled images in the newest training, in words; None: none were asked for.
    """
    import typer

    report = report_project(project_id, corrections=corrections, settings=settings)
    if as_json:
        classes = [one.as_json() for one in weak]
        more = {"anchoring": anchoring, "weak_classes": classes, "pool": pool}
        typer.echo(json.dumps(report.as_json() | more))
        return
    if pool is not None:
        typer.echo(pool)
    if anchoring is not None:
        typer.echo(anchoring_text(anchoring))
    for line in weak_lines(weak):
        typer.echo(line)
    if not report.versions:
        typer.echo(f"project {project_id}: no prediction has been corrected yet")
        return
    if by_annotator:
        lines = [_annotator_line(one) for one in report.annotators]
        print_edits(f"project {project_id}: what each annotator did to predictions", "annotator", lines)
        for line in untouched_lines(lines):
            typer.echo(line)
    else:
        lines = [_version_line(one) for one in report.versions]
        print_edits(f"project {project_id}: what annotators did to predictions", "version", lines)
    typer.echo(_weights_in_words(report.weights))
    if not by_annotator:
        typer.echo(_in_words(report))


def anchoring_text(values: Mapping[str, Any]) -> str:
    """Return what annotators take over from predictions, as `Anchoring.as_json` has it, in words."""
    low, high = values["interval"]
    return (
        f"the champion's score is {values['shown']:.3f} on {values['shown_images']} holdout images where "
        f"annotators saw\npredictions, {values['blind']:.3f} on {values['blind_images']} where they did not "
        f"(difference {low:+.3f} to {high:+.3f}, 90 % confidence)"
    )


def pool_text(outcome: Mapping[str, Any]) -> str | None:
    """Return what became of unlabelled images in a training, in words; None where none were asked for.

    Args:
        outcome: of the training.
    """
    use, check, why_none = (outcome.get(name) for name in ("pool", "pool_check", "why_no_pool"))
    if isinstance(use, Mapping):
        told = (
            f"the newest training learnt from {use.get('images')} unlabelled images as well "
            f"({use.get('objects')} objects)"
        )
        return f"{told}: {check['text']}" if isinstance(check, Mapping) and check.get("text") else told
    return None if not why_none else f"the newest training learnt from no unlabelled image: {why_none}"


def weak_lines(weak: Sequence[WeakClass]) -> list[str]:
    """Return the classes that are worth labelling as lines of a table, the weakest first; none for none."""
    if not weak:
        return []
    lines = ["what to label next, the weakest class first: score on the holdout (mean of AP50, PQ and IoU)"]
    for one in weak[:MOST_CLASSES]:
        interval = "" if one.low is None or one.high is None else f" ({one.low:.2f} to {one.high:.2f})"
        gain = "no curve yet" if one.per_doubling is None else f"{one.per_doubling:+.2f} a doubling"
        more = f", about {one.needed} more for +.05" if one.needed is not None else ""
        lines.append(
            f"  {one.label[:30]:<30} {one.score:.2f}{interval:<15} {one.objects:>6} objects, {gain}{more}"
        )
    if len(weak) > MOST_CLASSES:
        lines.append(f"  and {len(weak) - MOST_CLASSES} more: --json lists all")
    return lines


def _version_line(one: VersionReport) -> EditLine:
    return EditLine(
        name=one.model_version,
        images=one.images,
        edits=one.edits,
        work_saved=one.work_saved,
        lead_time_s=one.lead_time_s,
        untouched=one.untouched,
        untouched_s=one.untouched_s,
        more={
            "chosen": _mean(one.worth.chosen_mean, one.worth.chosen_images),
            "by chance": _mean(one.worth.random_mean, one.worth.random_images),
        },
    )


def _annotator_line(one: AnnotatorReport) -> EditLine:
    return EditLine(
        name="not known" if one.annotator is None else f"user {one.annotator}",
        images=one.images,
        edits=one.edits,
        work_saved=one.work_saved,
        lead_time_s=one.lead_time_s,
        untouched=one.untouched,
        untouched_s=one.untouched_s,
    )


def _weights_in_words(weights: EditWeights) -> str:
    seconds = ", ".join(
        f"{name} {getattr(weights, name):.1f}" for name in ("relabel", "nudge", "redraw", "delete", "add")
    )
    return (
        "saved: 1 - cost of correcting / cost of drawing all on an empty image\n"
        f"seconds of an edit: {seconds},\n{weights.source}"
    )


def _in_words(report: ProjectReport) -> str:
    worth = report.worth
    if worth.ratio is not None:
        least = "?" if worth.ratio_low is None else f"{worth.ratio_low:.2f}"
        most = "?" if worth.ratio_high is None else f"{worth.ratio_high:.2f}"
        return (
            f"a chosen image needed {worth.ratio:.2f} times the corrections of one drawn by chance "
            f"(95 % confidence: {least} to {most}): more to correct and more work, not by itself a gain"
        )
    if report.random_share == 0:
        return "no task is drawn by chance (MASKLOOP_RANDOM_SHARE=0): the gain of choosing cannot be measured"
    if min(worth.chosen_images, worth.random_images) < MIN_IMAGES:
        return (
            f"too few corrected images to measure the gain of choosing: {worth.chosen_images} chosen, "
            f"{worth.random_images} by chance, at least {MIN_IMAGES} of each"
        )
    return "images drawn by chance needed no correction: there is nothing to compare with"


def _mean(value: float | None, images: int) -> str:
    return "-" if value is None else f"{value:.1f} ({images})"
