"""`maskloop agreement`: how far annotators agree who drew on the same images, and how long a region takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from maskloop_studio.cli.parameters import JsonOption, ProjectArgument

if TYPE_CHECKING:
    from maskloop.curation.agreement.pairwise import Agreement, ProjectAgreement
    from maskloop_studio.services import Services

__all__ = ["agreement"]


def agreement(project: ProjectArgument, *, as_json: JsonOption = False) -> None:
    """Compare annotators who drew on the same images: pair by pair, class by class, and all together.

    PQ is panoptic quality of one against the other, alpha is Krippendorff's over pixels: 1 is full agreement,
    0 is chance. Annotators are named as in Label Studio, or by letters with MASKLOOP_HIDE_ANNOTATORS.
    """
    import typer

    from maskloop.curation.agreement.pairwise import measure_agreement
    from maskloop_studio.projects.annotators import annotator_names, drawn_by_several, seconds_a_region
    from maskloop_studio.services import process_services

    services = process_services()
    corrections = services.store.corrections.of(project)
    hidden = services.settings.hide_annotators
    users = {one.annotator for one in corrections}
    names = annotator_names(users, hidden=hidden, known={} if hidden else _known_names(services))
    found = measure_agreement(drawn_by_several(corrections))
    times = seconds_a_region(corrections)
    with_boxes = sum(one.boxes > 0 for one in corrections)
    if as_json:
        typer.echo(json.dumps(_as_json(found, names, times) | {"left_out_for_boxes": with_boxes}))
        return
    if not found.images:
        typer.echo(f"project {project}: no image has annotations of two annotators")
    else:
        typer.echo("\n".join(_lines(found, names)))
    if with_boxes:
        typer.echo(f"{with_boxes} annotated images with boxes are not compared; draw masks on them")
    typer.echo("\n".join(f"{names[user]}: {seconds:.1f} s a region" for user, seconds in times.items()))


def _known_names(services: Services) -> dict[int, str]:
    """Return number -> name; without Label Studio none, with a word to standard error."""
    import typer

    from maskloop.errors import MaskloopError
    from maskloop_studio.projects.annotators import studio_names

    try:
        return studio_names(services.client)
    except MaskloopError as exc:
        typer.echo(f"note: annotators are shown by number, Label Studio gives no names: {exc}", err=True)
        return {}


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
