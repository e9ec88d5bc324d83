"""The results as JSON for a script and as a table for a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from .case import Result, Spread

__all__ = ["report_json", "report_rows"]

COLUMNS = ("case", "ours", "reference", "unit", "against", "ratio", "aim", "same result")


def report_json(
    results: Sequence[Result], machine: Mapping[str, object], skipped: Mapping[str, str]
) -> dict[str, object]:
    """Return what `--json` writes; `ours` and `reference` are medians, the quartiles stand beside them."""
    tables: dict[str, list[object]] = {}
    for result in results:
        for name, rows in result.tables.items():
            tables.setdefault(name, []).extend(rows)
    return {
        "machine": dict(machine),
        "cases": [_entry(result) for result in results],
        "skipped": dict(skipped),
        **tables,
    }


def report_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return the lines of the table, headings first."""
    return [COLUMNS, *(_row(result) for result in results)]


def _entry(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "ours": result.ours.median,
        "reference": None if result.reference is None else result.reference.median,
        "unit": result.unit,
        "reference_name": result.reference_name,
        "ratio": result.ratio,
        "better": result.better,
        "aim": result.aim,
        "same": result.same,
        "ours_spread": asdict(result.ours),
        "reference_spread": None if result.reference is None else asdict(result.reference),
        "notes": dict(result.notes),
        **result.figures,
    }


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        _figure(result.ours),
        "" if result.reference is None else _figure(result.reference),
        result.unit,
        result.reference_name,
        "" if result.ratio is None else f"{result.ratio:.3g}",
        "" if result.aim is None else f"{result.aim:g}",
        result.same,
    )


def _figure(spread: Spread) -> str:
    """Return the median with the quartiles, such as `12.3 (12.1-12.9)`."""
    text = f"{spread.median:.4g}"
    return text if spread.rounds == 1 else f"{text} ({spread.low:.3g}-{spread.high:.3g})"
