"""`maskloop review`: annotations that are probably wrong, in Label Studio and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskloop_studio.cli.parameters import JsonOption, ProjectArgument

if TYPE_CHECKING:
    from maskloop.curation.review.suspicion import SuspicionKind
    from maskloop_studio.review.run_review import ReviewOutcome

__all__ = ["review"]

SHOWN = 20  # lines of the table


def review(
    project: ProjectArgument,
    *,
    top: Annotated[int, typer.Option(min=1, max=10_000, help="How many suspicions are shown.")] = 100,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[,KIND]",
            help="Look for these errors only, by their probability alone: overlooked, spurious, wrong class, "
            "poorly drawn border (or border), merged, split, duplicate.",
            show_default="all",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write crops of them as one HTML file.")] = None,
    tab: Annotated[bool, typer.Option(help="Make the tab and the proposals in Label Studio.")] = True,
    right: Annotated[
        list[int] | None, typer.Option(help="This suspicion's annotation is right: it comes no more.")
    ] = None,
    wrong: Annotated[list[int] | None, typer.Option(help="This suspicion was an error.")] = None,
    folds: Annotated[
        int,
        typer.Option(
            min=0, max=20, help="Train so many models to judge images that every version has learnt from."
        ),
    ] = 0,
    clear: Annotated[bool, typer.Option("--clear", help="Remove tab and proposals, and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Rank a project's annotations by how likely they are wrong, and show the likeliest errors.

    Each image is judged by the newest model version that has not learnt from it. In Label Studio a tab
    "maskloop: review" has the tasks in that order, each with a prediction of version maskloop-review: the
    annotation with the errors mended. What a reviewer saves is learnt from at the next review.

    With --kind border,overlooked only poorly drawn borders and overlooked objects are looked for: more of
    them come among the first than in the order of all kinds. Each review takes the place of the last one,
    and an annotation that is saved as it was counts as right for every kind.
    """
    from maskloop.errors import ConfigurationError
    from maskloop.files import write_whole
    from maskloop.store.reviews import Verdict
    from maskloop_studio.projects.audit_trail import record_cleared
    from maskloop_studio.review.review_tab import remove_review
    from maskloop_studio.review.run_review import decide, review_project
    from maskloop_studio.services import process_services

    kinds = _kinds(kind or ())
    services = process_services()
    if clear:
        tasks = remove_review(project, client=services.client, pushes=services.store.pushes)
        record_cleared(
            project,
            "the review's tab and proposals",
            command="maskloop review --clear",
            tasks=tasks,
            store=services.store,
        )
        typer.echo(f"removed the review of {tasks} tasks from project {project}")
        return
    if right or wrong:
        for verdict, numbers in ((Verdict.RIGHT, right or []), (Verdict.WRONG, wrong or [])):
            known = decide(project, numbers, verdict, services)
            unknown = sorted(set(numbers) - set(known))
            if unknown:
                raise ConfigurationError(
                    f"review of project {project}",
                    expected="numbers that the last review printed",
                    got=", ".join(map(str, unknown)),
                    remedy=f"run `maskloop review {project}` and take its numbers",
                )
            if numbers:
                typer.echo(f"kept as {verdict}: {', '.join(map(str, known))}")
        return

    def say(line: str) -> None:
        typer.echo(line, err=True)

    outcome = review_project(project, services, top=top, in_studio=tab, say=say, folds=folds, kinds=kinds)
    if html is not None:
        from maskloop.curation.review.gallery import gallery_html

        title = f"Review of project {project}" + (f": {', '.join(kinds)}" if kinds else "")
        write_whole(html, "".join(gallery_html(title, outcome.cards)))
    typer.echo(json.dumps(_as_json(outcome)) if as_json else _in_words(outcome, html=html, tab=tab))
    if outcome.unreadable:
        raise typer.Exit(1)


def _kinds(words: Sequence[str]) -> tuple[SuspicionKind, ...]:
    """Return the kinds that words name, such as `Wrong-class` or `border,split`, in the order of all."""
    from maskloop.curation.review.suspicion import SuspicionKind
    from maskloop.errors import ConfigurationError

    named = {_plain(name): one for one in SuspicionKind for name in (one.name, one.value)}
    found = set()
    for word in ",".join(words).split(",") if words else ():
        if _plain(word) not in named:
            raise ConfigurationError(
                "--kind",
                expected=", ".join(SuspicionKind),
                got=repr(word),
                remedy="name one of these, or several with commas between",
            )
        found.add(named[_plain(word)])
    return tuple(one for one in SuspicionKind if one in found)


def _plain(word: str) -> str:
    return " ".join(word.lower().replace("-", " ").replace("_", " ").split())


def _as_json(outcome: ReviewOutcome) -> dict[str, object]:
    return {
        "project": outcome.project_id,
        "images": outcome.images,
        "unseen": outcome.unseen,
        "unreadable": list(outcome.unreadable),
        "calibrated": outcome.calibrated,
        "confirmed": outcome.confirmed,
        "kinds": list(outcome.kinds),
        "unjudged": list(outcome.unjudged),
        "settled": dict(outcome.settled),
        "suspicions": [
            {
                "number": one.number,
                "task": one.task_id,
                "annotation": one.annotation_id,
                "kind": one.kind,
                "score": round(one.score, 4),
                "label": one.segment.label,
                "missing": one.missing,
                "box_yxyx": list(one.segment.box_yxyx),
            }
            for one in outcome.shown
        ],
    }


def _in_words(outcome: ReviewOutcome, *, html: Path | None, tab: bool) -> str:
    asked = f" of {', '.join(outcome.kinds)}" if outcome.kinds else ""
    lines = [f"{outcome.images} images reviewed, {len(outcome.shown)} suspicions{asked}"]
    for one in outcome.shown[:SHOWN]:
        what = f"{one.segment.label}, task {one.task_id}"
        lines.append(f"{one.number:>6}  {one.score:>4.0%}  {one.kind:<20}  {what}")
    if len(outcome.shown) > SHOWN:
        lines.append(f"        and {len(outcome.shown) - SHOWN} more: --json lists all")
    if not outcome.calibrated:
        lines.append("note: too few regions to calibrate on: the scores are by rule")
    for kind in outcome.unjudged:
        lines.append(f"note: {kind} was not looked for: no such error can be made from these annotations")
    if outcome.unseen:
        lines.append(
            f"note: {outcome.unseen} images were not reviewed: every version has learnt from them (--folds 3)"
        )
    if outcome.confirmed:
        lines.append(f"{outcome.confirmed} left out: a reviewer said that they are right")
    for verdict, count in outcome.settled.items():
        lines.append(f"decided since the last review: {count} {verdict}")
    lines += [f"not readable: {reason}" for reason in outcome.unreadable]
    if tab:
        lines.append("in Label Studio: the tab 'maskloop: review'; `--clear` removes it")
    if html is not None:
        lines.append(f"crops: {html}")
    return "\n".join(lines)
