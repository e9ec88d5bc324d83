"""`maskloop simulate`: the gain of choosing images, on images whose true segments are known."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from maskloop.lab.simulation.experiment import Plan, Simulation
    from maskloop.settings import Settings

__all__ = ["simulate_command"]

DEFAULT_STRATEGIES = "hybrid,most-objects,random"
BASELINE = "random"
PRINT_EVERY_S = 60.0  # where there is no terminal to draw a bar on


def simulate_command(
    *,
    data: Annotated[
        str,
        typer.Option(help="A folder with images/ and instances.json, or made-up: images made on the spot."),
    ],
    strategies: Annotated[
        str,
        typer.Option(
            help="Names or module:function, with commas between; random is always among them. most-objects "
            "is the baseline to beat: what has the most predicted objects."
        ),
    ] = DEFAULT_STRATEGIES,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How often each, from 0 on.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Of choosing, after the start.")] = 6,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this SVG file.")] = None,
    model: Annotated[
        str | None, typer.Option(help="What each training starts from.", show_default="MASKLOOP_MODEL")
    ] = None,
    start: Annotated[int, typer.Option(min=1, help="Labelled images before anything is chosen.")] = 8,
    per_round: Annotated[int, typer.Option(min=1, help="Images that are labelled in a round.")] = 8,
    holdout: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of the images that judge.")] = 0.3,
    pool: Annotated[int | None, typer.Option(min=2, help="Images to choose from, at most.")] = None,
    images: Annotated[int, typer.Option(min=4, help="How many are made up.")] = 400,
    tile: Annotated[
        int | None,
        typer.Option(min=32, help="Pixels: only a square around the object in each image's middle."),
    ] = None,
    edge: Annotated[
        int | None, typer.Option(min=32, help="Pixels: the shorter side that the model sees.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of a training.", show_default="by the data's size")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="What a training may take.")] = None,
    warm: Annotated[
        bool,
        typer.Option(
            "--warm/--from-base", help="A round goes on from the last one's model, or from the base."
        ),
    ] = False,
    random_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the images that is drawn by chance.")
    ] = 0.0,
    metric: Annotated[
        Literal["score", "ap50", "pq", "miou"],
        typer.Option(help="What quality is; score is the mean of the others, as for the gate."),
    ] = "score",
    jobs: Annotated[int, typer.Option(min=1, help="Seeds side by side, each in a process.")] = 1,
    work: Annotated[
        Path | None, typer.Option(help="Where trainings are kept.", show_default="simulate in MASKLOOP_HOME")
    ] = None,
) -> None:
    """Simulate rounds of choosing, labelling and learning: strategies against random, quality by labels.

    Every strategy starts from the same images with the same seeds, and is judged on the same images. Stopped
    at any time, the same command goes on; with more seeds or strategies, only what is new is done.

    The table compares each strategy with random. Gain: the difference in quality, the mean over the rounds
    (equal labels: images) or over all that both curves cover (equal objects; equal seconds of edits that make
    the truth of what the model of the round had predicted, by MASKLOOP_EDIT_SECONDS), with a 95 % interval
    over the seeds. Chosen images often hold more objects, so equal objects or seconds are what compares
    costs. Saved: the share of random's labels, objects or seconds that is not needed to reach 95 % of the
    quality with all images labelled; where a resample of the seeds does not reach it, the interval is open.
    """
    from maskloop.lab.simulation.experiment import Plan
    from maskloop.settings import load_settings

    settings = load_settings()
    given = {"model": model, "train_steps": steps, "train_minutes": minutes}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    plan = Plan(
        data=data,
        strategies=_names(strategies),
        seeds=seeds,
        rounds=rounds,
        start=start,
        per_round=per_round,
        random_share=random_share,
        clusters=settings.clusters,
        holdout=holdout,
        limit=pool,
        images=images,
        tile=tile,
        edge=edge,
        warm=warm,
        metric=metric,
        jobs=jobs,
    )
    _run(plan, settings, work or settings.home / "simulate", json_file, plot)


def _run(plan: Plan, settings: Settings, work: Path, json_file: Path | None, plot: Path | None) -> None:
    from rich.console import Console

    from maskloop.files import write_whole
    from maskloop.lab.simulation.experiment import simulate
    from maskloop.lab.simulation.report import simulation_json, simulation_svg
    from maskloop_studio.cli.simulation_table import simulation_table, simulation_warnings
    from maskloop_studio.runtime.progress_bar import progress_bar

    if plot is not None:
        from maskloop.lab.simulation.plot import import_matplotlib

        import_matplotlib()  # a missing package is an error now, not after hours
    clock = _Clock()

    def write(simulation: Simulation) -> None:
        if json_file is not None:
            write_whole(json_file, json.dumps(simulation_json(simulation, settings), indent=1) + "\n")
        if plot is not None:
            write_whole(plot, simulation_svg(simulation))

    def note_seed(simulation: Simulation) -> None:
        write(simulation)
        typer.echo(f"seeds done: {len(simulation.results)} of {plan.seeds}; {clock.left()}", err=True)

    with progress_bar() as bar:
        shown = bar.add_task("trainings", total=None)

        def note_step(done: int, total: int) -> None:
            bar.update(shown, completed=done, total=total)
            clock.note(done, total)
            if bar.disable and clock.is_due():
                typer.echo(f"trainings done: {done} of {total}; {clock.left()}", err=True)

        simulation = simulate(plan, settings=settings, work=work, on_step=note_step, on_seed=note_seed)
    write(simulation)
    told = simulation_json(simulation, settings)
    Console().print(simulation_table(told))
    for line in simulation_warnings(told):
        typer.echo(line)


class _Clock:
    """Estimates the time left from the trainings of this run."""

    def __init__(self) -> None:
        self._began = self._printed = time.monotonic()
        self._first: int | None = None
        self._done = self._total = 0

    def note(self, done: int, total: int) -> None:
        """Note how many trainings are done, and of how many."""
        self._first = done if self._first is None else self._first
        self._done, self._total = done, total

    def is_due(self) -> bool:
        """Return whether nothing was printed for a minute, and start the next one."""
        if time.monotonic() - self._printed < PRINT_EVERY_S:
            return False
        self._printed = time.monotonic()
        return True

    def left(self) -> str:
        """Return the time left, in words."""
        made = self._done - (self._first or 0)
        if made < 1:
            return "none to go" if self._done >= self._total else "time left not known yet"
        seconds = (time.monotonic() - self._began) / made * (self._total - self._done)
        return f"about {seconds / 60:.0f} min left"


def _names(strategies: str) -> tuple[str, ...]:
    """Return the names as they were given, each once; random comes last where it was not named."""
    from maskloop.errors import ConfigurationError
    from maskloop.selection.strategies import find_strategy

    given = [name.strip() for name in strategies.split(",") if name.strip()]
    for name in given:
        try:
            find_strategy(name)
        except ConfigurationError as exc:
            raise typer.BadParameter(
                f"expected {exc.expected}, got {exc.got}", param_hint="--strategies"
            ) from exc
    return tuple(dict.fromkeys([*given, BASELINE]))
