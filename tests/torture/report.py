"""The table at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from .scenario import Outcome
from .verdict import Verdict


def report_lines(outcome: Outcome) -> Iterator[str]:
    """Yield the table, and below it what is wrong."""
    yield f"seed {outcome.seed}; home {outcome.home}"
    yield from _counted("killed", outcome.kills)
    yield from _counted("paused", outcome.pauses)
    yield from _counted("nobody to kill", outcome.missed)
    yield from _counted("deeds", outcome.deeds)
    yield from _counted("refused by Label Studio", outcome.refused)
    yield from _counted("started by the harness", outcome.starts)
    for name, figure in outcome.figures.items():
        yield f"{name:<28} {figure}"
    for name, seconds in outcome.seconds.items():
        yield f"{'seconds ' + name:<28} {seconds}"
    for kind, faults in outcome.verdict.faults.items():
        yield f"{kind:<28} {len(faults)}"
    yield from outcome.verdict.lines()


def outcome_to_json(outcome: Outcome) -> str:
    """Return everything as JSON, for a later comparison."""
    return json.dumps(vars(outcome), indent=1, default=_fields_or_text)


def _fields_or_text(value: object) -> object:
    """Return a value's fields where it has some, else its text."""
    return vars(value) if isinstance(value, Verdict) else str(value)


def _counted(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    if counts:
        parts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        yield f"{title:<28} {sum(counts.values())}: {parts}"
