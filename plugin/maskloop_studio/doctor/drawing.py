"""Checks of what annotators see on the tasks that wait for them."""

from __future__ import annotations

from collections.abc import Iterator

from maskloop.learning.evaluation.showing import Showing, read_showing
from maskloop.types import ShowMode
from maskloop_studio.doctor.check_context import CheckContext
from maskloop_studio.doctor.check_run import Check
from maskloop_studio.doctor.findings import Finding, good, hint
from maskloop_studio.projects.kept_floors import kept_floors
from maskloop_studio.projects.prediction_plan import parse_options

__all__ = ["DRAWING_CHECKS"]


def check_drawn(context: CheckContext) -> Iterator[Finding]:
    """The champion draws something on the tasks that wait."""
    champion = context.champion
    if champion is None:
        return
    counts = context.store.scores.empty_counts(context.number, champion)
    place = f"what {champion} draws"
    options = parse_options(context.store.projects.options(context.number))
    show = options.show or context.settings.show
    showing = _saved(context, champion)
    words = showing.in_words() if showing is not None else "draws what reaches its threshold: not judged here"
    if show is not ShowMode.AUTO:
        words = "draws nothing, by MASKLOOP_SHOW" if show is ShowMode.NONE else "draws all, by MASKLOOP_SHOW"
    if not counts.tasks or counts.draws_nothing < counts.tasks:
        some = f"; nothing on {counts.draws_nothing} of {counts.tasks} tasks" if counts.draws_nothing else ""
        yield good(place, f"{words}{some}")
        return
    got = f"draws nothing on {counts.draws_nothing} of {counts.tasks} tasks"
    if counts.finds_nothing == counts.tasks:
        yield hint(
            place,
            expected="segments on some of them",
            got=f"{got}: the model finds nothing there",
            remedy="annotate by hand until it has learnt, or see `maskloop models suggest "
            f"{context.number}`; a lower MASKLOOP_SCORE_THRESHOLD shows what it is less sure of",
        )
        return
    kept = kept_floors(context.number, champion, context.store.corrections, context.settings)
    named = f"; annotators kept too few of {', '.join(sorted(kept))}" if kept else ""
    yield hint(
        place,
        expected="segments on some of them",
        got=f"{got}: {words}{named}",
        remedy="annotate on: the next version is judged anew; MASKLOOP_SHOW=all draws everything",
    )


def _saved(context: CheckContext, champion: str) -> Showing | None:
    name = champion.rpartition("-v")[0]
    found = [version for version in context.registry.versions(name) if version.tag == champion]
    return read_showing(found[0].path) if found else None


DRAWING_CHECKS: tuple[Check, ...] = (check_drawn,)
