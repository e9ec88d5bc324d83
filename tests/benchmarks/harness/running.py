"""The list of cases, and running those that were chosen."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence

from .case import Budget, Case, Result, Skip

__all__ = ["all_cases", "chosen", "run_cases"]


def all_cases() -> list[Case]:
    """Return the `CASES` of every module in `cases`, by name."""
    folder = importlib.import_module("..cases", __package__)
    found = [
        case
        for module in pkgutil.iter_modules(folder.__path__)
        for case in importlib.import_module(f"{folder.__name__}.{module.name}").CASES
    ]
    return sorted(found, key=lambda case: case.name)


def chosen(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """Return the cases with these names, all of them where none is given.

    Raises:
        ValueError: there is none with a name.
    """
    known = {case.name: case for case in cases}
    for name in only:
        if name not in known:
            raise ValueError(f"--only {name}: expected one of {', '.join(known)}")
    return [case for case in cases if not only or case.name in only]


def run_cases(
    cases: Sequence[Case],
    budget: Budget,
    print_line: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> tuple[list[Result], dict[str, str], dict[str, str]]:
    """Run one after the other.

    Returns:
        All results; case -> why it was skipped; case -> why it failed. After a failure the others still run.
    """
    results: list[Result] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, case in enumerate(cases, start=1):
        print_line(f"{number} of {len(cases)}: {case.name}")
        try:
            results += case.run(budget)
        except Skip as exc:
            skipped[case.name] = str(exc)
            print_line(f"  skipped: {exc}")
        except Exception as exc:
            failed[case.name] = f"{type(exc).__name__}: {exc}"
            print_line(f"  failed: {failed[case.name]}")
    return results, skipped, failed
