"""What a simulation came to, as plain values for a script, and as a plot."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from maskloop.lab.simulation.experiment import BASELINE, Simulation, model_digest
from maskloop.lab.simulation.outcome import Cost, Gain, Run, band_of, gain_at_equal_cost, mean_gain
from maskloop.lab.simulation.plot import COLOURS, OTHER_COLOUR, Curve, Panel, panels_svg
from maskloop.lab.simulation.savings import Saving, cost_saved
from maskloop.learning.evaluation.annotation_cost import weights_from_settings
from maskloop.learning.registry.model_card import code_version, learning_settings
from maskloop.settings import Settings

__all__ = ["SHARE_OF_FULL", "simulation_json", "simulation_svg", "strategies_svg", "strategy_figures"]

SHARE_OF_FULL = 0.95  # of the quality with all labels: what counts as good enough
METRIC_NAMES = {"score": "mean of AP50, PQ and mean IoU", "ap50": "AP50", "pq": "PQ", "miou": "mean IoU"}
DEARER: tuple[Cost, ...] = ("objects", "seconds")  # what grows with what is on an image
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
            "edit_seconds": dataclasses.asdict(weights_from_settings(settings.edit_seconds)),
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
        "strategies": {name: _strategy_json(simulation, name, settings, target) for name in plan.strategies},
    }


def simulation_svg(simulation: Simulation) -> str:
    """Return the plot of `strategies_svg`."""
    plan = simulation.plan
    return strategies_svg(
        {name: simulation.runs(name) for name in plan.strategies},
        title=f"{METRIC_NAMES[plan.metric]}, {len(simulation.results)} seeds",
        pool=len(simulation.data.pool),
        full=band_of([result.full[plan.metric] for result in simulation.results]).mean,
    )


def strategies_svg(strategies: Mapping[str, Sequence[Run]], *, title: str, pool: int, full: float) -> str:
    """Return a plot by labelled images, and one by annotated objects.

    Args:
        strategies: the curves of each, one a seed. A line is drawn for each strategy through the means of
            its rounds, its band the 95 % interval of the mean quality over the seeds.
        title: above the first.
        pool: images that may be labelled.
        full: quality with all of them.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    marks = ((f"all {pool} labelled", full), (f"{SHARE_OF_FULL:.0%} of that", SHARE_OF_FULL * full))
    titles: dict[Cost, str] = {"labels": title, "objects": "the same by objects"}
    panels = [
        Panel(
            curves=tuple(
                _curve(name, runs, _colour(place), cost)
                for place, (name, runs) in enumerate(strategies.items())
            ),
            title=above,
            marks=marks,
            from_zero=False,
            ticks_at_points=cost == "labels",
        )
        for cost, above in titles.items()
    ]
    x_title = "labelled images (left), annotated objects (right)"
    return panels_svg([panels], x_title=x_title, panel_inches=(5.0, 4.0))


def strategy_figures(runs: Sequence[Run], random: Sequence[Run], target: float) -> dict[str, Any]:
    """Return what a strategy came to against random: gains at equal cost, and what it saves.

    Args:
        runs: of the strategy, one a seed.
        random: of random, with the same seeds.
        target: the quality that has to be reached.
    """
    reached = band_of([run.quality[-1] for run in random]).mean
    saved = cost_saved(runs, random, target)
    assert saved is not None  # images are always counted
    return {
        "labels_saved": _plain(saved.share),
        "labels_saved_word": saved.word,
        "labels_saved_detail": _saving_json(saved),
        **{f"{cost}_saved": _saving_json(cost_saved(runs, random, target, cost=cost)) for cost in DEARER},
        # The quality that random has in the end, at what cost?
        "to_random_end": {
            cost: _saving_json(cost_saved(runs, random, reached, cost=cost)) for cost in ("labels", *DEARER)
        },
        "gain_at_equal_labels": _gain_json(mean_gain(runs, random)),
        **{
            f"gain_at_equal_{cost}": _gain_json(gain_at_equal_cost(runs, random, cost=cost))
            for cost in DEARER
        },
    }


def _strategy_json(simulation: Simulation, name: str, settings: Settings, target: float) -> dict[str, Any]:
    weights = weights_from_settings(settings.edit_seconds)
    runs, random = simulation.runs(name, weights), simulation.runs(BASELINE, weights)
    bands = [band_of(values) for values in zip(*(run.quality for run in runs), strict=True)]
    points = [result.points[name] for result in simulation.results]
    return {
        "labels": [list(run.labels) for run in runs],
        "objects": [list(run.objects) for run in runs],
        "seconds": [None if run.seconds is None else list(run.seconds) for run in runs],
        "edits": [[point.edits for point in curve] for curve in points],
        "quality": [list(run.quality) for run in runs],
        "metrics": [[dict(point.quality) for point in curve] for curve in points],
        "mean": [_plain(band.mean) for band in bands],
        "low": [_plain(band.low) for band in bands],
        "high": [_plain(band.high) for band in bands],
        **strategy_figures(runs, random, target),
    }


def _saving_json(saved: Saving | None) -> dict[str, Any] | None:
    if saved is None:
        return None
    told = dataclasses.asdict(saved) | {"interval_word": saved.interval_word}
    return {key: value if isinstance(value, str) else _plain(value) for key, value in told.items()}


def _gain_json(gain: Gain | None) -> dict[str, Any] | None:
    return None if gain is None else {key: _plain(value) for key, value in dataclasses.asdict(gain).items()}


def _target(simulation: Simulation) -> float:
    full = [result.full[simulation.plan.metric] for result in simulation.results]
    return SHARE_OF_FULL * band_of(full).mean


def _curve(name: str, runs: Sequence[Run], colour: str, cost: Cost) -> Curve:
    bands = [band_of(values) for values in zip(*(run.quality for run in runs), strict=True)]
    costs = [band_of(values).mean for values in zip(*(run.cost(cost) or () for run in runs), strict=True)]
    return Curve(
        name=name,
        colour=OTHER_COLOUR if name == BASELINE else colour,
        x=tuple(costs),
        mean=tuple(band.mean for band in bands),
        low=tuple(band.low for band in bands),
        high=tuple(band.high for band in bands),
    )


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _plain(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)
