"""How a project stands, in words: what is wrong, and what a person does next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskloop.errors import MaskloopError
from maskloop.store.sessions import now
from maskloop_studio.formats.label_config import parse_label_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maskloop.settings import Settings
    from maskloop.store.overview import NextTask, ProjectCounts
    from maskloop_studio.dashboard.dashboard_parts import Served
    from maskloop_studio.dashboard.lookups import Roles

__all__ = ["Step", "class_names", "next_step", "reasons_of", "troubles_of"]

SIGNAL_WORDS = {
    "entropy": "unsure which class",
    "margin": "two classes are close",
    "border": "undecided outlines",
    "missing": "objects may be missing",
    "disagreement": "other views disagree",
}
MOST_SIGNALS = 2


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a person does next."""

    text: str
    command: str | None = None  # for a terminal
    link: str | None = None  # "studio", or a page below the project
    link_text: str = ""


def class_names(label_config: str) -> tuple[tuple[str, ...], str | None]:
    """Return the labels of a label config, and what is wrong with it."""
    try:
        return parse_label_config(label_config).all_labels, None
    except MaskloopError as exc:
        return (), str(exc)


def troubles_of(
    counts: ProjectCounts, *, served: Served | None, roles: Roles, config_trouble: str | None
) -> list[str]:
    """Return what is wrong with a project, worst first."""
    found = []
    if counts.missing_since is not None:
        days = (now() - counts.missing_since).days
        found.append(f"Label Studio does not find it since {counts.missing_since:%Y-%m-%d} ({days} days)")
    if config_trouble is not None:
        found.append(config_trouble)
    if roles.trouble is not None:
        found.append(roles.trouble)
    if served is not None and served.trouble is not None:
        found.append(served.trouble)
    if counts.dead:
        found.append(f"{counts.dead} jobs failed and wait for a person")
    if counts.set_aside:
        found.append(f"{counts.set_aside} annotations could not be read and are set aside")
    return found


def next_step(
    counts: ProjectCounts, *, roles: Roles, settings: Settings, verdict: str = "was judged better"
) -> Step:
    """Return what a person does next for a project.

    Args:
        counts: how it stands.
        roles: its versions' roles.
        settings: what starts a training.
        verdict: what the judging of the version that waits came to, see `verdict_in_words`.
    """
    number = counts.project_id
    if counts.missing_since is not None:
        return Step(
            text="The project is gone from Label Studio, or its token may not see it. Disconnect it if it "
            "was deleted.",
            command=f"maskloop disconnect {number}",
        )
    if counts.dead:
        return Step(text="Look at the failed jobs.", link="jobs", link_text="Failed jobs")
    waiting = roles.challenger or roles.shadow
    if waiting is not None:
        return Step(
            text=f"Version {waiting} {verdict} and waits for you: look at it, then promote it.",
            link=f"versions/{waiting}",
            link_text=f"Version {waiting}",
        )
    if not counts.train + counts.holdout:
        return Step(
            text=f"Annotate in Label Studio: open the project, correct what the model draws, and submit. "
            f"{settings.train_after} submitted annotations start the first training.",
            link="studio",
            link_text="Open in Label Studio",
        )
    missing = settings.train_after - counts.new_corrections
    if missing > 0:
        return Step(
            text=f"Go on annotating: {missing} more annotations start the next training "
            f"({counts.new_corrections} of {settings.train_after}).",
            link="studio",
            link_text="Open in Label Studio",
        )
    return Step(
        text=f"{counts.new_corrections} new corrections: a training starts when nobody has submitted for "
        f"{settings.train_quiet_s:.0f} s.",
        command=f"maskloop train {number}",
    )


def reasons_of(task: NextTask) -> list[str]:
    """Return why a task comes where it comes, in words."""
    if task.at_random:
        return ["drawn by chance, to measure what choosing brings"]
    doubts: Mapping[str, float] = {
        name: value for name, value in task.signals.items() if isinstance(value, int | float)
    }
    strongest = sorted(doubts, key=lambda name: -doubts[name])[:MOST_SIGNALS]
    reasons = [f"{SIGNAL_WORDS.get(name, name)} ({doubts[name]:.0%})" for name in strongest]
    if task.cluster is not None:
        reasons.append(f"stands for group {task.cluster} of alike images")
    return reasons or [f"model is {task.confidence:.0%} sure"]
