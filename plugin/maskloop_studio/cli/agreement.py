"""`maskloop agreement`: how far annotators agree who drew on the same images, and how long a region takes."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from maskloop_studio.cli.parameters import JsonOption, ProjectArgument

if TYPE_CHECKING:
    from maskloop.curation.agreement.pairwise import Agreement, DrawnImage, ProjectAgreement
    from maskloop.types import Correction

__all__ = ["agreement"]


def agreement(project: ProjectArgument, *, as_json: JsonOption = False) -> None:
    """Compare annotators who drew on the same images: pair by pair, class by class, and all together.

    PQ is panoptic quality of one against the other, alpha is Krippendorff's over pixels: 1 is full agreement,
    0 is chance. Annotators are named by their number in Label Studio, or by letters with
    MASKLOOP_HIDE_ANNOTATORS.
    """
    import typer

    from maskloop.curation.agreement.pairwise import measure_agreement
    from maskloop_studio.services import process_services

    services = process_services()
    corrections = services.store.corrections.of(project)
    names = _names(corrections, hidden=services.settings.hide_annotators)
    found = measure_agreement(_drawn(corrections))
    times = _seconds_a_region(corrections)
    if as_json:
        typer.echo(json.dumps(_as_json(found, names, times)))
        return
    if not found.images:
        typer.echo(f"project {project}: no image has annotations of two annotators")
    else:
        typer.echo("\n".join(_lines(found, names)))
    typer.echo("\n".join(f"{names[user]}: {seconds:.1f} s a region" for user, seconds in times.items()))


def _names(corrections: Iterable[Correction], *, hidden: bool) -> dict[int, str]:
    users = sorted({one.annotator for one in corrections if one.annotator is not None})
    if hidden:
        return {user: f"annotator {_letters(number)}" for number, user in enumerate(users)}
    return {user: f"user {user}" for user in users}


def _letters(number: int) -> str:
    """Return A to Z, then AA, AB ..."""
    letters = ""
    while number >= 0:
        letters = chr(ord("A") + number % 26) + letters
        number = number // 26 - 1
    return letters


def _drawn(corrections: Iterable[Correction]) -> list[DrawnImage]:
    """Return the images that two annotators or more drew on; of one person the newest annotation counts."""
    from maskloop.curation.agreement.pairwise import DrawnImage

    images: defaultdict[tuple[int, str, int], dict[int, Correction]] = defaultdict(dict)
    for one in sorted(corrections, key=lambda each: each.updated_at):
        if one.annotator is not None and not one.approximate:
            images[one.task_id, one.view, one.image_index][one.annotator] = one
    return [
        DrawnImage(
            size_hw=next(iter(of_user.values())).size_hw,
            regions={user: one.segments for user, one in of_user.items()},
        )
        for of_user in images.values()
        if len(of_user) > 1 and len({one.size_hw for one in of_user.values()}) == 1
    ]


def _seconds_a_region(corrections: Iterable[Correction]) -> dict[int, float]:
    """Return annotator -> median over annotations of lead time a region."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for one in corrections:
        if one.annotator is not None and one.lead_time_s is not None and one.segments:
            times[one.annotator].append(one.lead_time_s / len(one.segments))
    return {user: statistics.median(some) for user, some in sorted(times.items())}


def _lines(found: ProjectAgreement, names: Mapping[int, str]) -> Iterable[str]:
    yield f"{found.images} images with two annotators or more"
    yield f"{'':<30} {'images':>6} {'PQ':>5} {'IoU':>5} {'matched':>7} {'not':>5}"
    for (first, second), one in found.pairs.items():
        yield _line(f"{names[first]} and {names[second]}", one)
    for label, one in found.classes.items():
        yield _line(label or "without label", one)
    yield _line("all", found.whole)
    yield f"Krippendorff's alpha over pixels: {_shown(found.alpha)}"
    for (one_label, other_label), count in found.whole.relabelled.most_common(10):
        yield f"{count} regions are {one_label or 'without label'} to one and {other_label} to the other"


def _line(name: str, one: Agreement) -> str:
    shown = f"{_shown(one.pq):>5} {_shown(one.mean_iou):>5}"
    return f"{name[:30]:<30} {one.images:>6} {shown} {one.matched:>7} {one.unmatched:>5}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _as_json(
    found: ProjectAgreement, names: Mapping[int, str], times: Mapping[int, float]
) -> dict[str, object]:
    return {
        "images": found.images,
        "alpha": found.alpha,
        "whole": _values(found.whole),
        "pairs": [
            {"annotators": [names[first], names[second]], **_values(one)}
            for (first, second), one in found.pairs.items()
        ],
        "classes": {label: _values(one) for label, one in found.classes.items()},
        "relabelled": [
            {"labels": list(labels), "regions": count}
            for labels, count in found.whole.relabelled.most_common()
        ],
        "seconds_a_region": {names[user]: round(seconds, 2) for user, seconds in times.items()},
    }


def _values(one: Agreement) -> dict[str, object]:
    return {
        "images": one.images,
        "pq": one.pq,
        "iou": one.mean_iou,
        "matched": one.matched,
        "unmatched": one.unmatched,
    }
