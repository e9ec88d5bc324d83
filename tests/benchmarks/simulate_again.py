"""Works out again what simulations came to, from the labels, objects and qualities that were kept of them.

`python -m tests.benchmarks.simulate_again FILE...` reads files of `maskloop simulate --json`, puts gains and
savings as they are computed now in the place of the old ones, draws the plots that are in `docs` again, and
prints the table of each as Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskloop.files import write_whole
from maskloop.lab.simulation.outcome import Run
from maskloop.lab.simulation.report import METRIC_NAMES, strategies_svg, strategy_figures
from maskloop_studio.cli.simulation_table import gain_word, saving_word

DOCS = Path(__file__).parents[2] / "docs"
BASELINE = "random"


def runs_of(told: Mapping[str, Any], name: str) -> list[Run]:
    """Return the curves of one strategy, one a seed."""
    found = told["strategies"][name]
    seconds = found.get("seconds") or [None] * len(told["seeds"])
    return [
        Run(
            seed=seed,
            labels=tuple(found["labels"][row]),
            objects=tuple(found["objects"][row]),
            quality=tuple(found["quality"][row]),
            seconds=None if seconds[row] is None else tuple(seconds[row]),
        )
        for row, seed in enumerate(told["seeds"])
    ]


def recompute(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with gains and savings of today's code."""
    random = runs_of(told, BASELINE)
    target = told["full_data"]["target"]
    strategies = {
        name: {**found, **strategy_figures(runs_of(told, name), random, target)}
        for name, found in told["strategies"].items()
    }
    return {**told, "strategies": strategies}


def markdown(told: Mapping[str, Any]) -> str:
    """Return the table of docs/selection.md."""
    ends = {name: _end(found) for name, found in told["strategies"].items()}
    lines = [
        f"| | {' | '.join(ends)} |",
        "|" + "---|" * (len(ends) + 1),
    ]
    heads = (
        f"quality after {_labels(told)} images",
        "objects on them in the end",
        "seconds of work in the end",
    )
    for head, words in zip(heads, zip(*ends.values(), strict=True), strict=True):
        lines.append(f"| {head} | {' | '.join(words)} |")
    rows = {
        **{f"gain at equal {cost}": ("gain", cost) for cost in ("labels", "objects", "seconds")},
        **{f"{cost} saved to 95 % of full data": ("full", cost) for cost in ("labels", "objects", "seconds")},
        **{f"{cost} saved to random's end": ("end", cost) for cost in ("labels", "objects", "seconds")},
    }
    for head, (kind, cost) in rows.items():
        words = [
            "" if name == BASELINE else _word(found, kind, cost) for name, found in told["strategies"].items()
        ]
        lines.append(f"| {head} | {' | '.join(words)} |")
    return "\n".join(lines)


def _word(found: Mapping[str, Any], kind: str, cost: str) -> str:
    if kind == "gain":
        return gain_word(found[f"gain_at_equal_{cost}"])
    if kind == "end":
        return saving_word(found["to_random_end"][cost])
    return saving_word(found["labels_saved_detail" if cost == "labels" else f"{cost}_saved"])


def _labels(told: Mapping[str, Any]) -> str:
    return ", ".join(map(str, told["strategies"][BASELINE]["labels"][0]))


def _end(found: Mapping[str, Any]) -> tuple[str, str, str]:
    seconds = [one for one in found.get("seconds") or [] if one is not None]
    return (
        ", ".join(f"{value:.3f}" for value in found["mean"]),
        f"{np.mean([one[-1] for one in found['objects']]):.0f}",
        f"{np.mean([one[-1] for one in seconds]):.0f}" if seconds else "not known",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        told = recompute(json.loads(path.read_text(encoding="utf-8")))
        write_whole(path, json.dumps(told, indent=1) + "\n")
        title = f"{METRIC_NAMES[told['metric']]}, {len(told['seeds'])} seeds"
        drawn = strategies_svg(
            {name: runs_of(told, name) for name in told["strategies"]},
            title=title,
            pool=told["data"]["pool"],
            full=float(np.mean(told["full_data"]["quality"])),
        )
        if (DOCS / f"{path.stem}.svg").is_file():
            write_whole(DOCS / f"{path.stem}.svg", drawn)
        print(f"{path.stem}\n\n{markdown(told)}\n")


if __name__ == "__main__":
    main()
