"""The figures of a demo: one row a round, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maskloop.files import write_whole
from maskloop.types import EditCounts, HoldoutMetrics

__all__ = ["DemoReport", "RoundReport"]


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """One round: what was corrected, and what was learnt from it."""

    number: int
    corrected: int  # images
    edits: EditCounts  # what became of the predicted regions
    work_saved: float | None  # 1 - cost of correcting / cost of drawing; None where nothing was drawn
    regions_drawn: int  # objects of the predictions that were corrected
    objects: int  # that are really on these images
    fragments: int  # of the predicted ones, see `count_fragments`
    before: HoldoutMetrics  # of the champion when the round began
    metrics: HoldoutMetrics  # of the champion when it ended
    challenger: HoldoutMetrics  # of the model that this round trained
    champion: str  # the version that serves after it
    promoted: bool
    reason: str
    seconds: float
    showing: str = ""  # which segments of the trained version annotators are shown

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "round": self.number,
            "corrected": self.corrected,
            "regions": dataclasses.asdict(self.edits),
            "work_saved": None if self.work_saved is None else round(self.work_saved, 4),
            "regions_drawn": self.regions_drawn,
            "objects": self.objects,
            "fragments": self.fragments,
            "before": _numbers(self.before),
            "metrics": _numbers(self.metrics),
            "challenger": _numbers(self.challenger),
            "holdout_images": self.metrics.images,
            "champion": self.champion,
            "promoted": self.promoted,
            "reason": self.reason,
            "showing": self.showing,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """All rounds."""

    rounds: tuple[RoundReport, ...]
    seconds: float

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        rows = [row.as_json() for row in self.rounds]
        write_whole(path, json.dumps({"rounds": rows, "seconds": round(self.seconds, 2)}, indent=1) + "\n")

    def print(self, console: Console) -> None:
        """Print it as a table."""
        table = Table(title="Holdout after each round", title_justify="left")
        for name in (
            "round",
            "images",
            "kept",
            "changed",
            "added",
            "removed",
            "saved",
            "AP50",
            "PQ",
            "mIoU",
            "s",
        ):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("champion", no_wrap=True)
        if self.rounds:
            start = self.rounds[0].before
            table.add_row("before", "", "", "", "", "", "", *_shown(start), "", "")
        for row in self.rounds:
            edits = row.edits
            table.add_row(
                str(row.number),
                str(row.corrected),
                *(str(count) for count in (edits.kept, edits.changed, edits.added, edits.removed)),
                "-" if row.work_saved is None else f"{row.work_saved:.0%}",
                *_shown(row.metrics),
                f"{row.seconds:.0f}",
                f"{row.champion}{' (promoted)' if row.promoted else ' (kept)'}",
            )
        console.print(table)
        for row in self.rounds:
            if row.showing:
                console.print(f"round {row.number}'s version {row.showing}", highlight=False, markup=False)


def _numbers(metrics: HoldoutMetrics) -> dict[str, float]:
    return {
        name: round(value, 4)
        for name, value in (("ap50", metrics.ap50), ("pq", metrics.pq), ("miou", metrics.miou))
    }


def _shown(metrics: HoldoutMetrics) -> list[str]:
    return [f"{value:.3f}" for value in (metrics.ap50, metrics.pq, metrics.miou)]
