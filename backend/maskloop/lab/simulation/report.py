"""What a simulation came to, as plain values for a script, as a plot, and as lines for a terminal."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from maskloop.lab.simulation.experiment import BASELINE, Simulation, model_digest
from maskloop.lab.simulation.outcome import Run, Saving, band_of, labels_saved, mean_gain
from maskloop.lab.simulation.plot import COLOURS, OTHER_COLOUR, Curve, curves_svg
from maskloop.learning.registry.model_card import code_version, learning_settings
from maskloop.settings import Settings

__all__ = ["SHARE_OF_FULL", "simulation_json", "simulation_svg", "simulation_words"]

SHARE_OF_FULL = 0.95  # of the quality with all labels: what counts as good enough
METRIC_NAMES = {"score": "mean of AP50, PQ and mean IoU", "ap50": "AP50", "pq": "PQ", "miou": "mean IoU"}
_DIGITS = 6


def simulation_json(simulation: Simulation, settings: Settings) -> dict[str, Any]:
    """Return everything a script may want: curves of each seed, what was saved, how it was measured."""
    target = _target(simulation)
    data, plan = simulation.data, simulation.plan
    return {
        "metric": plan.metric,
        "data": {
            "source": Path(plan.data).name,
            "sha256": data.digest,
            "pool": len(data.pool),
            "holdout": len(data.holdout),
            "classes": list(data.labels),
        },
        "settings": {
            **{key: value for key, value in dataclasses.asdict(plan).items() if key not in ("data", "jobs")},
            "model": Path(settings.model).name,
            "model_sha256": model_digest(settings.model),
            "task": str(settings.task),
            "learning": learning_settings(settings),
        },
        "versions": {
            "maskloop": code_version().version,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "full_data": {
            "labels": len(data.pool),
            "objects": sum(len(example.segments) for example in data.pool),
            "quality": [result.full[plan.metric] for result in simulation.results],
            "target": _plain(target),
        },
        "seeds": [result.seed for result in simulation.results],
        "strategies": {name: _strategy_json(simulation, name, target) for name in plan.strategies},
    }


def simulation_svg(simulation: Simulation) -> str:
    """Return the plot: a line for each strategy, its band the 95 % interval of the mean over the seeds."""
    curves = [
        _curve(name, simulation.runs(name), _colour(place))
        for place, name in enumerate(simulation.plan.strategies)
    ]
    full = band_of([result.full[simulation.plan.metric] for result in simulation.results]).mean
    return curves_svg(
        curves,
        title=f"{METRIC_NAMES[simulation.plan.metric]}, {len(simulation.results)} seeds",
        x_title="labelled images",
        marks=[
            (f"all {len(simulation.data.pool)} labelled", full),
            (f"{SHARE_OF_FULL:.0%} of that", SHARE_OF_FULL * full),
        ],
    )


def simulation_words(simulation: Simulation) -> list[str]:
    """Return a line for each strategy."""
    target, lines = _target(simulation), []
    random = simulation.runs(BASELINE)
    for name in simulation.plan.strategies:
        runs = simulation.runs(name)
        last = band_of([run.quality[-1] for run in runs])
        words = f"{name}: {last.mean:.3f} with {runs[0].labels[-1]} labels"
        if name != BASELINE:
            gain, saved = mean_gain(runs, random), labels_saved(runs, random, target)
            spread = "" if gain.low is None else f" ({gain.low:+.3f} to {gain.high:+.3f})"
            share = saved.word if saved.share is None else f"{saved.share:.0%} of the labels"
            words += f"; {gain.mean:+.3f}{spread} against random at equal labels; saved: {share}"
        lines.append(words)
    return lines


def _strategy_json(simulation: Simulation, name: str, target: float) -> dict[str, Any]:
    runs, random = simulation.runs(name), simulation.runs(BASELINE)
    gain = mean_gain(runs, random)
    saved = labels_saved(runs, random, target)
    reached = band_of([run.quality[-1] for run in random]).mean
    bands = [band_of(values) for values in zip(*(run.quality for run in runs), strict=True)]
    points = [result.points[name] for result in simulation.results]
    return {
        "labels": [list(run.labels) for run in runs],
        "objects": [list(run.objects) for run in runs],
        "quality": [list(run.quality) for run in runs],
        "metrics": [[dict(point.quality) for point in curve] for curve in points],
        "mean": [_plain(band.mean) for band in bands],
        "low": [_plain(band.low) for band in bands],
        "high": [_plain(band.high) for band in bands],
        "labels_saved": _plain(saved.share),
        "labels_saved_word": saved.word,
        "labels_saved_detail": _saving_json(saved),
        # The quality that random has in the end, with how many labels?
        "to_random_end": _saving_json(labels_saved(runs, random, reached)),
        "gain_at_equal_labels": {key: _plain(value) for key, value in dataclasses.asdict(gain).items()},
    }


def _saving_json(saved: Saving) -> dict[str, Any]:
    told = dataclasses.asdict(saved)
    return {key: value if isinstance(value, str) else _plain(value) for key, value in told.items()}


def _target(simulation: Simulation) -> float:
    full = [result.full[simulation.plan.metric] for result in simulation.results]
    return SHARE_OF_FULL * band_of(full).mean


def _curve(name: str, runs: Sequence[Run], colour: str) -> Curve:
    bands = [band_of(values) for values in zip(*(run.quality for run in runs), strict=True)]
    return Curve(
        name=name,
        colour=OTHER_COLOUR if name == BASELINE else colour,
        x=tuple(float(number) for number in runs[0].labels),
        mean=tuple(band.mean for band in bands),
        low=tuple(band.low for band in bands),
        high=tuple(band.high for band in bands),
    )


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _plain(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)
