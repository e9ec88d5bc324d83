"""Tables of edits, one line a version or an annotator; they fit into 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from maskloop.types import EditCounts

__all__ = ["EditLine", "print_edits", "untouched_lines"]

KINDS = ("kept", "nudged", "redrawn", "relabelled", "split", "merged", "removed", "added")
MAX_NAME = 20  # characters of a name that are never broken


@dataclass(frozen=True, kw_only=True)
class EditLine:
    """The edits of one version's predictions, or by one annotator."""

    name: str
    images: int
    edits: EditCounts
    work_saved: float | None  # see `maskloop.learning.evaluation.annotation_cost`
    lead_time_s: float | None  # median of an image
    untouched: int  # images whose predicted regions were submitted without any edit
    untouched_s: float | None  # their median lead time
    more: Mapping[str, str] = field(default_factory=dict)  # heading -> text of further columns


def print_edits(title: str, heading: str, lines: Sequence[EditLine]) -> None:
    """Print two tables: what became of the regions, and the work of the images.

    Args:
        title: of both.
        heading: of the first column.
        lines: all with the same further columns.
    """
    console = Console()
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(_regions_table(heading, lines))
    console.print()
    console.print(_images_table(heading, lines))


def untouched_lines(lines: Sequence[EditLine]) -> Iterator[str]:
    """Yield a sentence for each line that submits a larger share of its images untouched than the others."""
    for line in lines:
        others = [one for one in lines if one is not line]
        images, untouched = sum(one.images for one in others), sum(one.untouched for one in others)
        if images and line.untouched / line.images > untouched / images:
            seconds = "" if line.untouched_s is None else f" (median {line.untouched_s:.0f} s)"
            yield (
                f"{line.name} submitted {line.untouched} of {line.images} images untouched{seconds}, "
                f"the others {untouched} of {images}"
            )


def _table(heading: str, lines: Sequence[EditLine], columns: Sequence[str]) -> Table:
    # Without a box: a border of every column would not fit.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    # Headings are broken before names are, unless a name takes too much of the line.
    longest = max((len(line.name) for line in lines), default=0)
    table.add_column(heading, overflow="fold", min_width=min(longest, MAX_NAME))
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _regions_table(heading: str, lines: Sequence[EditLine]) -> Table:
    # Edits of unknown kind are of annotations from before the kinds were stored.
    with_unknown = any(line.edits.changed_unknown for line in lines)
    table = _table(heading, lines, [*KINDS, *(["edited"] if with_unknown else [])])
    for line in lines:
        counts = [getattr(line.edits, kind) for kind in KINDS]
        counts += [line.edits.changed_unknown] if with_unknown else []
        table.add_row(line.name, *(str(count) for count in counts))
    return table


def _images_table(heading: str, lines: Sequence[EditLine]) -> Table:
    further = list(lines[0].more) if lines else []
    columns = ("images", "saved", "kept", "seconds", "untouched", *further)
    table = _table(heading, lines, columns)
    for line in lines:
        edits = line.edits
        table.add_row(
            line.name,
            str(line.images),
            "-" if line.work_saved is None else f"{line.work_saved:.0%}",
            f"{edits.kept / edits.predicted:.0%}" if edits.predicted else "-",
            "-" if line.lead_time_s is None else f"{line.lead_time_s:.0f}",
            str(line.untouched)
            if line.untouched_s is None
            else f"{line.untouched} ({line.untouched_s:.0f} s)",
            *line.more.values(),
        )
    return table
